"""The control loops of a server: one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random

import attrs

from gpustack.nursery.service import Service
from gpustack.policy.liveness import LivenessSettings
from gpustack.server.catalog import Catalog
from gpustack.server.facts import FactsSource
from gpustack.server.leases import Leases
from gpustack.server.liveness import Liveness
from gpustack.server.load import LoadHistory
from gpustack.server.replicas import Replicas
from gpustack.server.scheduler import Scheduler
from gpustack.server.update import UpdateCheck
from gpustack.store.led import Records
from gpustack.store.store import Store


@attrs.frozen(kw_only=True)
class Background:
    """Services for whose work nobody waits: what they know is shown."""

    load: LoadHistory
    catalog: Catalog
    updates: UpdateCheck

    @property
    def services(self) -> Sequence[Service]:
        return (self.load, self.catalog, self.updates)

    @classmethod
    def of(
        cls,
        store: Store,
        *,
        catalog_source: str | None,
        version: str,
        feed: str | None,
        now: Callable[[], datetime],
        rng: Random,
    ) -> Background:
        """With the catalog of ``--model-catalog-file``; ``feed`` is where to hear of new versions, if at all."""
        return cls(
            load=LoadHistory(lambda: store.snapshot, now),
            catalog=Catalog(catalog_source),
            updates=UpdateCheck(version, feed, now, rng),
        )


def leading_services(
    records: Records,
    *,
    facts: FactsSource,
    leases: Leases,
    liveness: LivenessSettings,
    rng: Random,
    monotonic: Callable[[], float],
) -> Sequence[Service]:
    """What only the server that leads may run, in the order of starting. Leases begin full with each term."""
    leases.refill()
    return (
        Liveness(records, leases, liveness, monotonic),
        Scheduler(records, facts),
        Replicas(records, rng),
    )
