"""What it costs to find a place among many workers, and to say why there is none.

    python benchmarks/placement.py [--workers 1000] [--rounds 3] [--against COMMIT] [--json]

Workers are of five shapes with 8 GPUs each, half of which hold a claim of one of some sizes. Replicas of a few
deployments are placed in turn, each in the cluster that the one before has left. CPU seconds, the median of the rounds;
with ``--json`` one object a line. ``--against`` checks a commit out beside this one and measures it in turn with this
one, for the ratio of the two.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs

HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.environ.get("BENCHMARKED", str(HERE.parent)))

from gpustack.domain.instance import Claim, Placement  # noqa: E402
from gpustack.domain.model import Model  # noqa: E402
from gpustack.domain.record import Record  # noqa: E402
from gpustack.domain.snapshot import Snapshot  # noqa: E402
from gpustack.policy.schedule import place  # noqa: E402
from tests.policy.shapes import facts_of  # noqa: E402
from tests.policy.worlds import ask, gpu, instance, model, worker, world  # noqa: E402

GIB = 1 << 30
SHAPES = (16, 24, 40, 48, 80)
"""GiB of the GPUs of a worker."""
GPUS, CLAIMS, OTHERS, DEPLOYED, PLACED = 8, 4, 20, 4, 40
SMALL, LARGE = facts_of("llama-3.2-1b"), facts_of("llama-3.3-70b")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/placement.py", description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(placed_in(cluster(options.workers)))
        return
    show_all(options)


def show_all(options: argparse.Namespace) -> None:
    # Not in an older tree, in which this script measures too.
    from benchmarks.checkout import HERE as BENCHMARKS
    from benchmarks.checkout import checkout, measured_in
    from benchmarks.figure import Figure

    count, rounds, as_json = options.workers, options.rounds, options.json
    few, many, full = cluster(max(count // 10, 1)), cluster(count), crowded(count)
    seconds = median(rounds, lambda: placed_in(many))
    name = f"placements a second, {count} workers half full"
    Figure(name, 1 / seconds, 200, "1/s", "higher").show(as_json=as_json)
    grown = seconds / median(rounds, lambda: placed_in(few))
    Figure("one placement, against a tenth of the workers", grown, 2, "x").show(as_json=as_json)
    refused = median(rounds, lambda: timed(lambda: place(ask(model(1), LARGE), full), fits=False))
    Figure("no place, with its reasons and what would help", refused * 1000, 50, "ms").show(as_json=as_json)
    if options.against is None:
        return
    with checkout(options.against) as tree:
        bare = lambda where: float(measured_in(where, "placement.py", "--workers", str(count)))  # noqa: E731
        pairs = [(bare(BENCHMARKS.parent), bare(tree)) for _ in range(rounds)]
    ratio = statistics.median(other / own for own, other in pairs)
    name = f"placements a second, against {options.against}"
    Figure(name, ratio, 25, "x", "higher").show(as_json=as_json)


def median(rounds: int, measured: Callable[[], float]) -> float:
    return statistics.median(measured() for _ in range(rounds))


def timed(question: Callable[[], object], *, fits: bool) -> float:
    began = time.process_time()
    outcome = question()
    spent = time.process_time() - began
    assert isinstance(outcome, Placement) is fits, outcome
    return spent


def placed_in(snapshot: Snapshot) -> float:
    """CPU seconds of one placement, the mean of some replicas of some deployments. Nothing is known beforehand."""
    models = [one for one in snapshot.models.values() if one.name.startswith("new")]
    snapshot = attrs.evolve(snapshot)
    gc.collect()  # what making the cluster has left is not measured
    began = time.process_time()
    for number in range(PLACED):
        wanted = models[number % len(models)]
        facts = SMALL if wanted.id % 2 else LARGE
        replica = instance(1_000_000 + number, wanted)
        outcome = place(ask(wanted, facts, instance=replica), snapshot)
        assert isinstance(outcome, Placement), outcome
        snapshot = after(snapshot, attrs.evolve(replica, placement=outcome))
    return (time.process_time() - began) / PLACED


def after(snapshot: Snapshot, placed: Record) -> Snapshot:
    if hasattr(snapshot, "changed"):
        return snapshot.changed(placed)
    instances = {**snapshot.instances, placed.id: placed}  # as it was done before
    return attrs.evolve(snapshot, tables={**snapshot.tables, "model_instances": instances})


def cluster(count: int, seed: int = 1) -> Snapshot:
    """Workers of which half of the GPUs hold a claim, and deployments that have no replica yet."""
    rng = random.Random(seed)
    others: list[Model] = [model(100 + number, name=f"m{number}") for number in range(OTHERS)]
    new = [model(1 + number, name=f"new{number}") for number in range(DEPLOYED)]
    shares = [rng.uniform(0.1, 0.9) for _ in range(CLAIMS)]
    records: list[Record] = [*others, *new]
    for key in range(1, count + 1):
        size = SHAPES[key % len(SHAPES)]
        there = worker(key, name=f"n{key}", ram=512, gpus=[gpu(index, size) for index in range(GPUS)])
        records.append(there)
        for index in range(GPUS):
            if rng.random() < 0.5:
                claim = Claim(ram=GIB, vram={index: int(rng.choice(shares) * (size - 1) * GIB)})
                records.append(instance(len(records), rng.choice(others), on=there, claim=claim))
    return world(*records)


def crowded(count: int) -> Snapshot:
    """The same with GPUs and memory that are too small for the large model."""
    cards = [[gpu(index, size) for index in range(4)] for size in (3, 3.5, 4)]
    return world(*(worker(key, name=f"n{key}", ram=5, gpus=cards[key % 3]) for key in range(1, count + 1)))


if __name__ == "__main__":
    main()
