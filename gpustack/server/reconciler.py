"""Keeps as many instances of each model as it asks for, of its present generation."""

from __future__ import annotations

import logging
import math
import random
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial

import attrs
import trio

from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import SERVING
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import Taint
from gpustack.errors import Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.eviction import evicted_at, is_evicted, on_drained
from gpustack.policy.reconcile import ReplicaPlan, replica_plan
from gpustack.server.lifecycle import end_instance
from gpustack.server.row_write import write_rows
from gpustack.store.fenced_store import RecordStore
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_LETTERS = string.ascii_lowercase + string.digits
_TRY_AGAIN = 1.0

_Versions = tuple[int, tuple[tuple[int, int, bool], ...]]


@attrs.frozen(eq=False)
class _ReconcileInput:
    """The tables that a pass depends on, and which workers are drained or tainted."""

    models: Mapping[int, Model]
    instances: Mapping[int, ModelInstance]
    emptied: frozenset[tuple[int, bool, tuple[Taint, ...]]]

    @classmethod
    def of(cls, snapshot: Snapshot) -> _ReconcileInput:
        emptied = frozenset(
            (worker.id, worker.draining, worker.taints)
            for worker in snapshot.workers.values()
            if worker.draining or worker.taints
        )
        return cls(snapshot.models, snapshot.instances, emptied)

    def is_of(self, snapshot: Snapshot) -> bool:
        """Whether none of it has changed in the newer snapshot."""
        now = self.of(snapshot)
        same = now.models is self.models and now.instances is self.instances
        return same and now.emptied == self.emptied


@attrs.define
class _ReconcileResult:
    created: list[ModelInstance] = attrs.field(factory=list)
    ended: list[ModelInstance] = attrs.field(factory=list)


@attrs.frozen
class ReplicaReconciler:
    """A loop woken by commits to models, instances and workers; each pass looks at the models that changed since."""

    _store: RecordStore
    _rng: random.Random
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("replicas", passing=(Unavailable,)))
    _now: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC))
    """The clock of the taints' ``time_added``."""
    name: str = "replicas"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        settled: dict[int, _Versions] = {}
        with self._store.watch({"models", "model_instances", "workers"}) as wake:
            task_status.started()
            while True:
                inputs = _ReconcileInput.of(self._store.snapshot)
                try:
                    if await self._look_at_all(settled):
                        continue
                except Unavailable as error:
                    log.warning("Replicas wait for the database: reason=%s", error)
                    await wake.wait(_TRY_AGAIN)
                    continue
                until = trio.current_time() + min(self._faults.due_in(), self._seconds_to_eviction())
                while await wake.wait(until - trio.current_time()) and inputs.is_of(self._store.snapshot):
                    pass  # workers report their load all the time: nothing of that matters here

    def _seconds_to_eviction(self) -> float:
        """Until the next instance ends by a taint that is tolerated for a time; infinite when there is none."""
        snapshot, now = self._store.snapshot, self._now()
        if not any(worker.taints for worker in snapshot.workers.values()):
            return math.inf
        pairs = ((snapshot.models.get(one.model_id), one) for one in snapshot.instances.values())
        times = (evicted_at(model, one, snapshot) for model, one in pairs if model is not None)
        return min(
            ((at - now).total_seconds() for at in times if at is not None and at > now), default=math.inf
        )

    async def _look_at_all(self, settled: dict[int, _Versions]) -> bool:
        """Create and end instances of every model that is due; tells whether anything was written.

        A model that meets a fault is logged, for it has no message of its own, and tried again later.
        """
        snapshot, now = self._store.snapshot, self._now()
        orphans = _orphans(snapshot)
        plans, ends = [("plan", key) for key in snapshot.models], [("orphan", one.id) for one in orphans]
        self._faults.keep_only({*snapshot.models, *plans, *ends})
        rows: dict[object, Callable[[Tx], _ReconcileResult]] = {
            key: partial(self._reconcile, key, now) for key in self._due(snapshot, settled, now)
        }
        rows.update({("orphan", one.id): partial(_end_orphan, one.id) for one in orphans})
        done = await write_rows(self._store, rows, self._faults)
        for one in done.values():
            _log_result(one)
        return bool(done)

    def _due(self, snapshot: Snapshot, settled: dict[int, _Versions], now: datetime) -> list[int]:
        """Models of which something is to be done. What that is follows from the model, its instances and which workers
        are drained: a model that was ``settled`` by the same versions of these is skipped."""
        due = []
        for gone in settled.keys() - snapshot.models.keys():
            del settled[gone]
        emptied = {worker.id for worker in snapshot.workers.values() if worker.draining or worker.taints}
        for model in snapshot.models.values():
            if self._faults.holds(model.id) or self._faults.holds(("plan", model.id)):
                continue
            with self._faults.row(("plan", model.id)):
                versions = _versions_of(model, snapshot, emptied, now)
                if settled.get(model.id) == versions or _is_settled(model, snapshot, now):
                    settled[model.id] = versions
                    self._faults.forget(model.id)  # else the loop would turn for it without end
                else:
                    due.append(model.id)
        return due

    def _reconcile(self, model_id: int, now: datetime, tx: Tx) -> _ReconcileResult:
        snapshot = tx.snapshot
        model = snapshot.models.get(model_id)
        if model is None:
            return _ReconcileResult()
        instances = snapshot.instances_of(model.id)
        plan = replica_plan(model, instances, snapshot, now)
        ended = [instance for instance in instances if instance.id in plan.end]
        for instance in ended:
            end_instance(tx, instance)
        displaced = _displaced(instances)
        created = [self._create(tx, model, next(displaced, "")) for _ in range(plan.create)]
        tx.change(Model, model.id, ready_replicas=_ready(instances, plan))
        return _ReconcileResult(created, ended)

    def _create(self, tx: Tx, model: Model, displaced_by: str) -> ModelInstance:
        return tx.insert(
            ModelInstance(
                name=self._free_name(tx, model.name),
                model_id=model.id,
                model_name=model.name,
                source=model.source,
                lora_adapters=tuple(adapter.name for adapter in model.lora_adapters),
                generation=model.generation,
                displaced_by=displaced_by,
                state_since=tx.now,
            )
        )

    def _free_name(self, tx: Tx, model_name: str) -> str:
        while True:
            name = f"{model_name}-{''.join(self._rng.choices(_LETTERS, k=5))}"
            if tx.find(ModelInstance, name=name) is None:
                return name


