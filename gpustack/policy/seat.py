"""How places are compared: the score of the strategy, for one worker and for the members of a gang together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import ModuleType

from gpustack.domain.snapshot import Snapshot
from gpustack.plugins import siblings

from .placement import Candidate, PlacementRequest

Score = Callable[[Candidate, PlacementRequest, Snapshot], float]

MAIN_WEIGHT = 5
"""The main member of a gang counts as much as so many followers."""


def scored(candidate: Candidate, request: PlacementRequest, snapshot: Snapshot) -> float:
    """The score of a place by the strategy of the deployment."""
    score = _strategies()[request.model.placement_strategy.value].score
    return mean_score(score, (candidate, *candidate.followers), request, snapshot)


def mean_score(
    score: Score, members: Sequence[Candidate], request: PlacementRequest, snapshot: Snapshot
) -> float:
    """The mean of the scores of all members, of which the first, the main one, counts ``MAIN_WEIGHT`` times."""
    main, *others = (score(member, request, snapshot) for member in members)
    return (main * MAIN_WEIGHT + sum(others)) / (MAIN_WEIGHT + len(others)) if others else main


def best_seats(
    request: PlacementRequest, seats: Sequence[Candidate], count: int, snapshot: Snapshot
) -> list[Candidate]:
    """The ``count`` best of ``seats`` on different workers, the best first; ties go to most room, then lowest id."""
    rated = [(-scored(seat, request, snapshot), -seat.left, seat.worker.id, seat) for seat in seats]
    return [seat for *_, seat in sorted(rated, key=lambda one: one[:3])[:count]]


@cache
def _strategies() -> Mapping[str, ModuleType]:
    return {module.__name__.rpartition(".")[2]: module for module in siblings(f"{__package__}.scores")}
