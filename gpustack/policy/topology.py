"""Which of several equal devices of a worker work together: those that are joined best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from gpustack.domain.device import Device, LinkKind

from .capacity import WorkerCapacity

_UNKNOWN = len(LinkKind)
_MOST = 16
"""Devices beyond which it is not looked which are joined best: it would take seconds of every placement, for machines
that are only said to have so many."""
_LINKS = 64
"""More parallel links than there are between two devices."""
_Distances = Mapping[tuple[int, int], int]


def nearest(members: Sequence[Device], size: int, here: WorkerCapacity) -> Sequence[Device]:
    """The first ``size`` of ``members``, in which the last ones may be replaced by such as are equal but joined better.

    Found greedily from each of them, never by trying combinations.
    """
    chosen = members[:size]
    last = chosen[-1]
    if size == len(members) or len(members) > _MOST or not last.links:
        return chosen

    def kind(device: Device) -> object:
        return here.vram(device), device.memory.total, here.free.sharing.get(device.index, 0)

    pool = [device for device in members if kind(device) == kind(last)]
    fixed = [device for device in chosen if kind(device) != kind(last)]
    if len(fixed) + len(pool) == size:
        return chosen
    apart = _distances(members)
    grown = [_grown([*fixed, seed], pool, size, apart) for seed in pool]
    return min(grown, key=lambda group: _spread_of(group, apart))


def _distances(devices: Sequence[Device]) -> _Distances:
    """Between each two devices, by their indexes; of one kind of link more parallel ones are nearer."""
    found: dict[tuple[int, int], int] = {}
    for one in devices:
        ways = one.ways
        for other in devices:
            link = ways.get(other.index)
            kind = _UNKNOWN if link is None else link.kind.distance
            count = 0 if link is None or link.count is None else min(link.count, _LINKS - 1)
            found[one.index, other.index] = kind * _LINKS - count
    return found


def _grown(group: list[Device], pool: Sequence[Device], size: int, apart: _Distances) -> list[Device]:
    """The group with further devices, each time the one that is nearest to all that are in it."""
    left = [device for device in pool if device not in group]
    while len(group) < size:
        best = min(
            left, key=lambda device: (sum([apart[device.index, one.index] for one in group]), device.index)
        )
        group.append(best)
        left.remove(best)
    return group


def _spread_of(group: Sequence[Device], apart: _Distances) -> tuple[int, list[int]]:
    indexes = sorted(device.index for device in group)
    return sum(apart[pair] for pair in combinations(indexes, 2)), indexes
