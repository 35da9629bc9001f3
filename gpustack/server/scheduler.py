"""Finds places for pending instances, or says in their messages why there is none."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby
from typing import Any

import attrs
import trio

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement, Subordinate, claims_of
from gpustack.domain.lifecycle import ANALYZE, DEFER, PLACE, REJECT, InstanceState, Move
from gpustack.domain.memory_use import MemoryRecord
from gpustack.domain.model import Category, Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.engines.memory import SafetensorsMemory
from gpustack.engines.registry import engine_for
from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.nursery.quarantine import Quarantine, RowFault
from gpustack.policy.batch import pack
from gpustack.policy.decision import decide as decide_among
from gpustack.policy.estimate.learnt import KnownRuns
from gpustack.policy.model_support import overridden_category
from gpustack.policy.placement import USUAL_GANGS, GangSettings
from gpustack.policy.preemption import Preemption, above, preempt, standing
from gpustack.policy.schedule import PlacementRequest, Unschedulable, place_and_faults
from gpustack.policy.standing import standing_of_model
from gpustack.policy.worker_class import classes_of
from gpustack.server.facts import FactsCache, FactsResult
from gpustack.server.lifecycle import make_move
from gpustack.server.preemption import keep_places
from gpustack.store.fenced_store import RecordStore
from gpustack.store.transaction import Tx
from gpustack.text import storable

log = logging.getLogger(__name__)

_WAITING = (InstanceState.PENDING, InstanceState.ANALYZING)
_READING = "Reading the header of the model file"
_TRY_AGAIN = 1.0
_SETTLED: Mapping[str, Any] = {"reserved": None, "displaced_by": ""}
"""Of one that has a place."""
AT_ONCE = 256
"""Instances that are decided on, and claimed for, in one go."""


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
        waiting = _waiting(self._store.snapshot)
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
            if instance.state in _WAITING:
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
        placed: dict[int, _Decided] = {}
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

    async def _refuse(self, one: _Decided) -> None:
        """Say why there is no place, or raise what was met instead."""
        if isinstance(one.decision, Exception):
            raise one.decision
        assert isinstance(one.decision, str)
        result, instance = one.ready.result, one.ready.instance
        hopeless = result is not None and result.lasting and one.decision == result.fault
        made_room = f"Made room for {instance.displaced_by}. " if instance.displaced_by else ""
        reserved = None if one.preemption is None else instance.reserved
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
        filled = _category_to_fill(model, result)
        if filled is None:
            return model

        def work(tx: Tx) -> Model:
            now = tx.get(Model, model.id)
            if now is None or now.categories or now.source != model.source:
                return now or model
            return tx.change(Model, model.id, categories=(filled.value,))

        return await self._store.write(work)

    async def _claim(self, decided: Mapping[int, _Decided]) -> None:
        """Claim the places, in one transaction that decides again on the chosen workers. Those that have no room any
        more the next pass decides on: the commit that took the room has woken this loop."""

        def work(tx: Tx) -> list[ModelInstance]:
            snapshot, found = tx.snapshot, []
            for one in decided.values():
                instance, model = (
                    tx.get(ModelInstance, one.ready.instance.id),
                    tx.get(Model, one.ready.model.id),
                )
                if instance is None or model is None or instance.state not in _WAITING:
                    continue
                if instance.deleted_at is not None or model.generation != instance.generation:
                    continue
                now = _decide_again(model, instance, one, above(model.priority, snapshot), self._gangs)
                if now is not None:
                    place = with_addresses(now, snapshot)
                    move = make_move(tx, instance, PLACE, now.note, placement=place, **_SETTLED)
                    found.append(move)
                    snapshot = snapshot.changed(move)
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
            if instance is not None and _waits(instance):
                make_move(tx, instance, move, message, **fields)

        await self._store.write(work)
        if move is not ANALYZE:
            log.info("An instance waits: instance=%s reason=%s", known.name, message)


@attrs.frozen
class Ready:
    """An instance that can be decided on."""

    instance: ModelInstance
    model: Model
    result: FactsResult | None


@attrs.frozen
class _Decided:
    """What was decided: a place, the sentence why there is none, or the fault that was met."""

    ready: Ready
    decision: Placement | str | Exception
    worker_faults: Mapping[int, Exception]
    inputs: object
    """All that the decision depends on: while that is the same, so is the decision. ``None`` where it depends on places
    that were taken in the same pass: whether they are kept is not known yet."""
    packed: PlacementRequest | None = None
    """The request that it answers where it was packed with others."""
    preemption: Preemption | None = None
    """How it comes to a place where it has none."""


def ready_in(
    snapshot: Snapshot, known: Callable[[Model], FactsResult | None]
) -> tuple[list[Ready], list[Model]]:
    """The instances of a snapshot that wait for a place and can be decided on, in the order in which they are; and the
    models of others, of whose files nothing is known yet."""
    found: list[Ready] = []
    unknown: dict[int, Model] = {}
    for instance in _waiting(snapshot):
        model = snapshot.models.get(instance.model_id)
        if model is None or model.generation != instance.generation:
            continue
        result = known(model) if has_files(model) else None
        if result is None and has_files(model):
            unknown[model.id] = model
            continue
        filled = _category_to_fill(model, result)
        model = model if filled is None else attrs.evolve(model, categories=(filled.value,))
        found.append(Ready(instance, model, result))
    return found, list(unknown.values())


def _category_to_fill(model: Model, result: FactsResult | None) -> Category | None:
    """The category that the header tells while the user has named none."""
    facts = None if result is None else result.facts
    if facts is None or model.categories:
        return None
    category = overridden_category(model, _memory_of(model, facts)) or facts.category
    return None if category is Category.UNKNOWN else category


def decide_all(
    ready: Sequence[Ready], seen: Snapshot, considered: Mapping[int, object], gangs: GangSettings
) -> list[_Decided]:
    """Decide on one after the other, each where the places of those before are taken. Those of which all is as it was
    when they were ``considered`` are left out.

    Where some of equal priority are left without a place, all of these are packed instead if more of them have one so.
    Whoever has been refused before and would have one now is never passed over for that.
    """
    snapshot, runs = seen, KnownRuns(tuple(seen.all(MemoryRecord).values()))
    token = classes_of(seen).token, _ranks(ready, seen), runs
    found: list[_Decided] = []
    for priority, level in groupby(ready, key=lambda one: one.model.priority):
        asked = [
            (one, inputs)
            for one in level
            if considered.get(one.instance.id) != (inputs := _inputs(one, seen, token))
        ]
        view = above(priority, snapshot)
        decided, after = _one_by_one(asked, view, view if snapshot is seen else seen, gangs)
        if len(decided) > 1 and any(isinstance(one.decision, str) for one in decided):
            decided, after = _packed_if_better(decided, view, after, considered.keys(), gangs)
        if view is not snapshot:  # what is kept for lower ones they are still to find so
            places = [
                attrs.evolve(one.ready.instance, placement=one.decision)
                for one in decided
                if isinstance(one.decision, Placement)
            ]
            after = snapshot.changed(*places)
        decided, snapshot = _with_room_made(decided, after, gangs)
        found += decided
    return found


def _ranks(ready: Sequence[Ready], seen: Snapshot) -> object:
    """On what it depends who makes room for whom, where anybody does."""
    makes_room = seen.claims.kept or any(one.model.preempts for one in ready)
    return standing(seen) if makes_room else None


def _with_room_made(
    decided: list[_Decided], snapshot: Snapshot, gangs: GangSettings
) -> tuple[list[_Decided], Snapshot]:
    """``decided``, where those without a place that may preempt have others end; and the snapshot in which these do."""
    found: list[_Decided] = []
    for one in decided:
        model = one.ready.model
        made: Preemption | None = None
        if model.preempts and isinstance(one.decision, str) and not one.worker_faults:
            request = request_for(model, one.ready.instance, one.ready.result, snapshot, gangs)
            try:
                made = preempt(request, snapshot) if isinstance(request, PlacementRequest) else None
            except Exception as error:  # noqa: BLE001  it is this instance's, and is raised where that is told
                found.append(attrs.evolve(one, decision=error))
                continue
        if made is None:
            found.append(one)
            continue
        found.append(attrs.evolve(one, decision=made.sentence(snapshot), preemption=made))
        snapshot = made.carried_out(snapshot)
    return found, snapshot


def _inputs(one: Ready, seen: Snapshot, token: object) -> object:
    facts = None if one.result is None else (one.result.facts, one.result.fault)
    known = None if one.result is None else one.result.facts
    stands = standing_of_model(one.model, known, frozenset({one.instance.id}), seen).token
    return one.model.version, facts, stands, token


def _one_by_one(
    asked: Iterable[tuple[Ready, object]], snapshot: Snapshot, seen: Snapshot, gangs: GangSettings
) -> tuple[list[_Decided], Snapshot]:
    """The decisions in order, and the snapshot in which their places are taken."""
    refused: dict[int, _Decided] = {}
    found: list[_Decided] = []
    for one, inputs in asked:
        # What is free only shrinks from one to the next, so that replicas of a deployment are refused alike.
        if (same := refused.get(one.model.id)) is not None:
            found.append(attrs.evolve(same, ready=one, inputs=inputs if snapshot is seen else None))
            continue
        decided = _decided(one, snapshot, inputs if snapshot is seen else None, gangs)
        found.append(decided)
        if isinstance(decided.decision, Placement):
            snapshot = snapshot.changed(attrs.evolve(one.instance, placement=decided.decision))
        elif isinstance(decided.decision, str):
            refused[one.model.id] = decided
    return found, snapshot


def _packed_if_better(
    decided: list[_Decided],
    before: Snapshot,
    after: Snapshot,
    waited: Collection[int],
    gangs: GangSettings,
) -> tuple[list[_Decided], Snapshot]:
    """``decided``, or the same instances packed into the snapshot ``before``, whichever gives more of them a place and
    none of those that have ``waited`` loses its own."""
    requests: dict[int, PlacementRequest] = {}
    for number, one in enumerate(decided):
        request = request_for(one.ready.model, one.ready.instance, one.ready.result, before, gangs)
        if isinstance(request, PlacementRequest) and not isinstance(one.decision, Exception):
            requests[number] = request
    numbers = list(requests)
    packed = pack(list(requests.values()), before)
    placed = {one.ready.instance.id for one in decided if isinstance(one.decision, Placement)}
    in_pack = {decided[numbers[one.number]].ready.instance.id for one in packed}
    if len(packed) <= len(placed) or not placed.intersection(waited) <= in_pack:
        return decided, after
    found, snapshot = [], before
    for place in packed:
        was = decided[numbers[place.number]]
        found.append(attrs.evolve(was, decision=place.placement, inputs=None, packed=place.request))
        snapshot = snapshot.changed(attrs.evolve(was.ready.instance, placement=place.placement))
    left = [(one.ready, None) for one in decided if one.ready.instance.id not in in_pack]
    refused, snapshot = _one_by_one(left, snapshot, before, gangs)
    return [*found, *(attrs.evolve(one, inputs=None) for one in refused)], snapshot


def _decided(one: Ready, snapshot: Snapshot, inputs: object, gangs: GangSettings) -> _Decided:
    try:
        decision, faults = decide(one.model, one.instance, one.result, snapshot, gangs)
    except Exception as error:  # noqa: BLE001  it is this instance's, and is raised where that is told
        return _Decided(one, error, {}, inputs)
    return _Decided(one, decision, faults, inputs)


def decide(
    model: Model,
    instance: ModelInstance,
    result: FactsResult | None,
    snapshot: Snapshot,
    gangs: GangSettings = USUAL_GANGS,
) -> tuple[Placement | str, Mapping[int, Exception]]:
    """A place for the instance, or the sentence why there is none now; and the exceptions of workers that were passed
    over, by their ids."""
    request = request_for(model, instance, result, snapshot, gangs)
    if isinstance(request, str):
        return request, {}
    decision, faults = place_and_faults(request, snapshot)
    return decision.sentence if isinstance(decision, Unschedulable) else decision, faults


def with_addresses(placement: Placement, snapshot: Snapshot) -> Placement:
    """``placement`` with the addresses of devices that have networks of their own (NPUs)."""

    def of(share: Subordinate) -> tuple[str | None, ...]:
        worker = snapshot.workers.get(share.worker_id)
        devices = [None if worker is None else worker.device(index) for index in share.gpu_indexes]
        networks = [None if device is None else device.network for device in devices]
        found = tuple(
            network.inet if network is not None and network.status == "up" else None for network in networks
        )
        return found if any(found) else ()

    return attrs.evolve(
        placement,
        gpu_addresses=of(placement.share(0)),
        subordinates=tuple(attrs.evolve(share, gpu_addresses=of(share)) for share in placement.subordinates),
    )


def has_files(model: Model) -> bool:
    """Whether the model has files, and so a header: a custom command need not ask for a path."""
    try:
        return engine_for(model).fetches(model)
    except Invalid:
        return True


def _memory_of(model: Model, facts: ModelFacts) -> SafetensorsMemory | None:
    try:
        return engine_for(model, facts).memory
    except Invalid:
        return None


def _decide_again(
    model: Model, instance: ModelInstance, one: _Decided, snapshot: Snapshot, gangs: GangSettings
) -> Placement | None:
    """The place on the workers that were chosen, decided again on a newer snapshot; ``None`` when there is none."""
    assert isinstance(one.decision, Placement)
    there = {worker_id for worker_id, _ in claims_of(one.decision)}
    request = one.packed or request_for(model, instance, one.ready.result, snapshot, gangs)
    if not there <= snapshot.workers.keys() or isinstance(request, str):
        return None
    again = decide_among(request, snapshot, among=[snapshot.workers[key] for key in sorted(there)])
    if not isinstance(again, Placement):
        return None
    return attrs.evolve(again, note=one.decision.note) if one.packed else again


def request_for(
    model: Model,
    instance: ModelInstance,
    result: FactsResult | None,
    snapshot: Snapshot,
    gangs: GangSettings,
) -> PlacementRequest | str:
    """The request to place, or the sentence why there cannot be one."""
    facts, fault = (None, None) if result is None else (result.facts, result.fault)
    try:
        engine = engine_for(model, facts)
    except Invalid as error:
        return str(error) if fault is None or model.backend else fault
    if fault is not None and not engine.any_device:
        return fault  # a custom command runs without facts
    return PlacementRequest(
        model=model,
        instance=instance,
        facts=facts,
        engine_name=engine.name,
        gangs=gangs,
        known=KnownRuns.of(snapshot, engine.name, facts),
    )


def _waiting(snapshot: Snapshot) -> list[ModelInstance]:
    """The instances that wait for a place, those of the highest priority first; among equals the oldest first, so that
    none is overtaken for ever."""

    def order(instance: ModelInstance) -> tuple[int, int]:
        model = snapshot.models.get(instance.model_id)
        return (0 if model is None else -model.priority), instance.id

    found = [i for i in snapshot.instances.values() if _waits(i) and i.deleted_at is None]
    return sorted(found, key=order)


def _waits(instance: ModelInstance) -> bool:
    """Whether the scheduler decides on it: it waits, or was rejected by the scheduler (an error without a place)."""
    given_up = instance.state is InstanceState.ERROR and instance.placement is None
    return given_up or instance.state in _WAITING
