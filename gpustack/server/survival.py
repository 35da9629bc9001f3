"""Keeps an answer to "what if this worker were lost?" for every worker, found out bit by bit in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import AsyncValue
from gpustack.policy.placement import USUAL_GANGS, GangSettings, PlacementRequest
from gpustack.policy.survival import Rooms, WorkerLoss, loss_of
from gpustack.policy.worker_class import classes_of
from gpustack.server.decisions import has_files, request_for
from gpustack.server.facts import FactsCache
from gpustack.store.store import Store

_SHARE = 0.05
"""Of a core that finding it out takes at most: after each worker it pauses for so much longer."""


@attrs.frozen(kw_only=True)
class SurvivalReport:
    """What each worker's loss would do, by its id, as of a moment. Workers that nothing runs on are left out."""

    at: datetime
    losses: Mapping[int, WorkerLoss]

    @property
    def fragile(self) -> Mapping[int, bool]:
        """Of each model on these workers, by its id, whether the loss of one of them would stop it."""
        found: dict[int, bool] = {}
        for loss in self.losses.values():
            others = (*loss.shrinks, *loss.keeps)
            found.update({one.model_id: found.get(one.model_id, False) for one in others})
            found.update({one.model_id: True for one in loss.stops})
        return found


@attrs.define(eq=False, repr=False)
class SurvivalWatch:
    """A loop that looks at all workers again once something has changed on which the answers depend, at most every
    ``every`` seconds. One worker at a time, in a thread, and with pauses: it takes a twentieth of a core at most."""

    _store: Store
    _facts: FactsCache
    _now: Callable[[], datetime]
    _gangs: GangSettings = USUAL_GANGS
    every: float = 30.0
    found: AsyncValue[SurvivalReport | None] = attrs.field(factory=lambda: AsyncValue(None))
    """``None`` until all have been looked at once."""
    _threads: ThreadLimiter = attrs.field(factory=lambda: threads("survival", 1))
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("survival"))
    _seen: Snapshot | None = None
    """The one that was looked at last; what was worked out about it is taken over."""
    name: str = "survival"

    @property
    def report(self) -> SurvivalReport | None:
        """The newest one."""
        return self.found.value

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._store.watch({"workers", "models", "model_instances"}) as wake, self._facts.notifying(wake):
            task_status.started()
            known: object = None
            while True:
                snapshot = self._own()
                now = self._inputs(snapshot)
                if now != known or self._faults.is_due():
                    await self._look(snapshot)
                    known = now
                await trio.sleep(self.every)
                await wake.wait(self._faults.due_in())

    def _own(self) -> Snapshot:
        """The present records, with what is worked out about them apart from what the scheduler works out."""
        snapshot = attrs.evolve(self._store.snapshot)
        if self._seen is not None:
            snapshot.follow(self._seen)
        self._seen = snapshot
        return snapshot

    def _inputs(self, snapshot: Snapshot) -> object:
        """All on which the answers depend: while that is the same, so are they."""
        facts = [
            None if (result := self._facts.known(one.source)) is None else result.facts
            for one in snapshot.models.values()
        ]
        instances = [(one.id, one.state, one.deleted_at) for one in snapshot.instances.values()]
        models = [(one.id, one.version) for one in snapshot.models.values()]
        return classes_of(snapshot).token, instances, models, facts

    async def _look(self, snapshot: Snapshot) -> None:
        found: dict[int, WorkerLoss] = {}
        self._faults.keep_only({*snapshot.workers, *(("model", key) for key in snapshot.models)})
        rooms = Rooms(snapshot, self._ask)
        for worker_id in sorted(key for key, held in snapshot.claims.by_worker.items() if held):
            if worker_id not in snapshot.workers:
                continue
            began = trio.current_time()
            with self._faults.row(worker_id):
                found[worker_id] = await self._threads.run(
                    loss_of, worker_id, snapshot, self._ask, rooms, abandon=True
                )
            await trio.sleep((trio.current_time() - began) * (1 / _SHARE - 1))
        for model in snapshot.models.values():
            with self._faults.row(("model", model.id)):
                if has_files(model) and self._facts.known(model.source) is None:
                    self._facts.ask(model)  # its header is read, which wakes this loop
        self.found.set(SurvivalReport(at=self._now(), losses=found))

    def _ask(
        self, model: Model, instance: ModelInstance, snapshot: Snapshot
    ) -> PlacementRequest | str | None:
        result = self._facts.known(model.source)
        if has_files(model) and (result is None or result.facts is None):
            return None
        return request_for(model, instance, result, snapshot, self._gangs)

    def __repr__(self) -> str:
        looked = "not looked yet" if self.report is None else f"{len(self.report.losses)} workers looked at"
        return f"<SurvivalWatch: {looked}>"
