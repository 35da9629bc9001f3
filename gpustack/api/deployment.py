"""Reads a deployment from a request body: its source, its fields, and the checks on it, in their published order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import attrs

from gpustack.artifacts.source import source_for
from gpustack.domain.affinity import AntiAffinity, faults_of_anti_affinity
from gpustack.domain.artifact import LoraAdapter, ModelSource, SourceKind
from gpustack.domain.device import DeviceId
from gpustack.domain.model import (
    LEAST_PRIORITY,
    MOST_PRIORITY,
    Category,
    GpuSelector,
    Model,
    ModelAccess,
    PlacementStrategy,
)
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import Toleration, faults_of_toleration
from gpustack.engines import llama_cpp
from gpustack.engines.backend import settled
from gpustack.engines.engine import Engine
from gpustack.engines.program import environment_faults, programs
from gpustack.engines.registry import adapter_faults, engine_for, engines
from gpustack.engines.rerank import template_faults
from gpustack.engines.selection import selection_faults
from gpustack.errors import AlreadyExists, BadRequest, Invalid
from gpustack.policy.estimate.demand import faults_of_claims

from .problems import MalformedRequest
from .shape import (
    LIMITS,
    Array,
    AttrsObject,
    Boolean,
    Choice,
    Dictionary,
    Document,
    Integer,
    JsonShape,
    Nullable,
    Text,
)
from .wire import CATEGORY_FLAGS, SOURCE_FIELDS, source_document

MOST_REPLICAS = 1000
MOST_ADAPTERS = 64
MOST_TOLERATIONS = 100

SOURCE_BODY: Mapping[str, JsonShape] = {
    "source": Choice(SourceKind),
    **{name: Nullable(Text(longest=4096)) for name in (*SOURCE_FIELDS, "revision")},
}

_NEEDED = {
    SourceKind.HUGGING_FACE: "huggingface_repo_id",
    SourceKind.MODEL_SCOPE: "model_scope_model_id",
    SourceKind.OLLAMA: "ollama_library_model_name",
    SourceKind.LOCAL_PATH: "local_path",
}
_OWN_FIELDS = {
    SourceKind.HUGGING_FACE: ("huggingface_repo_id", "huggingface_filename", "revision"),
    SourceKind.MODEL_SCOPE: ("model_scope_model_id", "model_scope_file_path", "revision"),
    SourceKind.OLLAMA: ("ollama_library_model_name",),
    SourceKind.LOCAL_PATH: ("local_path",),
}

MODEL_FIELDS: Mapping[str, JsonShape] = {
    "name": Text(shortest=1, longest=200),
    "description": Nullable(Text()),
    "replicas": Integer(least=0, most=MOST_REPLICAS),
    "categories": Nullable(Array(Choice(Category)), ()),
    "placement_strategy": Choice(PlacementStrategy),
    "priority": Integer(least=LEAST_PRIORITY, most=MOST_PRIORITY),
    "preempts": Boolean(),
    "preemptible": Boolean(),
    "cpu_offloading": Nullable(Boolean()),
    "distributed_inference_across_workers": Nullable(Boolean()),
    "worker_selector": Nullable(Dictionary(Text()), {}),
    "gpu_selector": Nullable(
        Document(name="GpuSelector", fields={"gpu_ids": Nullable(Array(Text(longest=512)), ())})
    ),
    "backend": Nullable(Text(longest=128)),
    "backend_version": Nullable(Text(longest=128)),
    "backend_parameters": Nullable(Array(Text(longest=8192), 500), ()),
    "command": Nullable(Text(longest=32768)),
    "health_path": Nullable(Text(longest=2048)),
    "env": Nullable(Dictionary(Text(longest=32768, secret=True)), {}),
    "restart_on_error": Boolean(),
    "lora_adapters": Nullable(
        Array(
            Document(
                name="LoraAdapterBody",
                fields={"name": Text(shortest=1, longest=100), **SOURCE_BODY},
                required=("name", "source"),
            ),
            MOST_ADAPTERS,
        ),
        (),
    ),
    "labels": Nullable(Dictionary(Text(longest=1024)), {}),
    "tolerations": Nullable(Array(AttrsObject(Toleration, strict=True), MOST_TOLERATIONS), ()),
    "anti_affinity": Nullable(AttrsObject(AntiAffinity, strict=True)),
    "limits": LIMITS,
    "access_policy": Choice(ModelAccess),
    "allowed_users": Nullable(Array(Integer(least=1)), ()),
}
"""The fields of a model that clients may write."""

MODEL_BODY: Mapping[str, JsonShape] = {
    **MODEL_FIELDS,
    **SOURCE_BODY,
    **dict.fromkeys(CATEGORY_FLAGS, Nullable(Boolean())),
}

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def source_from(document: Mapping[str, Any], before: ModelSource | None = None) -> ModelSource:
    """The source that a document names; fields that it does not set are those of ``before``.

    Fields of other kinds of sources are ignored, since clients send whole forms. Raises ``MalformedRequest``.
    """
    known = {} if before is None else source_document(before)
    given = {**known, **{name: value for name, value in document.items() if name in SOURCE_BODY}}
    kind = SourceKind(given["source"])
    fields = {name: (given.get(name) or "").strip() or None for name in _OWN_FIELDS[kind]}
    needed = _NEEDED[kind]
    if fields[needed] is None:
        raise MalformedRequest(f"{needed}: must be provided when source is {kind.value}")
    local = fields.get("local_path")
    if local is not None and not _is_absolute(local):
        raise MalformedRequest(f"local_path: must be an absolute path, not {local!r}")
    return ModelSource(kind=kind, **fields)


def _is_absolute(path: str) -> bool:
    return PurePosixPath(path).is_absolute() or re.match(r"[A-Za-z]:[\\/]", path) is not None


def model_from(document: Mapping[str, Any]) -> Model:
    """A new deployment. Raises ``MalformedRequest``."""
    return Model(**changes_from(document))


def changes_from(document: Mapping[str, Any], before: Model | None = None) -> dict[str, Any]:
    """The fields that a document sets, by their names in ``Model``. Raises ``MalformedRequest``."""
    faults: list[str] = []
    fields = {name: document[name] for name in MODEL_FIELDS if name in document}
    if "name" in fields:
        fields["name"] = _name(fields["name"], faults)
    _rename(fields)
    if "categories" in fields:
        fields["categories"] = tuple(category.value for category in fields["categories"])
    else:
        flagged = tuple(category.value for name, category in CATEGORY_FLAGS.items() if document.get(name))
        fields.update({"categories": flagged} if flagged else {})
    for name in fields.get("env", ()):
        if not _ENV_NAME.fullmatch(name):
            faults.append(f"env: {name!r} is not a name of an environment variable")
    faults.extend(faults_of_claims(fields.get("env", {})))
    faults.extend(template_faults(fields.get("env", {})))
    faults.extend(_faults_of_policies(fields))
    if "lora_adapters" in fields:
        fields["lora_adapters"] = _adapters(fields["lora_adapters"], faults)
    if before is None or any(name in document for name in SOURCE_BODY):
        try:
            fields["source"] = source_from(document, None if before is None else before.source)
        except MalformedRequest as error:
            faults.extend(error.faults)
    if faults:
        raise MalformedRequest(*faults)
    return fields


def _faults_of_policies(fields: dict[str, Any]) -> list[str]:
    """What is wrong with what is said of other deployments and workers; an anti-affinity without terms is none."""
    faults = [
        f"tolerations: {fault}"
        for one in fields.get("tolerations", ())
        for fault in faults_of_toleration(one)
    ]
    apart: AntiAffinity | None = fields.get("anti_affinity")
    if apart is not None:
        faults += [f"anti_affinity: {fault}" for fault in faults_of_anti_affinity(apart)]
        fields["anti_affinity"] = apart if apart.required or apart.preferred else None
    return faults


_ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _adapters(documents: Sequence[Mapping[str, Any]], faults: list[str]) -> tuple[LoraAdapter, ...]:
    found: dict[str, LoraAdapter] = {}
    for document in documents:
        name = document["name"].strip()
        if not _ADAPTER_NAME.fullmatch(name):
            faults.append(
                f"lora_adapters: {name!r} must be letters, digits, dots, dashes and underscores, as a part of a name"
            )
        if name in found:
            faults.append(f"lora_adapters: two are called {name!r}")
        try:
            found[name] = LoraAdapter(name=name, source=source_from(document))
        except MalformedRequest as error:
            faults.extend(f"lora_adapters: {name}: {fault}" for fault in error.faults)
    return tuple(found.values())


def _rename(fields: dict[str, Any]) -> None:
    if fields.get("gpu_selector") is not None:
        # A selector without ids selects nothing: it is stored as none.
        ids = tuple(fields["gpu_selector"].get("gpu_ids", ()))
        fields["gpu_selector"] = GpuSelector(gpu_ids=ids) if ids else None
    if "access_policy" in fields:
        fields["access"] = fields.pop("access_policy")
    if "allowed_users" in fields:
        fields["allowed_user_ids"] = tuple(sorted(set(fields.pop("allowed_users")))) or None


def _name(text: str, faults: list[str]) -> str:
    name = text.strip()  # databases compare trailing blanks differently
    if not name:
        faults.append("name: must not be empty")
    elif not name.isprintable():
        faults.append("name: must not contain control characters")
    return name


def refuse_wrong(model: Model, snapshot: Snapshot) -> None:
    """Raise for the first check that a deployment fails, in the published order.

    ``Invalid`` for what this version or its engine cannot take at all, ``AlreadyExists`` for its name, then
    ``BadRequest`` for a wrong choice of GPUs, and for parameters that its engine refuses.
    """
    model = settled(model, snapshot.backends.values())
    engine = engine_for(model) if model.backend else _obvious_engine(model)
    if engine is None or engine.fetches(model):
        source_for(model.source.kind)
    if engine is None and (faults := llama_cpp.format_faults(model)):
        raise Invalid(*faults)
    document_faults: list[str] = []
    if engine is not None:
        bare = attrs.evolve(model, backend_parameters=(), gpu_selector=None)
        document_faults = engine.faults(bare)
        document_faults += adapter_faults(engine, model)
        document_faults += environment_faults(model, programs().get(engine.name))
    if document_faults:
        raise MalformedRequest(*document_faults)
    holder = snapshot.find(Model, name=model.name)
    if holder is not None and holder.id != model.id:
        advice = "Please choose a different name or check the existing model."
        raise AlreadyExists(f"Model '{model.name}' already exists. {advice}")
    if model.replicas > 0:
        refuse_wrong_gpus(model, snapshot)
        if engine is not None:
            _refuse_unfit_gpus(engine, model, snapshot)
    if engine is not None and (faults := engine.faults(model)):
        raise BadRequest("\n".join(faults))


def _obvious_engine(model: Model) -> Any:
    """The engine that follows from the source alone; others are known only from the files of the model."""
    return next((engine for engine in engines() if engine.serves(model, None)), None)


def _refuse_unfit_gpus(engine: Engine, model: Model, snapshot: Snapshot) -> None:
    """Raise ``BadRequest`` for GPUs that the engine cannot use, or not together."""
    chosen = model.gpu_selector.gpu_ids if model.gpu_selector else ()
    systems = {worker.name: worker.labels.get("os") for worker in snapshot.workers.values()}
    if faults := selection_faults(engine, model, [DeviceId.parse(text) for text in chosen], systems):
        raise BadRequest("\n".join(faults))


def refuse_wrong_gpus(model: Model, snapshot: Snapshot) -> None:
    """Raise ``BadRequest`` for a GPU id that is malformed, names no worker, or is given twice."""
    chosen = model.gpu_selector.gpu_ids if model.gpu_selector else ()
    names = {worker.name for worker in snapshot.workers.values()}
    for text in chosen:
        try:
            device = DeviceId.parse(text)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        if device.worker not in names:
            raise BadRequest(f"Worker {device.worker!r} of GPU id {text!r} does not exist")
    if len(set(chosen)) != len(chosen):
        raise BadRequest("gpu_selector names a GPU twice")
