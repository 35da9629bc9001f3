"""Keeps as many instances of each model as are wanted, of the generation that is wanted."""

from __future__ import annotations

import logging
import random
import string

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import SERVING
from gpustack.domain.model import Model
from gpustack.policy.reconcile import replica_plan
from gpustack.server.deploy import end_instance
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_LETTERS = string.ascii_lowercase + string.digits


@attrs.frozen
class Replicas:
    """A loop woken by changes of models and instances; each pass looks at all models afresh."""

    _store: Store
    _rng: random.Random
    name: str = "replicas"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._store.watch({"models", "model_instances"}) as wake:
            task_status.started()
            while True:
                if self._needs_work():
                    await self._store.write(self._reconcile)
                await wake.wait()

    def _needs_work(self) -> bool:
        snapshot = self._store.snapshot
        for model in snapshot.models.values():
            instances = snapshot.instances_of(model.id)
            plan = replica_plan(model, instances, snapshot)
            if plan.create or plan.end or _ready(instances) != model.ready_replicas:
                return True
        return any(
            i.model_id not in snapshot.models and i.deleted_at is None for i in snapshot.instances.values()
        )

    def _reconcile(self, tx: Tx) -> None:
        snapshot = tx.snapshot
        for model in snapshot.models.values():
            instances = snapshot.instances_of(model.id)
            plan = replica_plan(model, instances, snapshot)
            for instance in instances:
                if instance.id in plan.end:
                    log.info("Ending an instance: model=%s instance=%s", model.name, instance.name)
                    end_instance(tx, instance)
            for _ in range(plan.create):
                created = tx.insert(
                    ModelInstance(
                        name=self._free_name(tx, model.name),
                        model_id=model.id,
                        model_name=model.name,
                        source=model.source,
                        generation=model.generation,
                        state_since=tx.now,
                    )
                )
                log.info("Created an instance: model=%s instance=%s", model.name, created.name)
            ready = _ready([i for i in instances if i.id not in plan.end])
            if ready != model.ready_replicas:
                tx.change(Model, model.id, ready_replicas=ready)
        for orphan in list(tx.all(ModelInstance).values()):
            if tx.get(Model, orphan.model_id) is None:
                end_instance(tx, orphan)

    def _free_name(self, tx: Tx, model_name: str) -> str:
        while True:
            name = f"{model_name}-{''.join(self._rng.choices(_LETTERS, k=5))}"
            if tx.find(ModelInstance, name=name) is None:
                return name


def _ready(instances: list[ModelInstance]) -> int:
    return sum(i.state in SERVING and i.deleted_at is None for i in instances)
