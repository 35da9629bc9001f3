"""Keeps as many instances of each model as are wanted, of the generation that is wanted."""

from __future__ import annotations

import logging
import random
import string
from collections.abc import Callable, Mapping
from functools import partial

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import SERVING
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.reconcile import ReplicaPlan, on_drained, replica_plan
from gpustack.server.lifecycle import end_instance
from gpustack.store.fenced_store import RecordStore
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_LETTERS = string.ascii_lowercase + string.digits
_TRY_AGAIN = 1.0

_Seen = tuple[int, tuple[tuple[int, int, bool], ...]]


@attrs.frozen(eq=False)
class _ReconcileInput:
    """What a pass looks at."""

    models: Mapping[int, Model]
    instances: Mapping[int, ModelInstance]
    drained: frozenset[int]

    @classmethod
    def of(cls, snapshot: Snapshot) -> _ReconcileInput:
        drained = frozenset(worker.id for worker in snapshot.workers.values() if worker.draining)
        return cls(snapshot.models, snapshot.instances, drained)

    def is_of(self, snapshot: Snapshot) -> bool:
        """Whether nobody has written to the tables since, nor drained another worker."""
        now = self.of(snapshot)
        same = now.models is self.models and now.instances is self.instances
        return same and now.drained == self.drained


@attrs.define
class _ReconcileResult:
    created: list[ModelInstance] = attrs.field(factory=list)
    ended: list[ModelInstance] = attrs.field(factory=list)


_Row = Callable[[Tx, _ReconcileResult], None]
"""What is to be done for one model or instance, in a transaction that may do it for many."""


@attrs.frozen
class ReplicaReconciler:
    """A loop woken by changes of models and instances; each pass looks at every model that changed since the last."""

    _store: RecordStore
    _rng: random.Random
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("replicas", passing=(Unavailable,)))
    name: str = "replicas"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        settled: dict[int, _Seen] = {}
        with self._store.watch({"models", "model_instances", "workers"}) as wake:
            task_status.started()
            while True:
                ground = _ReconcileInput.of(self._store.snapshot)
                try:
                    if await self._look_at_all(settled):
                        continue
                except Unavailable as error:
                    log.warning("Replicas wait for the database: reason=%s", error)
                    await wake.wait(_TRY_AGAIN)
                    continue
                while await wake.wait(self._faults.due_in()) and ground.is_of(self._store.snapshot):
                    pass  # workers tell of their load all the time, and nothing of that matters here

    async def _look_at_all(self, settled: dict[int, _Seen]) -> bool:
        """Bring every model to what is wanted of it; tells whether anything was done.

        A model of which one cannot is in the log, for it has no message of its own; the others are served.
        """
        snapshot = self._store.snapshot
        orphans = _orphans(snapshot)
        plans, ends = [("plan", key) for key in snapshot.models], [("orphan", one.id) for one in orphans]
        self._faults.keep_only({*snapshot.models, *plans, *ends})
        rows: dict[object, _Row] = {
            key: partial(self._reconcile, key) for key in self._due(snapshot, settled)
        }
        rows.update({("orphan", one.id): partial(_end_orphan, one.id) for one in orphans})
        done = await self._faults.together(rows, self._write)
        for _, one in done:
            _tell(one)
        return bool(done)

    async def _write(self, rows: Mapping[object, _Row]) -> _ReconcileResult:
        def work(tx: Tx) -> _ReconcileResult:
            done = _ReconcileResult()
            for row in rows.values():
                row(tx, done)
            return done

        return await self._store.write(work)

    def _due(self, snapshot: Snapshot, settled: dict[int, _Seen]) -> list[int]:
        """Models of which something is to be done. Those that were seen to be settled, and are as they were, are not
        looked at again: what is to be done follows from the model, its instances and which workers are drained."""
        due = []
        for gone in settled.keys() - snapshot.models.keys():
            del settled[gone]
        for model in snapshot.models.values():
            if self._faults.holds(model.id) or self._faults.holds(("plan", model.id)):
                continue
            with self._faults.row(("plan", model.id)):
                seen = _seen(model, snapshot)
                if settled.get(model.id) == seen or _is_settled(model, snapshot):
                    settled[model.id] = seen
                    self._faults.forget(model.id)  # else the loop would turn for it without end
                else:
                    due.append(model.id)
        return due

    def _reconcile(self, model_id: int, tx: Tx, done: _ReconcileResult) -> None:
        snapshot = tx.snapshot
        model = snapshot.models.get(model_id)
        if model is None:
            return
        instances = snapshot.instances_of(model.id)
        plan = replica_plan(model, instances, snapshot)
        for instance in instances:
            if instance.id in plan.end:
                end_instance(tx, instance)
                done.ended.append(instance)
        done.created += [self._create(tx, model) for _ in range(plan.create)]
        tx.change(Model, model.id, ready_replicas=_ready(instances, plan))

    def _create(self, tx: Tx, model: Model) -> ModelInstance:
        return tx.insert(
            ModelInstance(
                name=self._free_name(tx, model.name),
                model_id=model.id,
                model_name=model.name,
                source=model.source,
                generation=model.generation,
                state_since=tx.now,
            )
        )

    def _free_name(self, tx: Tx, model_name: str) -> str:
        while True:
            name = f"{model_name}-{''.join(self._rng.choices(_LETTERS, k=5))}"
            if tx.find(ModelInstance, name=name) is None:
                return name


def _seen(model: Model, snapshot: Snapshot) -> _Seen:
    instances = snapshot.instances_of(model.id)
    return model.version, tuple((one.id, one.version, on_drained(one, snapshot)) for one in instances)


def _is_settled(model: Model, snapshot: Snapshot) -> bool:
    instances = snapshot.instances_of(model.id)
    plan = replica_plan(model, instances, snapshot)
    return plan == ReplicaPlan() and _ready(instances, plan) == model.ready_replicas


def _end_orphan(instance_id: int, tx: Tx, done: _ReconcileResult) -> None:
    orphan = tx.get(ModelInstance, instance_id)
    if orphan is not None and orphan.deleted_at is None and tx.get(Model, orphan.model_id) is None:
        end_instance(tx, orphan)
        done.ended.append(orphan)


def _orphans(snapshot: Snapshot) -> list[ModelInstance]:
    there = snapshot.models.keys() | snapshot.unread_of(Model)
    return [i for i in snapshot.instances.values() if i.model_id not in there and i.deleted_at is None]


def _ready(instances: list[ModelInstance], plan: ReplicaPlan) -> int:
    return sum(i.state in SERVING and i.deleted_at is None and i.id not in plan.end for i in instances)


def _tell(done: _ReconcileResult) -> None:
    for instance in done.created:
        log.info("Created an instance: model=%s instance=%s", instance.model_name, instance.name)
    for instance in done.ended:
        log.info("Ending an instance: model=%s instance=%s", instance.model_name, instance.name)
