"""Resources that GPUStack 2.x has as we do, but for the cluster that they are in."""

from __future__ import annotations

from typing import Any

from gpustack.domain.snapshot import Snapshot

from ...deployment import MODEL_BODY
from ..cluster import IN_CLUSTER
from ..face import Face
from ..translation import Difference, Doc, Reading, Translation
from . import models


def _counts(document: Doc, snapshot: Snapshot) -> Any:
    return {**(document.get("resource_counts") or {}), "cluster_count": 1}


def _specs(value: Any, reading: Reading) -> Doc:
    if not isinstance(value, list):
        return {"model_specs": value}
    translated = [
        models.TRANSLATION.read(spec, MODEL_BODY, reading) if isinstance(spec, dict) else spec
        for spec in value
    ]
    return {"model_specs": translated}


FACES = (
    Face(path="/v1/model-files", views=("ModelFile",)),
    Face(path="/v1/gpu-devices", translation=Translation(differences=(IN_CLUSTER,)), views=("GpuDevice",)),
    Face(path="/v1/model-sets"),
    Face(
        path="/v1/model-evaluations",
        translation=Translation(differences=(IN_CLUSTER, Difference("model_specs", _specs))),
    ),
    Face(
        path="/v1/dashboard",
        translation=Translation(differences=(Difference("resource_counts", shows=_counts),)),
        views=("Dashboard",),
    ),
)
