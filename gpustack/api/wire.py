"""How records look on the wire: the one place where the program's names become those of the published API."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.domain.access import ApiKey, Session, User
from gpustack.domain.artifact import ModelFile, ModelSource
from gpustack.domain.backend import InferenceBackend
from gpustack.domain.device import Device, DeviceId
from gpustack.domain.instance import NO_ADDRESS, Claim, ModelInstance, Placement, Subordinate, status_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.load import UNKNOWN_LOAD, DeviceLoad
from gpustack.domain.memory_use import MemoryPlan, MemoryRecord
from gpustack.domain.model import Category, Model, ModelAccess
from gpustack.domain.record import Record
from gpustack.domain.worker import Worker, WorkerState
from gpustack.policy.drain_plan import DrainProgress, drain_progress
from gpustack.policy.waiting import wait_of

from .load_document import device_loads, show_device_load, show_host_load
from .shape import (
    Array,
    AttrsObject,
    Boolean,
    Choice,
    Document,
    Instant,
    Integer,
    JsonShape,
    Nullable,
    Number,
    Text,
    shape_of,
)
from .view import Doc, RenderContext, View, fields_of, plain, plain_but


def _shapes(cls: type[Any], *hidden: str) -> dict[str, JsonShape]:
    hints = typing.get_type_hints(cls)
    names = [field.name for field in attrs.fields(cls) if field.name not in hidden]
    return {name: shape_of(hints[name]) for name in names}


_DATES: Mapping[str, JsonShape] = {"created_at": Nullable(Instant()), "updated_at": Nullable(Instant())}
_COMMON = ("version", "created_at", "updated_at")


def _dates(record: Record) -> Doc:
    return {"created_at": record.created_at, "updated_at": record.updated_at}


# --- sources: flattened into the object that has one

SOURCE_FIELDS: tuple[str, ...] = (
    "huggingface_repo_id",
    "huggingface_filename",
    "ollama_library_model_name",
    "model_scope_model_id",
    "model_scope_file_path",
    "local_path",
)
_SOURCE = _shapes(ModelSource, "kind", "revision")
_SOURCE_SHAPES: dict[str, JsonShape] = {
    "source": shape_of(typing.get_type_hints(ModelSource)["kind"]),
    **{name: _SOURCE[name] for name in SOURCE_FIELDS},
    "revision": Nullable(Text()),
}


def source_document(source: ModelSource) -> Doc:
    """The fields of a source, which stand flat beside the other fields of the object that has it."""
    return {
        "source": source.kind.value,
        **{name: getattr(source, name) for name in (*SOURCE_FIELDS, "revision")},
    }


# --- users and keys

_USER = _shapes(User, "hashed_password", *_COMMON)
_KEY = _shapes(ApiKey, "access_key", "secret_hash", "allowed_models", *_COMMON)

USER = View(
    schema=Document(name="User", fields={**_USER, **_DATES}, note="An account."),
    of=lambda user, context: {**fields_of(user, _USER), **_dates(user)},
)
API_KEY = View(
    schema=Document(
        name="ApiKey",
        fields={**_KEY, "allowed_model_names": Nullable(Array(Text())), **_DATES},
        note="A key; its secret is not kept. Without scopes or names of models it may do all that its owner may.",
    ),
    of=lambda key, context: {
        **fields_of(key, _KEY),
        "allowed_model_names": plain(key.allowed_models),
        **_dates(key),
    },
)


_SESSION = _shapes(Session, "token_hash", "logout_hint", *_COMMON)
SESSION = View(
    schema=Document(
        name="Session",
        fields={**_SESSION, **_DATES},
        note="A login of a browser. It is renewed as long as it is used.",
    ),
    of=lambda session, context: {**fields_of(session, _SESSION), **_dates(session)},
)


# --- backends of administrators

_BACKEND = _shapes(InferenceBackend, *_COMMON)
BACKEND = View(
    schema=Document(
        name="InferenceBackend",
        fields={**_BACKEND, "used_by": Array(Text()), **_DATES},
        note="An engine as an administrator described it. used_by: the names of the deployments that run it.",
    ),
    of=lambda backend, context: {
        **fields_of(backend, _BACKEND),
        "used_by": sorted(
            model.name for model in context.snapshot.models.values() if model.backend == backend.name
        ),
        **_dates(backend),
    },
)


# --- models

CATEGORY_FLAGS: Mapping[str, Category] = {
    "embedding_only": Category.EMBEDDING,
    "image_only": Category.IMAGE,
    "reranker": Category.RERANKER,
    "speech_to_text": Category.SPEECH_TO_TEXT,
    "text_to_speech": Category.TEXT_TO_SPEECH,
}
"""Deprecated fields, each true when ``categories`` has that category."""

_MODEL = _shapes(Model, "source", "access", "allowed_user_ids", "lora_adapters", *_COMMON)
_ADAPTERS: Mapping[str, JsonShape] = {
    "lora_adapters": Array(Document(name="LoraAdapter", fields={"name": Text(), **_SOURCE_SHAPES}))
}
_ACCESS: Mapping[str, JsonShape] = {"access_policy": Choice(ModelAccess), "allowed_users": Array(Integer())}


def _model(model: Model, context: RenderContext) -> Doc:
    flags = {name: category.value in model.categories for name, category in CATEGORY_FLAGS.items()}
    access = {"access_policy": model.access.value, "allowed_users": list(model.allowed_user_ids or ())}
    return {
        **fields_of(model, _MODEL),
        **source_document(model.source),
        "lora_adapters": [
            {"name": adapter.name, **source_document(adapter.source)} for adapter in model.lora_adapters
        ],
        **access,
        **flags,
        **_dates(model),
    }


MODEL = View(
    schema=Document(
        name="Model",
        fields={
            **_MODEL,
            **_SOURCE_SHAPES,
            **_ADAPTERS,
            **_ACCESS,
            **dict.fromkeys(CATEGORY_FLAGS, Boolean()),
            **_DATES,
        },
        note="A deployment. Its name is what OpenAI clients call it; an adapter of it is called <name>:<adapter>.",
    ),
    of=_model,
)

_PUBLIC = ("id", "name", "description", "meta", "replicas", "ready_replicas", "categories")
MODEL_FOR_USERS = View(
    schema=Document(
        name="ModelSummary",
        fields={**{name: _MODEL[name] for name in _PUBLIC}, **_DATES},
        note="What people who may use a model, but not manage it, see of it.",
    ),
    of=lambda model, context: {**fields_of(model, _PUBLIC), **_dates(model)},
)


def openai_model(model: Model, *, with_meta: bool) -> Doc:
    """An element of OpenAI's list of models; ``created`` is in seconds since 1970."""
    created = 0 if model.created_at is None else int(model.created_at.timestamp())
    made = {"id": model.name, "object": "model", "created": created, "owned_by": "gpustack"}
    return {**made, "meta": plain(model.meta) if with_meta else None}


