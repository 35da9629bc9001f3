"""Small deployments for tests of engines: a model, where it was placed, and the build that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild
from gpustack.engines.engine import LaunchContext

GGUF = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/m.gguf")
EMBEDDED = EngineBuild(engine="llama.cpp", version="2026.10", origin="embedded xllamacpp 2026.10")
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
    **fields: Any,
) -> LaunchContext:
    placement = placement or Placement(worker_id=1, gpu_indexes=gpus, claim=claim or Claim())
    instance = ModelInstance(
        id=1, name="m-abcde", model_id=1, model_name="m", source=deployed.source, placement=placement
    )
    given: Mapping[str, Any] = {"model_path": "/models/m.gguf", "port": 40000, "data_dir": "/data", **fields}
    return LaunchContext(model=deployed, instance=instance, placement=placement, build=build, **given)
