"""What it costs to find a place among many workers, alone and divided among several.

    python benchmarks/placement.py [--workers 1000] [--rounds 3] [--json]

CPU seconds of one decision, the median of some rounds, with no estimate remembered from the one before: a model that
one GPU holds; one that llama.cpp divides over RPC; one that vLLM divides in equal shares; and one that nothing holds,
with its reasons and the smallest change that would help.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from gpustack.domain.instance import Placement  # noqa: E402
from gpustack.domain.snapshot import Snapshot  # noqa: E402
from gpustack.domain.worker import Worker  # noqa: E402
from gpustack.policy.estimate import gguf  # noqa: E402
from gpustack.policy.placement import PlacementRequest  # noqa: E402
from gpustack.policy.schedule import place  # noqa: E402
from tests.policy.shapes import facts_of  # noqa: E402
from tests.policy.test_equal_gang import BUILD as VLLM  # noqa: E402
from tests.policy.test_equal_gang import LARGE, deployed  # noqa: E402
from tests.policy.worlds import RPC_BUILD, ask, gpu, model, worker, world  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/placement.py", description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measured(options.workers, options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    base = figures["one GPU"]
    for name, seconds in figures.items():
        print(f"{name:40} {seconds:8.3f} s  {seconds / base:6.1f} x")


def measured(count: int, rounds: int) -> dict[str, float]:
    """CPU seconds of each case."""
    large = facts_of("llama-3.3-70b")
    middling, small = cluster(count, (8, 10, 12)), cluster(count, (3, 3.5, 4), ram=5)
    equal = cluster(count, (24, 24, 16))
    cases: dict[str, tuple[Callable[[], PlacementRequest], Snapshot, bool]] = {
        "one GPU": (lambda: ask(model(), facts_of("llama-3.2-1b")), middling, True),
        "a gang over RPC": (lambda: ask(model(), large), cluster(count, (8, 10, 12), gpus=2), True),
        "a gang of equal shares": (lambda: ask(deployed(), LARGE, engine_name="vllm"), equal, True),
        "no place, and what would help": (lambda: ask(model(), large), small, False),
    }
    return {name: statistics.median(_timed(*case) for _ in range(rounds)) for name, case in cases.items()}


def cluster(count: int, sizes: tuple[float, ...], *, ram: float = 32, gpus: int = 4) -> Snapshot:
    """Workers whose GPUs have these sizes in GiB, in turns."""
    return world(*_workers(count, sizes, ram, gpus))


def _workers(count: int, sizes: tuple[float, ...], ram: float, gpus: int) -> Iterable[Worker]:
    for key in range(1, count + 1):
        cards: list[Any] = [
            gpu(index, sizes[(key + index) % len(sizes)], compute_capability="9.0") for index in range(gpus)
        ]
        made = worker(
            key, name=f"n{key}", ip=f"10.0.{key // 250}.{key % 250}", gpus=cards, ram=ram, build=RPC_BUILD
        )
        engines = (*made.status.engines, VLLM)
        yield attrs.evolve(made, status=attrs.evolve(made.status, engines=engines))


def _timed(question: Callable[[], PlacementRequest], snapshot: Snapshot, fits: bool) -> float:
    gguf.estimate.cache_clear()
    began = time.process_time()
    outcome = place(question(), snapshot)
    spent = time.process_time() - began
    assert isinstance(outcome, Placement) is fits, outcome
    return spent


if __name__ == "__main__":
    main()