# --- instances

_INSTANCE = _shapes(ModelInstance, "source", "placement", "reserved", "members", "ended", *_COMMON)


def _claim(claim: Claim) -> Doc:
    made: Doc = plain(claim)
    return made if claim.tensor_split else {k: v for k, v in made.items() if k != "tensor_split"}


def _addresses(found: tuple[str | None, ...]) -> list[str] | None:
    """As the existing product writes them: of a device whose network is down, dashes."""
    return [address or NO_ADDRESS for address in found] or None


def _distributed(instance: ModelInstance, placement: Placement, context: RenderContext) -> Doc | None:
    """The followers of a gang: ``delegated`` where the main process itself uses the devices of others (llama.cpp over
    RPC, Ray), ``initialize_later`` where each has a process that joins it."""
    if not placement.subordinates:
        return None
    over_rpc = bool(placement.claim.tensor_split)  # no other engine divides by layers
    members = enumerate(placement.subordinates, start=1)
    return {
        "mode": "delegated" if over_rpc or context.ray else "initialize_later",
        "download_model_files": not over_rpc,
        "subordinate_workers": [_subordinate(instance, number, share, context) for number, share in members],
    }


def _subordinate(instance: ModelInstance, number: int, share: Subordinate, context: RenderContext) -> Doc:
    worker, status = context.worker(share.worker_id), status_of(instance, number)
    return {
        "worker_id": share.worker_id,
        "worker_name": worker.name if worker is not None else share.worker_name or None,
        "worker_ip": None if worker is None else worker.ip,
        "total_gpus": None if worker is None else len(worker.status.gpu_devices),
        "gpu_indexes": list(share.gpu_indexes),
        "gpu_addresses": _addresses(share.gpu_addresses),
        "computed_resource_claim": _claim(share.claim),
        "download_progress": status.download_progress,
        "pid": status.pid,
        "ports": list(status.ports),
        "arguments": None,
        "state": status.state.value,
        "state_message": status.state_message,
    }


