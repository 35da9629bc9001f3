"""How places are compared: what each rule of ``scores/`` says of one, and the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import attrs

from gpustack.domain.instance import Placement
from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
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


def scores_of(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> tuple[Score, ...]:
    """What each rule says that the deployment's strategy asks; what counts most comes first."""
    found = (
        Score(name=name, value=rule(candidate, request, snapshot), weight=weight)
        for name, weight, rule in _asked(request.model.placement_strategy)
    )
    return tuple(sorted(found, key=lambda one: -abs(one.weight)))


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
    for _, weight, rule in _asked(request.model.placement_strategy):
        total += weight * rule(candidate, request, snapshot)
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


@cache
def _asked(strategy: PlacementStrategy) -> tuple[tuple[str, float, ScoreRule], ...]:
    """The rules that count for deployments of a strategy: the name, weight and function of each."""
    found = siblings(f"{__package__}.scores")
    weighed = ((module.NAME, module.weight(strategy), module.score) for module in found)
    return tuple((name, weight, rule) for name, weight, rule in weighed if weight)
