"""Replicas and their logs, as GPUStack 2.x shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import NotFound

from ...request import is_whole
from ..cluster import IN_CLUSTER
from ..face import Face
from ..translation import Difference, Doc, Reading, Translation
from . import models


def _gpu_type(document: Doc, snapshot: Snapshot) -> str | None:
    worker, used = snapshot.get(Worker, document.get("worker_id")), document.get("gpu_indexes") or ()
    devices = () if worker is None else worker.status.gpu_devices
    return next((device.type for device in devices if device.index in used), None)


def _backend(document: Doc, snapshot: Snapshot) -> Any:
    model = snapshot.get(Model, document.get("model_id"))
    if model is None:
        return None
    return models.TRANSLATION.show({"backend": model.backend}, snapshot)["backend"]


def _version(document: Doc, snapshot: Snapshot) -> str | None:
    model = snapshot.get(Model, document.get("model_id"))
    return None if model is None else model.backend_version


def _mounted(document: Doc, snapshot: Snapshot) -> list[Doc]:
    return [{"lora_name": name} for name in document.get("lora_adapters") or ()]


def _member(value: str, reading: Reading) -> Iterable[tuple[str, str]]:
    """Which member's log is wanted: theirs is named by the worker's number, ours by its name."""
    if not value:
        return ()
    worker = reading.snapshot.get(Worker, int(value)) if is_whole(value) else None
    if worker is None:
        raise NotFound(f"Worker {value[:40]!r} does not exist")
    return (("member", worker.name),)


_TRANSLATION = Translation(
    differences=(
        IN_CLUSTER,
        Difference("worker_advertise_address", shows=lambda document, snapshot: document.get("worker_ip")),
        Difference("gpu_type", shows=_gpu_type),
        Difference("backend", shows=_backend),
        Difference("backend_version", shows=_version),
        Difference("mounted_loras", shows=_mounted),
    ),
)

FACES = (
    Face(path="/v1/model-instances", translation=_TRANSLATION, views=("ModelInstance",)),
    Face(path="/v1/model-instances/{id}/logs", parameters={"worker_id": _member}),
)
