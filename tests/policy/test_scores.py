"""What places are compared by: each rule alone, and that a file is all that a further one takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import gpustack.policy.filters
import gpustack.policy.scores
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.model import PlacementStrategy
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB
from gpustack.policy import look, seat
from gpustack.policy.explain import explain
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.schedule import place
from gpustack.policy.seat import scores_of, seated

from .shapes import facts_of
from .worlds import ask, gpu, instance, model, worker, world

SMALL = facts_of("llama-3.2-1b")
SPREAD, BINPACK = model(1), model(1, placement_strategy=PlacementStrategy.BINPACK)


def placed(question: PlacementRequest, *records: Record) -> Placement:
    outcome = place(question, world(*records))
    assert isinstance(outcome, Placement), outcome
    return outcome


def points(question: PlacementRequest, *records: Record) -> dict[str, float]:
    """What each rule adds at the place that is taken."""
    snapshot = world(*records)
    found = place(question, snapshot)
    assert isinstance(found, Placement)
    there = seated(found, snapshot)
    assert there is not None
    scores = scores_of(there, question, snapshot)
    assert found.score == pytest.approx(sum(one.points for one in scores))
    return {one.name: one.points for one in scores}


def test_every_rule_that_a_strategy_asks_is_told_what_counts_most_first() -> None:
    here = worker(1, gpus=[gpu(0), gpu(1)])
    assert next(iter(points(ask(SPREAD, SMALL), here))) == "spread"
    assert next(iter(points(ask(BINPACK, SMALL), here))) == "binpack"
    assert "binpack" not in points(ask(SPREAD, SMALL), here)


def test_of_places_that_are_equally_empty_the_smaller_gpu_is_taken() -> None:
    there = [worker(1, gpus=[gpu(0, 80)]), worker(2, gpus=[gpu(0, 24)])]
    assert placed(ask(SPREAD, SMALL), *there).worker_id == 2


def test_what_is_spread_is_not_drawn_to_gpus_in_use() -> None:
    """Fragmentation breaks ties only: even among 16 GPUs an empty one goes before one in use."""
    held = instance(9, model(2), on=1, claim=Claim(vram={0: GIB}))
    here = worker(1, gpus=[gpu(index, 80) for index in range(16)])
    assert placed(ask(SPREAD, SMALL), here, held).gpu_indexes != (0,)


def test_what_is_packed_leaves_a_whole_gpu_free() -> None:
    """GPU 0 is in use and as free as the smaller GPU 1, which no other model would have whole then."""
    held = instance(9, model(2), on=1, claim=Claim(vram={0: 16 * GIB}))
    here = worker(1, gpus=[gpu(0, 40), gpu(1, 24)])
    assert placed(ask(BINPACK, SMALL), here, held).gpu_indexes == (0,)


def test_without_a_gpu_nothing_is_fragmented() -> None:
    assert points(ask(SPREAD, SMALL), worker(1))["fragmentation"] == 0


TOY_FILTER = '''"""Only workers with much memory."""

def keep(request, worker, snapshot):
    return f"worker {worker.name} is small" if worker.status.memory.total < 2**36 else None
'''
TOY_SCORE = '''"""Prefers workers with little memory."""

NAME = "thrift"

def weight(strategy):
    return 0.5

def score(candidate, request, snapshot):
    return 100 - candidate.worker.status.memory.total / 2**32
'''


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[None]:
    """A further filter and a further score, as a file each."""
    folders = {gpustack.policy.filters: "filters", gpustack.policy.scores: "scores"}
    for package, name in folders.items():
        (tmp_path / name).mkdir()
        package.__path__.append(str(tmp_path / name))
    (tmp_path / "filters" / "toy_small.py").write_text(TOY_FILTER)
    (tmp_path / "scores" / "toy_thrift.py").write_text(TOY_SCORE)
    _forget()
    yield
    for package in folders:
        package.__path__.pop()
    _forget()


def _forget() -> None:
    look._filters.cache_clear()
    look._filters_of_each.cache_clear()
    seat._asked.cache_clear()


@pytest.mark.usefixtures("toys")
def test_a_further_filter_or_score_is_one_file() -> None:
    there = [worker(key, gpus=[gpu(0)], ram=ram) for key, ram in ((1, 32), (2, 256), (3, 128), (4, 63))]
    assert placed(ask(SPREAD, SMALL), *there).worker_id == 3
    assert points(ask(SPREAD, SMALL), *there)["thrift"] == 34
    waiting = instance(7, SPREAD)
    told = explain(SPREAD, waiting, world(*there, SPREAD, waiting), SMALL)
    assert [one.sentences[0] for one in told.workers if not one.fits] == [
        "worker node-a is small",
        "worker node-d is small",
    ]
