"""Finds places for pending instances, or says in their messages why there is none."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import ANALYZE, DEFER, PLACE, REJECT, InstanceState, Move
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import Unavailable
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.nursery.quarantine import Quarantine, RowFault
from gpustack.policy.placement import USUAL_GANGS, GangSettings
from gpustack.policy.preemption import Preemption, above
from gpustack.server.decisions import (
    AT_ONCE,
    WAITING,
    Decided,
    Ready,
    category_to_fill,
    decide_again,
    decide_all,
    has_files,
    is_waiting,
    waiting_in,
    with_addresses,
)
from gpustack.server.facts import FactsCache, FactsResult
from gpustack.server.lifecycle import make_move
from gpustack.server.preemption import keep_places
from gpustack.store.fenced_store import RecordStore
from gpustack.store.transaction import Tx
from gpustack.text import storable

log = logging.getLogger(__name__)

_READING = "Reading the header of the model file"
_TRY_AGAIN = 1.0
_SETTLED: Mapping[str, Any] = {"reserved": None, "displaced_by": ""}
"""Of one that has a place."""


@attrs.define(eq=False)
class Scheduler:
    """A loop woken by commits to workers, instances and models, and by facts; each pass looks at all that wait.

    An instance is decided on again only when something has changed on which its place depends. One that meets a fault
    that nobody foresaw says so in its message and is tried again later; the others are placed.
    """

    _store: RecordStore
    _facts: FactsCache
    _gangs: GangSettings = USUAL_GANGS
    _thinking: ThreadLimiter = attrs.field(factory=lambda: threads("placement", 1))
    """Deciding in a large cluster takes long, so it is done in a thread."""
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("scheduler", passing=(Unavailable,)))
    _note_faults: Quarantine = attrs.field(
        factory=lambda: Quarantine("scheduler's word", passing=(Unavailable,))
    )
    _worker_faults: Quarantine = attrs.field(
        factory=lambda: Quarantine("scheduler, a worker", passing=(Unavailable,))
    )
    """Workers that met a fault in a decision: they are passed over, and tried again later."""
    _seen: Snapshot | None = None
    """The snapshot of the last pass: what was worked out about it is taken over."""
    name: str = "scheduler"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        considered: dict[int, object] = {}
        tables = {"workers", "model_instances", "models"}
        with self._store.watch(tables) as wake, self._facts.notifying(wake):
            task_status.started()
            while True:
                try:
                    faulty = await self._look_at_all(considered)
                    # Facts that could not be read, and rows that met a fault, are tried again after a time; everything
                    # else is told by a wake.
                    again = self._facts.fresh_for if faulty else math.inf
                    await wake.wait(min(again, self._faults.due_in()))
                except Unavailable as error:
                    log.warning("Placement waits for the database: reason=%s", error)
                    await wake.wait(_TRY_AGAIN)

    async def _look_at_all(self, considered: dict[int, object]) -> bool:
        """Look once at all that wait. True if facts or a worker were missing that may be there later."""
        waiting = waiting_in(self._store.snapshot)
        living = {instance.id for instance in waiting}
        for gone in considered.keys() - living:
            del considered[gone]
        self._faults.keep_only(living)
        self._note_faults.keep_only(living)
        self._worker_faults.keep_only(self._store.snapshot.workers.keys())
        faulty = False
        ready: list[Ready] = []
        for instance in waiting:
            if self._faults.holds(instance.id):
                continue
            async with self._step(instance.id, considered):
                one = await self._prepare(instance)
                if one is not None:
                    ready.append(one)
                    faulty = faulty or (one.result is not None and one.result.fault is not None)
        for start in range(0, len(ready), AT_ONCE):
            faulty = await self._decide_on(ready[start : start + AT_ONCE], considered) or faulty
        return faulty

    @asynccontextmanager
    async def _step(self, instance_id: int, considered: dict[int, object]) -> AsyncIterator[None]:
        """A block whose fault is that of one instance, which is told of it."""
        with self._faults.step(instance_id) as trial:
            yield
        if trial.fault is not None:
            considered.pop(instance_id, None)
            await self._tell(instance_id, trial.fault)

    async def _tell(self, instance_id: int, fault: RowFault) -> None:
        with self._note_faults.row(instance_id):  # the fault may be that its record cannot be written
            await self._note(instance_id, DEFER, fault.sentence)

    async def _prepare(self, instance: ModelInstance) -> Ready | None:
        """One that waits with what is known of its model; ``None`` where it cannot be decided on yet."""
        model = self._store.snapshot.get(Model, instance.model_id)
        if model is None or model.generation != instance.generation:
            return None  # about to be replaced
        result = self._facts.ask(model) if has_files(model) else None
        await trio.lowlevel.checkpoint()
        if has_files(model) and self._is_awaited(instance, model, result):
            # A rejected one stays in error until it is decided on again.
            if instance.state in WAITING:
                await self._note(instance.id, ANALYZE, _READING)
            return None
        return Ready(instance, await self._fill_category(model, result), result)

    async def _decide_on(self, ready: Sequence[Ready], considered: dict[int, object]) -> bool:
        """Decide on all in one snapshot, in which the places of those before are taken, and write the outcomes. True if
        a worker was passed over for a fault."""
        seen = self._store.snapshot
        if self._seen is not None and self._seen is not seen:
            seen.follow(self._seen)
        self._seen = seen
        decided = await self._thinking.run(
            decide_all, ready, seen, dict(considered), self._gangs, abandon=True
        )
        placed: dict[int, Decided] = {}
        preempting: dict[int, Preemption] = {}
        faulty = False
        for one in decided:
            instance_id = one.ready.instance.id
            for worker_id, worker_error in one.worker_faults.items():
                faulty = True
                with self._worker_faults.row(worker_id):
                    raise worker_error
            async with self._step(instance_id, considered):
                if one.preemption is not None and not one.preemption.is_kept:
                    considered.pop(instance_id, None)
                    preempting[instance_id] = one.preemption
                    continue
                if not isinstance(one.decision, Placement):
                    await self._refuse(one)
                    considered[instance_id] = None if one.worker_faults else one.inputs
                    self._faults.forget(instance_id)
                    continue
                considered.pop(instance_id, None)
                if one.ready.instance.state is InstanceState.ERROR:
                    await self._note(instance_id, DEFER, "The model file can be read now")
                else:
                    placed[instance_id] = one
        await self._faults.together(placed, self._claim)
        await self._faults.together(preempting, partial(keep_places, self._store))
        for instance_id in (*placed, *preempting):
            if (fault := self._faults.fault_of(instance_id)) is not None:
                await self._tell(instance_id, fault)
        return faulty

    async def _refuse(self, one: Decided) -> None:
        """Say why there is no place, or raise what was met instead."""
        if isinstance(one.decision, Exception):
            raise one.decision
        assert isinstance(one.decision, str)
        result, instance = one.ready.result, one.ready.instance
        hopeless = result is not None and result.lasting and one.decision == result.fault
        made_room = f"Made room for {instance.displaced_by}. " if instance.displaced_by else ""
        # While a worker cannot be judged nothing is known of who would make room: what is kept stays so.
        keeps = one.preemption is not None or (one.worker_faults and one.ready.model.preempts)
        reserved = instance.reserved if keeps else None
        move = REJECT if hopeless else DEFER
        await self._note(instance.id, move, f"{made_room}{one.decision}", reserved=reserved)

    def _is_awaited(self, instance: ModelInstance, model: Model, result: FactsResult | None) -> bool:
        """Whether the decision must wait for facts that are being read.

        An instance whose message says already why it waits is decided on with the facts known so far, so that its
        message does not come and go each time the facts are read again.
        """
        undecided = instance.state is InstanceState.ANALYZING or not instance.state_message
        return result is None or (undecided and not self._facts.is_fresh(model, result))

    async def _fill_category(self, model: Model, result: FactsResult | None) -> Model:
        """Store the category that the header tells while the user has named none: engines start by it.

        An architecture that the parameters lay over that of the files counts more."""
        filled = category_to_fill(model, result)
        if filled is None:
            return model

        def work(tx: Tx) -> Model:
            now = tx.get(Model, model.id)
            if now is None or now.categories or now.source != model.source:
                return now or model
            return tx.change(Model, model.id, categories=(filled.value,))

        return await self._store.write(work)

    async def _claim(self, decided: Mapping[int, Decided]) -> None:
        """Claim the places, in one transaction that decides again on the chosen workers. Those that have no room any
        more the next pass decides on: the commit that took the room has woken this loop."""

        def work(tx: Tx) -> list[ModelInstance]:
            snapshot, found = tx.snapshot, []
            for one in decided.values():
                instance, model = (
                    tx.get(ModelInstance, one.ready.instance.id),
                    tx.get(Model, one.ready.model.id),
                )
                if instance is None or model is None or instance.state not in WAITING:
                    continue
                if instance.deleted_at is not None or model.generation != instance.generation:
                    continue
                now = decide_again(model, instance, one, above(model.priority, snapshot), self._gangs)
                if now is not None:
                    place = with_addresses(now, snapshot)
                    move = make_move(tx, instance, PLACE, now.note, placement=place, **_SETTLED)
                    found.append(move)
                    snapshot = snapshot.changed(move)
                    snapshot.forget_former()  # else each of them stays until the last is claimed
            return found

        for placed in await self._store.write(work):
            worker = self._store.snapshot.get(Worker, placed.worker_id)
            followers = () if placed.placement is None else placed.placement.subordinates
            log.info(
                "Placed an instance: instance=%s worker=%s gpus=%s followers=%d",
                placed.name,
                placed.worker_id if worker is None else worker.name,
                [] if placed.placement is None else list(placed.placement.gpu_indexes),
                len(followers),
            )

    async def _note(self, instance_id: int, move: Move, text: str, **fields: Any) -> None:
        """Move an instance that waits, with a message and other fields; nothing is written when all is so already."""
        message = storable(text)  # it may hold names of files and words of libraries
        known = self._store.snapshot.get(ModelInstance, instance_id)
        wanted = {"state": move.target, "state_message": message, **fields}
        if known is None or all(getattr(known, name) == value for name, value in wanted.items()):
            return

        def work(tx: Tx) -> None:
            instance = tx.get(ModelInstance, instance_id)
            if instance is not None and is_waiting(instance):
                make_move(tx, instance, move, message, **fields)

        await self._store.write(work)
        if move is not ANALYZE:
            log.info("An instance waits: instance=%s reason=%s", known.name, message)
