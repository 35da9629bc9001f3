"""Many that wait together and do not all find a place one after the other: packed tightly, so that more of them do."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gpustack.domain.instance import Placement
from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot

from .decision import decide
from .placement import PlacementRequest

PACKED = "Packed with others that waited with it, so that more of them have a place"


@attrs.frozen
class Packed:
    """A place in such a pack, and the request that it answers: asked again for this worker, where those before it in
    the pack have theirs, it gets the same answer."""

    number: int
    """Which of the requests it is for."""
    request: PlacementRequest
    placement: Placement


def pack(requests: Sequence[PlacementRequest], snapshot: Snapshot) -> tuple[Packed, ...]:
    """Places for as many as are found, in the order in which they are to be taken.

    The smallest go first, each where it leaves least; if some are left so, the same for as few requests at a time as
    their engines may have. The number is not proven to be the largest: ``benchmarks/batch.py`` compares it with what
    a solver finds. Each request has an instance.
    """
    first = _packed(_tight(requests), snapshot)
    if len(first) == len(requests):
        return first
    fewest = _tight(requests, fewest=True)
    if all(one.slots is None for one in fewest):
        return first
    return max(first, _packed(fewest, snapshot), key=len)


def _tight(requests: Sequence[PlacementRequest], *, fewest: bool = False) -> list[PlacementRequest]:
    """The requests where strategies are left aside; with ``fewest`` for as few requests at a time as there may be."""
    models = {
        one.model.id: attrs.evolve(one.model, placement_strategy=PlacementStrategy.BINPACK)
        for one in requests
    }
    found = []
    for one in requests:
        choices = one.demand.slot_choices if fewest and one.slots is None else ()
        slots = choices[-1] if choices else one.slots
        found.append(attrs.evolve(one, model=models[one.model.id], slots=slots))
    return found


def _packed(requests: Sequence[PlacementRequest], snapshot: Snapshot) -> tuple[Packed, ...]:
    found: list[Packed] = []
    refused: set[int] = set()
    for number, request in sorted(enumerate(requests), key=lambda pair: (_size(pair[1]), pair[0])):
        instance = request.instance
        if instance is None or (instance.reserved is None and request.model.id in refused):
            continue  # what is free only shrinks, so that replicas for which no place is kept are refused as well
        outcome = decide(request, snapshot)
        if not isinstance(outcome, Placement):
            refused.add(request.model.id)
            continue
        placement = attrs.evolve(outcome, note=". ".join(part for part in (outcome.note, PACKED) if part))
        found.append(Packed(number, request, placement))
        snapshot = snapshot.changed(attrs.evolve(instance, placement=placement))
    return tuple(found)


def _size(request: PlacementRequest) -> int:
    """Bytes on one device, or of a host where none is used, for the fewest requests at a time."""
    demand = request.variants[-1].demand
    return demand.devices((1.0,)).vram[0] if demand.on_devices else demand.cpu()
