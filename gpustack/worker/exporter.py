"""What a worker's exporter looks at: this machine as last measured, and what its engines say now."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import PurePath

import attrs
import trio

from gpustack.domain.assignment import AssignmentState
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.domain.worker import WorkerStatus
from gpustack.engines.registry import engine_for
from gpustack.errors import GpustackError, Invalid
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reply import Fields
from gpustack.metrics.mapping import MetricMap, default_map, read_map
from gpustack.metrics.process_sample import LoopLag, observe_process
from gpustack.metrics.scrape import ScrapeResult, ScrapeTarget, scrape
from gpustack.metrics.worker_sample import WorkerLabels, WorkerObservation, allocated
from gpustack.nursery.limiter import threads
from gpustack.worker.assignment_watcher import AssignmentWatcher
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.membership import Member, Membership
from gpustack.worker.ports import PortLeases
from gpustack.worker.supervisor import InstanceSupervisor

log = logging.getLogger(__name__)

_FOLLOW_EVERY = 15.0
"""Seconds for which the server's mapping is believed; nobody asks for it while nobody scrapes."""
_FOLLOW_WITHIN = 3.0
_threads = threads("address lookups", 1)


@attrs.define(eq=False, repr=False)
class WorkerCollector:
    """Takes the state when called. The mapping is the server's of at most 15 s ago, or its last while it is away."""

    _membership: Membership
    _assignments: AssignmentWatcher
    _runners: InstanceSupervisor
    _ports: PortLeases
    _keys: EngineKeys
    _pool: ConnectionPool
    _lag: LoopLag
    _status: Callable[[], WorkerStatus]
    _address: Callable[[], str]
    """May block: it is called in a thread."""
    _member: Member | None = None
    _mapping: MetricMap = attrs.field(factory=default_map)
    _followed_at: float = -math.inf

    async def __call__(self) -> WorkerObservation:
        """The state now; takes a few seconds when engines hang. Cancellable."""
        self._member = self._membership.member or self._member
        picture, status = self._assignments.latest.value.picture, self._status()
        if self._member is None:
            return WorkerObservation(node=None, mapping=self._mapping, process=observe_process(self._lag))
        node = WorkerLabels(
            worker_id=self._member.worker_id,
            worker_name=self._member.name,
            ip=await _threads.run(self._address),
        )
        scraped: list[ScrapeResult] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            scraped += await scrape(self._pool, self._targets(node, picture, status))
        return WorkerObservation(
            node=node,
            status=status,
            allocated=allocated(picture.instances.values(), node.worker_id),
            scraped=scraped,
            mapping=self._mapping,
            process=observe_process(self._lag),
        )

    def _targets(
        self, node: WorkerLabels, picture: AssignmentState, status: WorkerStatus
    ) -> list[ScrapeTarget]:
        """Engines that serve. The port is the one that the instance holds here: a record may be older."""
        ports = self._ports.holders
        found = []
        for instance_id, name in self._runners.ready_ports.items():
            instance, port = picture.instances.get(instance_id), ports.get(name)
            if instance is not None and port is not None:
                model = picture.models.get(instance.model_id)
                found.append(_target(node, instance, model, status, port, self._keys.fields(port)))
        return found

    async def _follow(self) -> None:
        now = trio.current_time()
        if self._membership.member is None or now - self._followed_at < _FOLLOW_EVERY:
            return
        self._followed_at = now
        try:
            with trio.fail_after(_FOLLOW_WITHIN):
                self._mapping = read_map(await self._membership.client.metrics_config())
        except (GpustackError, trio.TooSlowError) as error:
            log.info("The mapping of metrics stays as it was: reason=%s", error or "no answer in time")

    def __repr__(self) -> str:
        return f"<WorkerLook: {len(self._runners.ready_ports)} engines>"


def _target(
    node: WorkerLabels,
    instance: ModelInstance,
    model: Model | None,
    status: WorkerStatus,
    port: int,
    fields: Fields,
) -> ScrapeTarget:
    runtime, version = _runtime(instance, model, status)
    return ScrapeTarget(
        worker_id=node.worker_id,
        worker_name=node.worker_name,
        model_id=instance.model_id,
        model_name=instance.model_name,
        instance_id=instance.id,
        instance_name=instance.name,
        runtime=runtime,
        version=version,
        port=port,
        fields=fields,
    )


def _runtime(instance: ModelInstance, model: Model | None, status: WorkerStatus) -> tuple[str, str | None]:
    """The engine's name on the wire, and its version: the one the deployment pins, else the one installed."""
    if model is None:
        return "unknown", None
    suffix = PurePath(instance.resolved_path or "").suffix.lower()
    facts = ModelFacts(format=FileFormat.GGUF if suffix == ".gguf" else FileFormat.UNKNOWN)
    try:
        engine = engine_for(model, facts)
    except Invalid:
        return model.backend or "unknown", model.backend_version
    build = next((build for build in status.engines if build.engine == engine.name), None)
    return engine.wire_name, model.backend_version or (build.version if build else None)
