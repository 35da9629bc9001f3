"""What the worker's metrics page shows: this machine as last measured, and the engines' metrics of now."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import attrs
import trio

from gpustack.domain.assignment import AssignmentState
from gpustack.domain.facts import ModelFacts, format_at
from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.domain.worker import WorkerStatus, choose_build
from gpustack.engines.registry import engine_for
from gpustack.errors import GpustackError, Invalid
from gpustack.http1.pool import ConnectionPool
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

_MAPPING_VALID_FOR = 15.0
"""Seconds for which the server's mapping is used before it is asked for again, while somebody scrapes."""
_MAPPING_WITHIN = 3.0
_threads = threads("address lookups", 1)


@attrs.define(eq=False, repr=False)
class WorkerCollector:
    """Collects the metrics when called, as a Prometheus collector.

    The mapping of names is the server's, at most 15 s old; while the server is away, the last one is used.
    """

    _membership: Membership
    _assignments: AssignmentWatcher
    _supervisor: InstanceSupervisor
    _ports: PortLeases
    _keys: EngineKeys
    _pool: ConnectionPool
    _lag: LoopLag
    _status: Callable[[], WorkerStatus]
    _address: Callable[[], str]
    """May block: it is called in a thread."""
    _member: Member | None = None
    _mapping: MetricMap = attrs.field(factory=default_map)
    _mapping_asked_at: float = -math.inf

    async def __call__(self) -> WorkerObservation:
        """The metrics now; takes a few seconds where engines hang. Cancellable."""
        self._member = self._membership.member or self._member
        assigned, status = self._assignments.latest.value.state, self._status()
        if self._member is None:
            return WorkerObservation(node=None, mapping=self._mapping, process=observe_process(self._lag))
        node = WorkerLabels(
            worker_id=self._member.worker_id,
            worker_name=self._member.name,
            ip=await _threads.run(self._address),
        )
        scraped: list[ScrapeResult] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._update_mapping)
            scraped += await scrape(self._pool, self._targets(node, assigned, status))
        return WorkerObservation(
            node=node,
            status=status,
            allocated=allocated(assigned.instances.values(), node.worker_id),
            scraped=scraped,
            mapping=self._mapping,
            process=observe_process(self._lag),
        )

    def _targets(
        self, node: WorkerLabels, assigned: AssignmentState, status: WorkerStatus
    ) -> list[ScrapeTarget]:
        """The engines that answer. Ports are those that are leased here: a record may be older."""
        ports = self._ports.holders
        found = []
        for instance_id, name in self._supervisor.ready_instances.items():
            instance, port = assigned.instances.get(instance_id), ports.get(name)
            if instance is not None and port is not None:
                model = assigned.models.get(instance.model_id)
                runtime, version = _runtime(instance, model, status)
                spec = None if model is None else model.backend_spec
                found.append(
                    ScrapeTarget(
                        worker_id=node.worker_id,
                        worker_name=node.worker_name,
                        model_id=instance.model_id,
                        model_name=instance.model_name,
                        instance_id=instance.id,
                        instance_name=instance.name,
                        runtime=runtime,
                        version=version,
                        described=None if spec is None else spec.metrics,
                        port=port,
                        fields=self._keys.fields(port),
                    )
                )
        return found

    async def _update_mapping(self) -> None:
        now = trio.current_time()
        if self._membership.member is None or now - self._mapping_asked_at < _MAPPING_VALID_FOR:
            return
        self._mapping_asked_at = now
        try:
            with trio.fail_after(_MAPPING_WITHIN):
                self._mapping = read_map(await self._membership.client.metrics_config())
        except (GpustackError, trio.TooSlowError) as error:
            log.info("The mapping of metrics stays as it was: reason=%s", error or "no answer in time")

    def __repr__(self) -> str:
        return f"<WorkerCollector: {len(self._supervisor.ready_instances)} engines>"


def _runtime(instance: ModelInstance, model: Model | None, status: WorkerStatus) -> tuple[str, str | None]:
    """The engine's name in the API, and its version: the one that the deployment pins, else the one installed."""
    if model is None:
        return "unknown", None
    if model.backend_spec is not None:
        return model.backend_spec.backend, model.backend_spec.version
    facts = ModelFacts(format=format_at(instance.resolved_path))
    try:
        engine = engine_for(model, facts)
    except Invalid:
        return model.backend or "unknown", model.backend_version
    build = choose_build(status.engines, engine.name)
    return engine.wire_name, model.backend_version or (build.version if build else None)