def _instance(instance: ModelInstance, context: RenderContext) -> Doc:
    placement, worker = instance.placement, context.worker(instance.worker_id)
    wait = wait_of(instance, context.snapshot, silence_allowed=context.silence_allowed)
    return {
        **fields_of(instance, _INSTANCE),
        **source_document(instance.source),
        "worker_id": instance.worker_id,
        "worker_name": None if worker is None else worker.name,
        "worker_ip": None if worker is None else worker.ip,
        "computed_resource_claim": None if placement is None else _claim(placement.claim),
        "gpu_indexes": None if placement is None else list(placement.gpu_indexes),
        "gpu_addresses": None if placement is None else _addresses(placement.gpu_addresses),
        "distributed_servers": None if placement is None else _distributed(instance, placement, context),
        "placement_note": "" if placement is None else placement.note,
        "waits_for": None if wait is None else wait.sentence,
        "waits_until": None if wait is None else wait.until,
        "memory_plan": None if placement is None or placement.memory is None else plain(placement.memory),
        **_dates(instance),
    }


_SHARE = Document(
    name="SubordinateWorker",
    fields={
        "worker_id": Integer(),
        "worker_name": Nullable(Text()),
        "worker_ip": Nullable(Text()),
        "total_gpus": Nullable(Integer()),
        "gpu_indexes": Array(Integer()),
        "gpu_addresses": Nullable(Array(Text())),
        "computed_resource_claim": shape_of(Claim),
        "download_progress": Nullable(Number()),
        "pid": Nullable(Integer()),
        "ports": Array(Integer()),
        "arguments": Nullable(Array(Text())),
        "state": Choice(InstanceState),
        "state_message": Text(),
    },
    note="A follower of an instance that runs on several workers; over RPC one for each device of another worker.",
)
INSTANCE = View(
    schema=Document(
        name="ModelInstance",
        fields={
            **_INSTANCE,
            **_SOURCE_SHAPES,
            "worker_id": Nullable(Integer()),
            "worker_name": Nullable(Text()),
            "worker_ip": Nullable(Text()),
            "computed_resource_claim": Nullable(shape_of(Claim)),
            "gpu_indexes": Nullable(Array(Integer())),
            "gpu_addresses": Nullable(Array(Text())),
            "distributed_servers": Nullable(
                Document(
                    name="DistributedServers",
                    fields={
                        "mode": Text(),
                        "download_model_files": Boolean(),
                        "subordinate_workers": Array(_SHARE),
                    },
                )
            ),
            "placement_note": Text(),
            "waits_for": Nullable(Text()),
            "waits_until": Nullable(Instant()),
            "memory_plan": Nullable(shape_of(MemoryPlan)),
            **_DATES,
        },
        note="One replica of a model. Byte counts of its claim are estimates unless a user fixed them. "
        "memory_plan tells term by term how they came about; memory is what the engine was found to take.",
    ),
    of=_instance,
)


_MEMORY_RECORD = _shapes(MemoryRecord, "key", *_COMMON)
MEMORY_RECORD = View(
    schema=Document(
        name="MemoryRecord",
        fields={**_MEMORY_RECORD, **_DATES},
        note="What the last runs of one kind took of memory, beside what was estimated for them, in bytes by term.",
    ),
    of=lambda record, context: {**fields_of(record, _MEMORY_RECORD), **_dates(record)},
)


# --- workers and their devices

_WORKER = _shapes(
    Worker,
    "status",
    "condition",
    "credential_hash",
    "former_credential_hash",
    "heartbeat_time",
    "leaving",
    "drain_total",
    "metrics_port",
    "version_running",
    *_COMMON,
)


