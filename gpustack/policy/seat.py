"""How places are compared: what each rule of ``scores/`` says of one, and the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType

import attrs

from gpustack.domain.instance import Placement
from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.plugins import siblings

from .placement import Candidate, PlacementRequest

ScoreRule = Callable[[Candidate, PlacementRequest, Snapshot], float]

MAIN_WEIGHT = 5
"""The main member of a gang counts as much as so many followers."""


@attrs.frozen(kw_only=True)
class Score:
    """What one rule says of a place: ``value`` is 0 to 100 (spread gives up to 110), ``weight`` below 0 where it counts
    against the place."""

    name: str
    value: float
    weight: float

    @property
    def points(self) -> float:
        """What it adds to the score of the place."""
        return self.value * self.weight


@attrs.define(kw_only=True, eq=False)
class Prospect:
    """What a place on devices of one worker would be, told from numbers before it is made: what there is, and what
    would be claimed. Bytes. It is filled in anew for each choice of devices."""

    request: PlacementRequest
    worker: Worker
    snapshot: Snapshot
    own: bool
    """Whether the worker holds a replica of the deployment already."""
    count: int
    """Claims on the worker."""
    devices: int
    """Devices of the worker."""
    free_ram: int
    sharing: Sequence[int] = ()
    """Claims on each of the devices."""
    free: int | None = None
    """What is free of the device, where it is one."""
    ram: int = 0
    vram: int = 0
    """What is claimed of the device, where it is one."""

    @property
    def score(self) -> float:
        """The score that such a place has, or more: rules that cannot tell from numbers (have no ``most``) say 100."""
        total = 0.0
        for weight, _, most in _asked(self.request.model.placement_strategy):
            if most is not None:
                total += weight * most(self)
            elif weight > 0:
                total += weight * _MOST
        return total


_MOST = 100.0


def scores_of(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> tuple[Score, ...]:
    """What each rule says that the deployment's strategy asks: what counts for a place, then what counts against it,
    of each what counts most first."""
    found = (
        Score(name=rule.NAME, value=rule.score(candidate, request, snapshot), weight=weight)
        for weight, rule, _ in _asked(request.model.placement_strategy)
    )
    return tuple(sorted(found, key=lambda one: (one.weight < 0, -abs(one.weight))))


def seated(placement: Placement, snapshot: Snapshot) -> Candidate | None:
    """A place that is taken as one to be scored; ``None`` where the main worker is gone. Followers whose worker is gone
    are left out."""
    seats = [
        Candidate(worker=worker, gpu_indexes=share.gpu_indexes, claim=share.claim)
        for share in map(placement.share, range(1 + len(placement.subordinates)))
        if (worker := snapshot.workers.get(share.worker_id)) is not None
    ]
    if not seats or seats[0].worker.id != placement.worker_id:
        return None
    return attrs.evolve(seats[0], followers=tuple(seats[1:]))


def scored(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """The score of a place: the points of all rules together."""
    total = 0.0
    for weight, rule, _ in _asked(request.model.placement_strategy):
        total += weight * rule.score(candidate, request, snapshot)
    return total


def mean_of_members(
    rule: ScoreRule, candidate: Candidate, request: PlacementRequest, snapshot: Snapshot
) -> float:
    """The mean of what a rule says of each member, of which the main one counts ``MAIN_WEIGHT`` times."""
    main = rule(candidate, request, snapshot)
    if not candidate.followers:
        return main
    others = [rule(member, request, snapshot) for member in candidate.followers]
    return (main * MAIN_WEIGHT + sum(others)) / (MAIN_WEIGHT + len(others))


def best_seats(
    request: PlacementRequest, seats: Sequence[Candidate], count: int, snapshot: Snapshot
) -> list[Candidate]:
    """The ``count`` best of ``seats`` on different workers, the best first; ties go to most room, then lowest id."""
    rated = [(-scored(seat, request, snapshot), -seat.left, seat.worker.id, seat) for seat in seats]
    return [seat for *_, seat in sorted(rated, key=lambda one: one[:3])[:count]]


_Rule = tuple[float, ModuleType, Callable[[Prospect], float] | None]


@cache
def _asked(strategy: PlacementStrategy) -> tuple[_Rule, ...]:
    """The rules that count for deployments of a strategy: of each the weight, the module, and its ``most``."""
    found = siblings(f"{__package__}.scores")
    weighed = ((module.weight(strategy), module, getattr(module, "most", None)) for module in found)
    return tuple(rule for rule in weighed if rule[0])
