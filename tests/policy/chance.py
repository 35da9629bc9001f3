"""Worlds by a seed: a few workers of a few kinds with claims on them, and a deployment that nearly fits there."""

from __future__ import annotations

import datetime
import random

import attrs

from gpustack.domain.device import DeviceMemory
from gpustack.domain.instance import Claim
from gpustack.domain.model import GpuSelector, Model, PlacementStrategy
from gpustack.domain.record import Record
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, Memory, SystemReserved, Worker, WorkerState, WorkerStatus
from gpustack.policy.placement import PlacementRequest

from .shapes import facts_of
from .test_equal_gang import BUILD as VLLM
from .test_safetensors_placement import SOURCE, facts
from .worlds import CPU_BUILD, CUDA_BUILD, RPC_BUILD, ask, gpu, instance, model, worker, world

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SHAPES = ("llama-3.2-1b", "llama-3.1-8b", "gemma-3-4b", "qwen3-0.6b", "llama-3.3-70b")
_SILENT = Condition(state=WorkerState.NOT_READY, why="not heard for 60 s")


@attrs.frozen
class World:
    """A snapshot, and a replica that waits in it."""

    snapshot: Snapshot
    request: PlacementRequest


def world_of(seed: int, *, most: int = 5) -> World:
    """The same seed gets the same world."""
    rng = random.Random(seed)
    kinds = [_worker(rng, 1) for _ in range(rng.randint(1, 3))]
    fleet = [_alike(rng, rng.choice(kinds), key) for key in range(1, rng.randint(1, most) + 1)]
    request = replica(rng, 1)
    return World(world(*fleet, *taken(fleet, rng), request.model), request)


def replica(rng: random.Random, key: int) -> PlacementRequest:
    """A deployment of a usual kind with a few parameters, and its replica."""
    fields = {
        "placement_strategy": rng.choice(list(PlacementStrategy)),
        "cpu_offloading": rng.choice([None, False, False]),
        "distributed_inference_across_workers": rng.choice([None, False, False]),
        "worker_selector": {"zone": "a"} if rng.random() < 0.15 else {},
        "replicas": rng.randint(1, 3),
    }
    if rng.random() < 0.3:
        given = rng.choice([(), ("-tp=2",), ("--max-model-len", "32768"), ("--max-model-len=100000",)])
        of = model(key, source=SOURCE, backend="vllm", backend_parameters=given, **fields)
        known = facts(rng.choice([4, 16, 40]))
        return ask(of, known, engine_name="vllm", instance=instance(1000 + key, of))
    if rng.random() < 0.15:
        fields["gpu_selector"] = GpuSelector(gpu_ids=("n1:cuda:0",))
    context = ("-c", str(rng.choice([4096, 20000, 65536, 131072])))
    slots = ("-np", str(rng.choice([4, 16, 64])))
    given = rng.choice([(), context, slots, (*context, *slots), (*context, "-kvu"), ("-fa=off", *context)])
    of = model(key, backend_parameters=given, **fields)
    return ask(of, facts_of(rng.choice(SHAPES)), instance=instance(1000 + key, of))


def taken(fleet: list[Worker], rng: random.Random) -> list[Record]:
    """What holds memory there already: replicas of other models, of which some are being ended."""
    others: list[Model] = [model(100 + number, name=f"other{number}") for number in range(3)]
    found: list[Record] = [*others]
    for there in fleet:
        free = Snapshot(1, {}).free(there)
        unified = there.status.memory.is_unified_memory
        for index in (None, *free.vram):
            left = free.ram if index is None else free.vram[index]
            if not left or rng.random() < 0.4 or (unified and index is not None):
                continue
            size = int(left * rng.uniform(0.2, 0.95))
            claim = Claim(ram=size) if index is None else Claim(ram=0, vram={index: size})
            ending = NOW if rng.random() < 0.15 else None
            key = 100 + len(found)
            found.append(instance(key, rng.choice(others), on=there, claim=claim, deleted_at=ending))
    return found


def _worker(rng: random.Random, key: int) -> Worker:
    ram, unified = rng.choice([6, 10, 16, 32, 64]), rng.random() < 0.1
    count = 1 if unified else rng.choice([0, 1, 1, 2, 4])
    size = rng.choice([6, 8, 12, 16, 24, 48])
    gpus = [
        gpu(
            index,
            memory=DeviceMemory(total=(ram if unified else size) * GIB, is_unified_memory=unified),
            fault="it fell off the bus" if rng.random() < 0.05 else None,
        )
        for index in range(count)
    ]
    llama = rng.choice([RPC_BUILD, RPC_BUILD, CUDA_BUILD, CPU_BUILD])
    made = worker(key, ram=ram, gpus=gpus, build=llama)
    engines = (*made.status.engines, *([VLLM] if count else []))
    memory = Memory(total=ram * GIB, is_unified_memory=unified)
    reserved = SystemReserved(ram=rng.randint(0, 4) * GIB, vram=rng.randint(0, 2) * GIB)
    status = attrs.evolve(made.status, memory=memory, engines=engines)
    return attrs.evolve(made, status=status, system_reserved=reserved)


def _alike(rng: random.Random, kind: Worker, key: int) -> Worker:
    fields = {}
    chance = rng.random()
    if chance < 0.08:
        fields["condition"] = _SILENT
    elif chance < 0.16:
        fields["cordoned"] = True
    elif chance < 0.2:
        fields["draining"] = True
    elif chance < 0.24:
        fields["status"] = WorkerStatus()
    return attrs.evolve(
        kind, id=key, name=f"n{key}", worker_uuid=f"u{key}", ip=f"10.0.0.{key}",
        labels={"zone": "a"} if rng.random() < 0.3 else {}, **fields,
    )  # fmt: skip
