"""Places pending instances, and says of each that cannot be placed what is short."""

from __future__ import annotations

import logging

import attrs
import trio

from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.engines.registry import by_name, engine_for
from gpustack.errors import Invalid
from gpustack.policy.schedule import Ask, Unschedulable, place
from gpustack.server.facts import FactsSource, Finding
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_WAITING = (InstanceState.PENDING, InstanceState.ANALYZING)
_LOOK_AGAIN = 30.0
"""Seconds after which facts that could not be read are asked for again; everything else comes by a wake."""


@attrs.frozen
class Scheduler:
    """A loop woken by changes of workers, instances, models and facts; each pass looks at all that wait."""

    _store: Store
    _facts: FactsSource
    name: str = "scheduler"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        tables = {"workers", "model_instances", "models"}
        with self._store.watch(tables) as wake:
            self._facts.on_news = wake.wake
            task_status.started()
            while True:
                for instance in _waiting(self._store.snapshot):
                    await self._look_at(instance)
                await wake.wait(_LOOK_AGAIN)

    async def _look_at(self, instance: ModelInstance) -> None:
        model = self._store.snapshot.get(Model, instance.model_id)
        if model is None:
            return
        finding = self._facts.ask(model) if _has_files(model) else None
        if finding is None and _needs_facts(model):
            await self._note(instance.id, InstanceState.ANALYZING, "Reading the header of the model file")
            return
        await self._fill_category(model, finding)
        seen = self._store.snapshot
        decision = decide(model, instance, finding, seen)
        if isinstance(decision, Placement):
            await self._store.write(lambda tx: self._claim(tx, instance.id, finding, seen.revision, decision))
        else:
            await self._note(instance.id, InstanceState.PENDING, decision)

    async def _fill_category(self, model: Model, finding: Finding | None) -> None:
        """What the header says a model answers holds until a user says otherwise; engines are started by it."""
        category = None if finding is None or finding.facts is None else finding.facts.category
        if category is None or model.categories:
            return

        def work(tx: Tx) -> None:
            now = tx.get(Model, model.id)
            if now is not None and not now.categories:
                tx.change(Model, model.id, categories=(category.value,))

        await self._store.write(work)

    def _claim(
        self, tx: Tx, instance_id: int, finding: Finding | None, seen: int, decision: Placement
    ) -> None:
        """Take the place if it still fits: what was decided on an older state is decided again on this one."""
        instance = tx.get(ModelInstance, instance_id)
        if instance is None or instance.state not in _WAITING or instance.deleted_at is not None:
            return
        model = tx.get(Model, instance.model_id)
        if model is None:
            return
        again = decision if tx.snapshot.revision == seen else decide(model, instance, finding, tx.snapshot)
        if isinstance(again, str):
            _settle(tx, instance, InstanceState.PENDING, again)
            return
        worker = tx.snapshot.workers[again.worker_id]
        log.info(
            "Placed an instance: instance=%s worker=%s gpus=%s",
            instance.name,
            worker.name,
            list(again.gpu_indexes),
        )
        tx.move(instance, InstanceState.SCHEDULED, by=Party.SCHEDULER, message=again.note, placement=again)

    async def _note(self, instance_id: int, state: InstanceState, message: str) -> None:
        known = self._store.snapshot.get(ModelInstance, instance_id)
        if known is None or (known.state, known.state_message) == (state, message):
            return

        def work(tx: Tx) -> None:
            instance = tx.get(ModelInstance, instance_id)
            if instance is not None and instance.state in _WAITING:
                _settle(tx, instance, state, message)

        await self._store.write(work)
        if state is InstanceState.PENDING:
            log.info("An instance waits: instance=%s reason=%s", known.name, message)


def decide(
    model: Model, instance: ModelInstance, finding: Finding | None, snapshot: Snapshot
) -> Placement | str:
    """A place for the instance, or the sentence why there is none now."""
    if finding is not None and finding.fault is not None and _needs_facts(model):
        return finding.fault
    facts = None if finding is None else finding.facts
    try:
        engine = engine_for(model, facts)
    except Invalid as fault:
        return str(fault)
    decision = place(Ask(model=model, instance=instance, facts=facts, engine_name=engine.name), snapshot)
    return decision.sentence if isinstance(decision, Unschedulable) else decision


def _needs_facts(model: Model) -> bool:
    """The custom engine runs what it is told; what it needs is read if it can be, and waited for by nobody."""
    return model.backend != "custom"


def _has_files(model: Model) -> bool:
    """A command that does not ask for the model's path has no header to read."""
    engine = by_name(model.backend) if model.backend else None
    return engine is None or engine.fetches(model)


def _waiting(snapshot: Snapshot) -> list[ModelInstance]:
    """Oldest first, so that nobody is overtaken for ever."""
    found = [i for i in snapshot.instances.values() if i.state in _WAITING and i.deleted_at is None]
    return sorted(found, key=lambda i: i.id)


def _settle(tx: Tx, instance: ModelInstance, state: InstanceState, message: str) -> None:
    tx.move(instance, state, by=Party.SCHEDULER, message=message)