def _displaced(instances: Iterable[ModelInstance]) -> Iterator[str]:
    """For whom those made room that are not replaced yet."""
    ended = [one.displaced_by for one in instances if one.displaced_by and one.deleted_at is not None]
    replaced = sum(bool(one.displaced_by) and one.deleted_at is None for one in instances)
    return iter(ended[replaced:])


def _versions_of(model: Model, snapshot: Snapshot, emptied: Collection[int], now: datetime) -> _Versions:
    """``emptied`` are the workers that are drained or tainted: mostly there is none."""

    def leaves(one: ModelInstance) -> bool:
        if not emptied or workers_of(one).isdisjoint(emptied):
            return False
        return on_drained(one, snapshot) or is_evicted(model, one, snapshot, now)

    return model.version, tuple((one.id, one.version, leaves(one)) for one in snapshot.instances_of(model.id))


def _is_settled(model: Model, snapshot: Snapshot, now: datetime) -> bool:
    instances = snapshot.instances_of(model.id)
    plan = replica_plan(model, instances, snapshot, now)
    return plan == ReplicaPlan() and _ready(instances, plan) == model.ready_replicas


def _end_orphan(instance_id: int, tx: Tx) -> _ReconcileResult:
    orphan = tx.get(ModelInstance, instance_id)
    if orphan is None or orphan.deleted_at is not None or tx.get(Model, orphan.model_id) is not None:
        return _ReconcileResult()
    end_instance(tx, orphan)
    return _ReconcileResult(ended=[orphan])


def _orphans(snapshot: Snapshot) -> list[ModelInstance]:
    there = snapshot.models.keys() | snapshot.unread_of(Model)
    return [i for i in snapshot.instances.values() if i.model_id not in there and i.deleted_at is None]


def _ready(instances: list[ModelInstance], plan: ReplicaPlan) -> int:
    return sum(i.state in SERVING and i.deleted_at is None and i.id not in plan.end for i in instances)


def _log_result(done: _ReconcileResult) -> None:
    for instance in done.created:
        log.info("Created an instance: model=%s instance=%s", instance.model_name, instance.name)
    for instance in done.ended:
        log.info("Ending an instance: model=%s instance=%s", instance.model_name, instance.name)
