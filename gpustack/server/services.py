"""The background services of a server: one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random

import attrs

from gpustack.nursery.service import Service
from gpustack.policy.liveness import LivenessSettings
from gpustack.policy.placement import GangSettings
from gpustack.server.catalog import Catalog
from gpustack.server.cluster_load import LoadHistory
from gpustack.server.facts import FactsCache
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.live_status import LiveStatus
from gpustack.server.liveness import Liveness
from gpustack.server.model_meta import AskEngine, ModelMetaReader
from gpustack.server.ray_head import OwnRay, RayHeadRecorder
from gpustack.server.reconciler import ReplicaReconciler
from gpustack.server.scheduler import Scheduler
from gpustack.server.survival import SurvivalWatch
from gpustack.server.update_check import UpdateCheck
from gpustack.store.fenced_store import RecordStore
from gpustack.store.store import Store


@attrs.frozen(kw_only=True)
class BackgroundServices:
    """Services that run on every server, whose results are only shown."""

    load: LoadHistory
    catalog: Catalog
    updates: UpdateCheck
    survival: SurvivalWatch

    @property
    def services(self) -> Sequence[Service]:
        return (self.load, self.catalog, self.updates, self.survival)

    @classmethod
    def of(
        cls,
        store: Store,
        live: LiveStatus,
        facts: FactsCache,
        gangs: GangSettings,
        *,
        catalog_source: str | None,
        version: str,
        feed: str | None,
        now: Callable[[], datetime],
        rng: Random,
    ) -> BackgroundServices:
        """``catalog_source``: ``--model-catalog-file``; ``feed``: the URL of new versions, ``None`` to ask nobody."""
        return cls(
            load=LoadHistory(lambda: store.snapshot, live, now),
            catalog=Catalog(catalog_source),
            updates=UpdateCheck(version, feed, now, rng),
            survival=SurvivalWatch(store, facts, now, gangs),
        )


def leading_services(
    records: RecordStore,
    *,
    facts: FactsCache,
    ask_engine: AskEngine,
    heartbeats: HeartbeatTimes,
    liveness: LivenessSettings,
    gangs: GangSettings,
    ray: OwnRay | None,
    rng: Random,
    monotonic: Callable[[], float],
) -> Sequence[Service]:
    """The loops that only the leading server runs, in the order of starting. No worker counts as silent before now."""
    heartbeats.refill()
    return (
        Liveness(records, heartbeats, liveness, monotonic),
        Scheduler(records, facts, gangs),
        ReplicaReconciler(records, rng),
        RayHeadRecorder(records, ray),
        ModelMetaReader(records, ask_engine),
    )
