"""Small clusters for decisions: workers with and without GPUs, models, and what already runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.record import Record, table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.worker import (
    Condition,
    EngineBuild,
    Memory,
    SystemReserved,
    Worker,
    WorkerState,
    WorkerStatus,
)
from gpustack.policy.placement import PlacementRequest

GGUF = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/m.gguf")
CPU_BUILD = EngineBuild(
    engine="llama.cpp", origin="embedded xllamacpp 1", advice="Install a wheel built for CUDA"
)
CUDA_BUILD = EngineBuild(engine="llama.cpp", origin="configured", path="/opt/llama-server", drives=("cuda",))
RPC_BUILD = attrs.evolve(
    CUDA_BUILD, version="8000", digest="d" * 64, rpc=True, rpc_server="/opt/ggml-rpc-server"
)
RPC_CPU_BUILD = attrs.evolve(RPC_BUILD, drives=())
CUSTOM = EngineBuild(engine="custom", origin="any command")
RESERVED = SystemReserved(ram=2 * GIB, vram=1 * GIB)


def gpu(index: int, gib: float = 24, **fields: Any) -> Device:
    memory = DeviceMemory(total=int(gib * GIB))
    return Device(
        **{"index": index, "name": "G", "vendor": "NVIDIA", "type": "cuda", "memory": memory, **fields}
    )


def worker(
    key: int = 1,
    *,
    ram: float = 64,
    gpus: Iterable[Device] = (),
    build: EngineBuild | None = None,
    **fields: Any,
) -> Worker:
    devices = tuple(gpus)
    status = WorkerStatus(
        memory=Memory(total=int(ram * GIB)),
        gpu_devices=devices,
        engines=(build or (CUDA_BUILD if devices else CPU_BUILD), CUSTOM),
    )
    usual = {
        "id": key,
        "name": f"node-{chr(96 + key)}",
        "worker_uuid": f"uuid-{key}",
        "ip": f"10.0.0.{key}",
        "status": status,
        "system_reserved": RESERVED,
        "condition": Condition(state=WorkerState.READY),
    }
    return Worker(**{**usual, **fields})


def model(key: int = 1, **fields: Any) -> Model:
    return Model(**{"id": key, "name": f"m{key}", "source": GGUF, **fields})


def instance(
    key: int, of: Model, *, on: Worker | int | None = None, claim: Claim | None = None, **fields: Any
) -> ModelInstance:
    placement = None
    if on is not None:
        held = claim or Claim()
        worker_id = on if isinstance(on, int) else on.id
        placement = Placement(worker_id=worker_id, gpu_indexes=tuple(held.vram), claim=held)
    usual = {
        "id": key,
        "name": f"{of.name}-{key}",
        "model_id": of.id,
        "model_name": of.name,
        "source": of.source,
        "generation": of.generation,
        "placement": placement,
        "state": InstanceState.PENDING if placement is None else InstanceState.RUNNING,
    }
    return ModelInstance(**{**usual, **fields})


def world(*records: Record) -> Snapshot:
    tables: dict[str, dict[int, Record]] = {}
    for record in records:
        tables.setdefault(table_of(type(record)), {})[record.id] = record
    return Snapshot(revision=1, tables=tables)


def ask(of: Model, facts: ModelFacts | None = None, **fields: Any) -> PlacementRequest:
    return PlacementRequest(**{"model": of, "facts": facts, "engine_name": "llama.cpp", **fields})
