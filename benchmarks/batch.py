"""How many instances that wait together get a place, beside the most that a solver finds.

    python benchmarks/batch.py [--cases 20] [--seed 1] [--limit 20] [--json]

Random clusters of 8 to 24 workers, of which some GPUs are taken in part, and about as many replicas of some deployments
as they hold, or more. Each replica is on one GPU and takes memory of the GPU and of its host. OR-tools' CP-SAT is asked
for the assignment with the most replicas; it is an extra of this benchmark (``pip install ortools``).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs
from ortools.sat.python import cp_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figure import Figure
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import PlacementRequest
from gpustack.server.decisions import Ready, decide_all
from gpustack.server.facts import FactsResult
from tests.policy.shapes import facts_of
from tests.policy.worlds import ask, gpu, instance, model, worker, world

GIB = 1 << 30
SIZES = (16, 24, 40, 48, 80)
SHAPES = ("llama-3.2-1b", "llama-3.1-8b", "llama-3.3-70b")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/batch.py", description=__doc__)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--limit", type=float, default=20.0, help="seconds that the solver may take for a case"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: list[tuple[int, int, float]] = []
    for number in range(options.cases):
        case = Case.drawn(random.Random(options.seed * 1000 + number))
        began = time.process_time()
        own = case.placed()
        seconds = time.process_time() - began
        found.append((own, case.most(options.limit), seconds))
    own, most = sum(one[0] for one in found), sum(one[1] for one in found)
    Figure(
        "instances placed of the most that OR-tools places, all cases", own / most * 100, 98, "%", "higher"
    ).show(as_json=options.json)
    worst = min(one[0] / one[1] * 100 for one in found if one[1])
    Figure("the same in the worst case", worst, 98, "%", "higher").show(as_json=options.json)
    slowest = max(one[2] for one in found)
    Figure("deciding on the batch, slowest case", slowest, 2, "s").show(as_json=options.json)


@attrs.frozen
class Case:
    """A cluster, and replicas that wait for a place in it."""

    snapshot: Snapshot
    requests: tuple[PlacementRequest, ...]

    @classmethod
    def drawn(cls, rng: random.Random) -> Case:
        workers = [
            worker(key, ram=rng.choice((64, 128, 256)), gpus=_gpus(rng))
            for key in range(1, rng.randint(8, 24) + 1)
        ]
        other = model(900)
        claims = [
            instance(
                10_000 + there.id * 10 + device.index,
                other,
                on=there,
                claim=Claim(ram=GIB, vram={device.index: taken}),
            )
            for there in workers
            for device in there.status.gpu_devices
            if (taken := int(rng.choice((0, 0, rng.random())) * 0.8 * ((device.memory.total or 0) - GIB)))
        ]
        room = sum((device.memory.total or 0) - GIB for one in workers for device in one.status.gpu_devices)
        room -= sum(sum(one.placement.claim.vram.values()) for one in claims if one.placement)
        wanted = rng.uniform(0.8, 1.6) * room
        deployments = [_deployment(rng, key) for key in range(1, rng.randint(4, 10) + 1)]
        requests: list[PlacementRequest] = []
        while wanted > 0:
            of, facts = rng.choice(deployments)
            for _ in range(rng.randint(1, 6)):
                one = ask(of, facts, instance=instance(len(requests) + 1, of))
                requests.append(one)
                wanted -= one.demand.devices((1.0,)).vram[0]
        records = [request.instance for request in requests if request.instance]
        snapshot = world(*workers, other, *(of for of, _ in deployments), *claims, *records)
        return cls(snapshot, tuple(requests))

    def placed(self) -> int:
        """How many get a place here."""
        ready = [
            Ready(one.instance, one.model, FactsResult(facts=one.facts, fault=None, at=0.0))
            for one in self.requests
            if one.instance
        ]
        decided = decide_all(ready, self.snapshot, {}, self.requests[0].gangs)
        return sum(isinstance(one.decision, Placement) for one in decided)

    def most(self, limit: float) -> int:
        """How many get a place at most, as far as the solver finds within ``limit`` seconds."""
        solver, puzzle = cp_model.CpSolver(), cp_model.CpModel()
        kinds = {one.model.id: one for one in self.requests}
        counts = Counter(one.model.id for one in self.requests)
        needs = {key: one.demand.devices((1.0,)) for key, one in kinds.items()}
        chosen: dict[tuple[int, int, int], cp_model.IntVar] = {}
        for there in self.snapshot.workers.values():
            free = self.snapshot.free(there)
            for index, room in free.vram.items():
                for key, need in needs.items():
                    if most := min(counts[key], room // max(need.vram[0], 1)):
                        chosen[key, there.id, index] = puzzle.new_int_var(
                            0, most, f"{key} {there.id} {index}"
                        )
                on_device = [
                    (chosen[at], needs[at[0]].vram[0]) for at in chosen if at[1:] == (there.id, index)
                ]
                _bounded(puzzle, on_device, room)
            on_host = [(count, needs[at[0]].ram) for at, count in chosen.items() if at[1] == there.id]
            _bounded(puzzle, on_host, free.ram or 0)
        for key in kinds:
            puzzle.add(sum(count for at, count in chosen.items() if at[0] == key) <= counts[key])
        puzzle.maximize(sum(chosen.values()))
        solver.parameters.max_time_in_seconds = limit
        outcome = solver.solve(puzzle)
        assert outcome in (cp_model.OPTIMAL, cp_model.FEASIBLE), solver.status_name(outcome)
        return round(solver.objective_value)


def _bounded(puzzle: cp_model.CpModel, parts: Sequence[tuple[cp_model.IntVar, int]], room: int) -> None:
    """What is chosen of ``parts`` fits. Whole MiB, the rest of each left out in the solver's favour."""
    if parts:
        puzzle.add(sum(chosen * (size >> 20) for chosen, size in parts) <= room >> 20)


def _gpus(rng: random.Random) -> list[object]:
    size = rng.choice(SIZES)
    return [gpu(index, size) for index in range(rng.choice((1, 2, 4, 8)))]


def _deployment(rng: random.Random, key: int) -> tuple[Model, ModelFacts]:
    parameters = (
        "-ts",
        "1",
        "--parallel",
        str(rng.choice((1, 2, 4))),
        "-c",
        str(rng.choice((4096, 16384, 65536))),
    )
    return model(key, cpu_offloading=False, backend_parameters=parameters), facts_of(rng.choice(SHAPES))


if __name__ == "__main__":
    main()
