"""What the scheduler decides: on all that wait, in one snapshot, and again on what it chose. It writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement, Subordinate, claims_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.memory_use import MemoryRecord
from gpustack.domain.model import Category, Model
from gpustack.domain.snapshot import Snapshot
from gpustack.engines.memory import SafetensorsMemory
from gpustack.engines.registry import engine_for
from gpustack.errors import Invalid
from gpustack.policy.batch import pack
from gpustack.policy.decision import decide as decide_among
from gpustack.policy.estimate.learnt import KnownRuns
from gpustack.policy.model_support import overridden_category
from gpustack.policy.placement import USUAL_GANGS, GangSettings
from gpustack.policy.preemption import Preemption, above, preempt, standing
from gpustack.policy.schedule import PlacementRequest, Unschedulable, place_and_faults
from gpustack.policy.standing import standing_of_model
from gpustack.policy.worker_class import classes_of
from gpustack.server.facts import FactsResult

WAITING = (InstanceState.PENDING, InstanceState.ANALYZING)
"""The states in which an instance waits for a place."""
AT_ONCE = 256
"""Instances that are decided on, and claimed for, in one go."""


@attrs.frozen
class Ready:
    """An instance that can be decided on."""

    instance: ModelInstance
    model: Model
    result: FactsResult | None


@attrs.frozen
class Decided:
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
    for instance in waiting_in(snapshot):
        model = snapshot.models.get(instance.model_id)
        if model is None or model.generation != instance.generation:
            continue
        result = known(model) if has_files(model) else None
        if result is None and has_files(model):
            unknown[model.id] = model
            continue
        filled = category_to_fill(model, result)
        model = model if filled is None else attrs.evolve(model, categories=(filled.value,))
        found.append(Ready(instance, model, result))
    return found, list(unknown.values())


def category_to_fill(model: Model, result: FactsResult | None) -> Category | None:
    """The category that the header tells while the user has named none."""
    facts = None if result is None else result.facts
    if facts is None or model.categories:
        return None
    category = overridden_category(model, _memory_of(model, facts)) or facts.category
    return None if category is Category.UNKNOWN else category


def decide_all(
    ready: Sequence[Ready], seen: Snapshot, considered: Mapping[int, object], gangs: GangSettings
) -> list[Decided]:
    """Decide on one after the other, each where the places of those before are taken. Those of which all is as it was
    when they were ``considered`` are left out.

    Where some of equal priority are left without a place, all of these are packed instead if more of them have one so.
    Whoever has been refused before and would have one now is never passed over for that.
    """
    snapshot, runs = seen, KnownRuns(tuple(seen.all(MemoryRecord).values()))
    token = classes_of(seen).token, _ranks(ready, seen), runs
    found: list[Decided] = []
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
    decided: list[Decided], snapshot: Snapshot, gangs: GangSettings
) -> tuple[list[Decided], Snapshot]:
    """``decided``, where those without a place that may preempt have others end; and the snapshot in which these do."""
    found: list[Decided] = []
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
) -> tuple[list[Decided], Snapshot]:
    """The decisions in order, and the snapshot in which their places are taken."""
    refused: dict[int, Decided] = {}
    found: list[Decided] = []
    for one, inputs in asked:
        # What is free only shrinks from one to the next, so that replicas of a deployment are refused alike: but for
        # one for which a place is kept, that of the others is not free.
        if one.instance.reserved is None and (same := refused.get(one.model.id)) is not None:
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
    decided: list[Decided],
    before: Snapshot,
    after: Snapshot,
    waited: Collection[int],
    gangs: GangSettings,
) -> tuple[list[Decided], Snapshot]:
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


def _decided(one: Ready, snapshot: Snapshot, inputs: object, gangs: GangSettings) -> Decided:
    try:
        decision, faults = decide(one.model, one.instance, one.result, snapshot, gangs)
    except Exception as error:  # noqa: BLE001  it is this instance's, and is raised where that is told
        return Decided(one, error, {}, inputs)
    return Decided(one, decision, faults, inputs)


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


def decide_again(
    model: Model, instance: ModelInstance, one: Decided, snapshot: Snapshot, gangs: GangSettings
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


def waiting_in(snapshot: Snapshot) -> list[ModelInstance]:
    """The instances that wait for a place, those of the highest priority first; among equals the oldest first, so that
    none is overtaken for ever."""

    def order(instance: ModelInstance) -> tuple[int, int]:
        model = snapshot.models.get(instance.model_id)
        return (0 if model is None else -model.priority), instance.id

    found = [i for i in snapshot.instances.values() if is_waiting(i) and i.deleted_at is None]
    return sorted(found, key=order)


def is_waiting(instance: ModelInstance) -> bool:
    """Whether the scheduler decides on it: it waits, or was rejected by the scheduler (an error without a place)."""
    given_up = instance.state is InstanceState.ERROR and instance.placement is None
    return given_up or instance.state in WAITING