def _device_document(device: Device, load: DeviceLoad, allocated: int) -> Doc:
    made: Doc = plain(device)
    show_device_load(made, load)
    made["memory"]["allocated"] = allocated
    # Workers of former versions send an empty object, in which clients would look for numbers.
    made["core"] = made.get("core") or None
    return made


def _worker(worker: Worker, context: RenderContext) -> Doc:
    claims = context.allocated(worker.id)
    load, devices = context.load(worker.id) or UNKNOWN_LOAD, worker.status.gpu_devices
    status = plain_but(worker.status, "gpu_devices")
    show_host_load(status, load)
    status["memory"]["allocated"] = claims.ram
    status["gpu_devices"] = [
        _device_document(device, measured, claims.vram.get(device.index, 0))
        for device, measured in zip(devices, device_loads(load, len(devices)), strict=True)
    ]
    return {
        **fields_of(worker, _WORKER),
        "metrics_port": -1 if worker.metrics_port is None else worker.metrics_port,
        "state": worker.condition.state.value,
        "state_message": worker.condition.why,
        "state_since": worker.condition.since,
        "unreachable": worker.condition.state is WorkerState.UNREACHABLE,
        "status": status,
        "drain": plain(drain_progress(worker, context.snapshot)) if worker.draining else None,
        "heartbeat_time": context.heard(worker.id) or worker.heartbeat_time,
        "version": worker.version_running,
        **_dates(worker),
    }


WORKER = View(
    schema=Document(
        name="Worker",
        fields={
            **_WORKER,
            "metrics_port": Integer(),
            "state": Choice(WorkerState),
            "state_message": Text(),
            "state_since": Nullable(Instant()),
            "unreachable": Boolean(),
            "status": shape_of(typing.get_type_hints(Worker)["status"]),
            "drain": Nullable(AttrsObject(DrainProgress)),
            "heartbeat_time": Nullable(Instant()),
            "version": Text(),
            **_DATES,
        },
        note="A machine of the cluster. What it could not measure is left out of its status.",
    ),
    of=_worker,
)


@attrs.frozen(kw_only=True)
class Gpu:
    """A device together with its worker: a row of the flat list of accelerators."""

    worker: Worker
    device: Device
    number: int
    """Its place among the devices of the worker."""

    @property
    def id(self) -> str:
        return str(DeviceId(self.worker.name, self.device.type, self.device.index))


def gpus_of(worker: Worker) -> tuple[Gpu, ...]:
    devices = enumerate(worker.status.gpu_devices)
    return tuple(Gpu(worker=worker, device=device, number=number) for number, device in devices)


def _gpu(gpu: Gpu, context: RenderContext) -> Doc:
    worker, claims = gpu.worker, context.allocated(gpu.worker.id)
    loads = device_loads(context.load(worker.id) or UNKNOWN_LOAD, len(worker.status.gpu_devices))
    return {
        "id": gpu.id,
        **dict.fromkeys(_DEVICE),
        **_device_document(gpu.device, loads[gpu.number], claims.vram.get(gpu.device.index, 0)),
        "worker_id": worker.id,
        "worker_name": worker.name,
        "worker_ip": worker.ip,
        **_dates(worker),
    }


_DEVICE = _shapes(Device)
GPU = View(
    schema=Document(
        name="GpuDevice",
        fields={
            "id": Text(),
            **_DEVICE,
            "worker_id": Integer(),
            "worker_name": Text(),
            "worker_ip": Text(),
            **_DATES,
        },
        note="An accelerator, named <worker>:<type>:<index>. memory.allocated is claimed, memory.used is measured. "
        "memory.foreign is used by other programs, memory.overrun by engines beyond their claims; neither is free.",
    ),
    of=_gpu,
)


# --- model files

_FILE = _shapes(ModelFile, "source", *_COMMON)
_ETA: Mapping[str, JsonShape] = {"download_eta": Nullable(Number())}
FILE = View(
    schema=Document(
        name="ModelFile",
        fields={**_FILE, **_ETA, **_SOURCE_SHAPES, **_DATES},
        note="The files of one source on one worker. download_speed is in bytes a second, download_eta in seconds;"
        " fetched_from is hub, or the name of the worker that most of the bytes came from.",
    ),
    of=lambda file, context: {
        **fields_of(file, _FILE),
        "download_eta": file.eta,
        **source_document(file.source),
        **_dates(file),
    },
)
