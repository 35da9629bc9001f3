"""Keeps as many instances of each model as are wanted, of the generation that is wanted."""

from __future__ import annotations

import logging
import random
import string
from collections.abc import Mapping
from functools import partial

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import SERVING
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import Unavailable
from gpustack.policy.reconcile import Plan, replica_plan
from gpustack.server.deploy import end_instance
from gpustack.store.led import Records
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_LETTERS = string.ascii_lowercase + string.digits
_TRY_AGAIN = 1.0

_Seen = tuple[int, tuple[tuple[int, int], ...]]


@attrs.define
class _Done:
    created: list[ModelInstance] = attrs.field(factory=list)
    ended: list[ModelInstance] = attrs.field(factory=list)


@attrs.frozen
class Replicas:
    """A loop woken by changes of models and instances; each pass looks at every model that changed since the last."""

    _store: Records
    _rng: random.Random
    name: str = "replicas"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        settled: dict[int, _Seen] = {}
        with self._store.watch({"models", "model_instances"}) as wake:
            task_status.started()
            while True:
                due = _due(self._store.snapshot, settled)
                try:
                    if due or _orphans(self._store.snapshot):
                        _tell(await self._store.write(partial(self._reconcile, due=due)))
                        continue
                except Unavailable as error:
                    log.warning("Replicas wait for the database: reason=%s", error)
                    await wake.wait(_TRY_AGAIN)
                    continue
                await wake.wait()

    def _reconcile(self, tx: Tx, due: list[int]) -> _Done:
        done = _Done()
        snapshot = tx.snapshot
        for model in (snapshot.models[key] for key in due if key in snapshot.models):
            instances = snapshot.instances_of(model.id)
            plan = replica_plan(model, instances, snapshot)
            for instance in instances:
                if instance.id in plan.end:
                    end_instance(tx, instance)
                    done.ended.append(instance)
            done.created += [self._create(tx, model) for _ in range(plan.create)]
            tx.change(Model, model.id, ready_replicas=_ready(instances, plan))
        for orphan in _orphans(snapshot):
            end_instance(tx, orphan)
            done.ended.append(orphan)
        return done

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


def _due(snapshot: Snapshot, settled: dict[int, _Seen]) -> list[int]:
    """Models of which something is to be done. Those that were seen to be settled, and are as they were, are not
    looked at again: what is to be done follows from the model and its instances alone."""
    due = []
    for gone in settled.keys() - snapshot.models.keys():
        del settled[gone]
    for model in snapshot.models.values():
        instances = snapshot.instances_of(model.id)
        seen = (model.version, tuple((instance.id, instance.version) for instance in instances))
        if settled.get(model.id) == seen:
            continue
        plan = replica_plan(model, instances, snapshot)
        if plan == Plan() and _ready(instances, plan) == model.ready_replicas:
            settled[model.id] = seen
        else:
            due.append(model.id)
    return due


def _orphans(snapshot: Snapshot) -> list[ModelInstance]:
    models: Mapping[int, Model] = snapshot.models
    return [i for i in snapshot.instances.values() if i.model_id not in models and i.deleted_at is None]


def _ready(instances: list[ModelInstance], plan: Plan) -> int:
    return sum(i.state in SERVING and i.deleted_at is None and i.id not in plan.end for i in instances)


def _tell(done: _Done) -> None:
    for instance in done.created:
        log.info("Created an instance: model=%s instance=%s", instance.model_name, instance.name)
    for instance in done.ended:
        log.info("Ending an instance: model=%s instance=%s", instance.model_name, instance.name)
