"""Small deployments for tests of engines: a model, where it was placed, and the build that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import Claim, ModelInstance, Placement, Subordinate
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild
from gpustack.engines.engine import Gang, GangMember, LaunchContext

GGUF = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/m.gguf")
EMBEDDED = EngineBuild(engine="llama.cpp", version="2026.10", origin="embedded xllamacpp 2026.10")
FOLDER = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="org/model")
VLLM = EngineBuild(
    engine="vllm",
    version="0.32.0",
    origin="vllm on PATH",
    path="/opt/vllm/bin/vllm",
    python="/opt/vllm/bin/python",
    drives=("cuda",),
)
VLLM_CPU = attrs.evolve(VLLM, version="0.32.0+cpu", drives=())
SERVER = EngineBuild(engine="llama.cpp", version="0.7.0", origin="configured", path="/opt/llama/llama-server")


def model(**fields: Any) -> Model:
    return Model(**{"id": 1, "name": "m", "source": GGUF, **fields})


def context(
    deployed: Model,
    *,
    build: EngineBuild = EMBEDDED,
    gpus: tuple[int, ...] = (),
    claim: Claim | None = None,
    placement: Placement | None = None,
    others: tuple[tuple[int, ...], ...] = (),
    **fields: Any,
) -> LaunchContext:
    """``others`` are the devices of each further worker."""
    placement = placement or Placement(
        worker_id=1,
        gpu_indexes=gpus,
        claim=claim or Claim(),
        subordinates=tuple(
            Subordinate(worker_id=number, gpu_indexes=indexes, claim=claim or Claim())
            for number, indexes in enumerate(others, 2)
        ),
    )
    instance = ModelInstance(
        id=1, name="m-abcde", model_id=1, model_name="m", source=deployed.source, placement=placement
    )
    given: Mapping[str, Any] = {"model_path": "/models/m.gguf", "port": 40000, "data_dir": "/data", **fields}
    return LaunchContext(model=deployed, instance=instance, placement=placement, build=build, **given)


def gang(*devices: tuple[int, ...], main_ports: tuple[int, ...] = (40000, 40001)) -> Gang:
    """Members at 10.0.0.1, 10.0.0.2 ..., with those devices."""
    members = (
        GangMember(
            index=number,
            address=f"10.0.0.{number + 1}",
            ports=() if number else main_ports,
            gpu_indexes=indexes,
        )
        for number, indexes in enumerate(devices)
    )
    return Gang(attempt=1, members=tuple(members))
