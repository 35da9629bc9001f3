"""Brief documents: what lists and bars show of a record, small enough to tell of a whole cluster; made once for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import attrs

from gpustack.domain.artifact import FileState, ModelFile, SourceKind
from gpustack.domain.device import Device
from gpustack.domain.instance import Claim, ModelInstance, summed
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.load import UNKNOWN_LOAD, DeviceLoad, WorkerLoad
from gpustack.domain.model import Model, ModelAccess
from gpustack.domain.record import Change, ChangeKind, Record, table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import Taint
from gpustack.domain.worker import Worker, WorkerState
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.drain_plan import drain_progress
from gpustack.policy.model_state import ModelState, States, counted, model_state
from gpustack.server.live_status import LiveStatus
from gpustack.server.model_rates import ModelRate

from .load_document import device_loads
from .shape import (
    Array,
    AttrsObject,
    Boolean,
    Choice,
    Dictionary,
    Document,
    Instant,
    Integer,
    JsonShape,
    Number,
    Text,
)
from .view import Doc, dumps, plain

LONGEST_MESSAGE = 300
"""Characters of a message; the full resource has all of it."""


class BriefKind(StrEnum):
    """The kinds of records that there are brief documents of, named as in the paths of the API. In this order a replay
    tells them, so that what a document refers to has been told."""

    MODELS = "models"
    WORKERS = "workers"
    INSTANCES = "model-instances"
    FILES = "model-files"


CLASSES: Mapping[BriefKind, type[Record]] = {
    BriefKind.MODELS: Model,
    BriefKind.WORKERS: Worker,
    BriefKind.INSTANCES: ModelInstance,
    BriefKind.FILES: ModelFile,
}
KIND_OF_TABLE: Mapping[str, BriefKind] = {table_of(cls): kind for kind, cls in CLASSES.items()}

_NO_STATES: States = MappingProxyType({})


@attrs.define(eq=False, repr=False)
class StateTally:
    """How many instances of each model are in each state, kept up to date by every change of one."""

    _by_model: dict[int, States] = attrs.field(factory=dict)

    def of(self, model_id: int) -> States:
        """Of one model; another object only after it has changed."""
        return self._by_model.get(model_id, _NO_STATES)

    def restart(self, instances: Iterable[ModelInstance]) -> None:
        """Count all anew."""
        made: dict[int, dict[InstanceState, int]] = {}
        for instance in instances:
            state = counted(instance)
            if state is not None:
                of_model = made.setdefault(instance.model_id, {})
                of_model[state] = of_model.get(state, 0) + 1
        self._by_model = {**made}

    def follow(self, change: Change) -> bool:
        """Count the change of an instance; returns whether that made a difference."""
        instance = change.record
        assert isinstance(instance, ModelInstance)
        before = change.before if isinstance(change.before, ModelInstance) else None
        was = counted(before)
        now = None if change.kind is ChangeKind.DELETED else counted(instance)
        if was is now:
            return False
        states = dict(self.of(instance.model_id))
        for state, step in ((was, -1), (now, 1)):
            if state is not None:
                states[state] = states.get(state, 0) + step
        self._by_model[instance.model_id] = {state: count for state, count in states.items() if count > 0}
        return True

    def __repr__(self) -> str:
        return f"<StateTally of {len(self._by_model)} models>"


@attrs.define(eq=False, repr=False)
class BriefDocuments:
    """The brief document of every record as JSON, made anew only when what it is made of has changed."""

    _live: LiveStatus
    _faults: Quarantine
    tally: StateTally = attrs.field(factory=StateTally)
    _known: dict[tuple[BriefKind, int], tuple[tuple[object, ...], bytes]] = attrs.field(factory=dict)

    def text(self, kind: BriefKind, key: int, snapshot: Snapshot) -> bytes | None:
        """The document of a record; ``None`` where there is no such record, or it cannot be shown."""
        record = snapshot.get(CLASSES[kind], key)
        if record is None:
            return None
        made_of = self._made_of(record, snapshot)
        known = self._known.get((kind, key))
        if known is not None and all(one is other for one, other in zip(known[0], made_of, strict=True)):
            return known[1]
        with self._faults.row((kind, key)):
            text = dumps(self._document(record, snapshot))
            self._known[kind, key] = made_of, text
            return text
        return None

    def forget(self, kind: BriefKind, key: int) -> None:
        """The record was deleted."""
        self._known.pop((kind, key), None)

    def keep_only(self, snapshot: Snapshot) -> None:
        """Forget the documents of records that are not in ``snapshot``."""
        for kind, key in [*self._known]:
            if snapshot.get(CLASSES[kind], key) is None:
                del self._known[kind, key]

    def _made_of(self, record: Record, snapshot: Snapshot) -> tuple[object, ...]:
        """The objects that its document is made of: as long as each is the same one, so is the document."""
        match record:
            case Worker():
                return record, snapshot.claims.by_worker.get(record.id), self._live.of(record.id)
            case Model():
                return record, self.tally.of(record.id)
        return (record,)

    def _document(self, record: Record, snapshot: Snapshot) -> Doc:
        match record:
            case Worker():
                return brief_worker(record, snapshot, self._live.of(record.id) or UNKNOWN_LOAD)
            case Model():
                return brief_model(record, self.tally.of(record.id))
            case ModelInstance():
                return brief_instance(record)
        assert isinstance(record, ModelFile)
        return brief_file(record)

    def __repr__(self) -> str:
        return f"<BriefDocuments: {len(self._known)} documents>"


# --- the documents: what is unknown or empty is left out


def _brief(**fields: Any) -> Doc:
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _at(instant: datetime | None) -> datetime | None:
    return None if instant is None else instant.replace(microsecond=0)


def _rate(value: float | None) -> float | None:
    """With one decimal, and none where that says the same."""
    if value is None:
        return None
    rounded = round(value, 1)
    return int(rounded) if rounded.is_integer() else rounded


def brief_model(model: Model, states: States) -> Doc:
    return _brief(
        id=model.id,
        name=model.name,
        source=model.source.kind.value,
        source_text=model.source.readable,
        backend=model.backend,
        categories=list(model.categories),
        replicas=model.replicas,
        ready_replicas=model.ready_replicas,
        state=model_state(model, states).value,
        instances={state.value: count for state, count in states.items()},
        priority=model.priority or None,
        generation=model.generation,
        access_policy=model.access.value,
        created_at=_at(model.created_at),
        updated_at=_at(model.updated_at),
    )


def brief_instance(instance: ModelInstance) -> Doc:
    place = instance.placement
    return _brief(
        id=instance.id,
        name=instance.name,
        model_id=instance.model_id,
        state=instance.state.value,
        state_message=instance.state_message[:LONGEST_MESSAGE],
        state_since=_at(instance.state_since),
        worker_id=instance.worker_id,
        gpu_indexes=None if place is None else list(place.gpu_indexes),
        computed_resource_claim=None if place is None else _claim(place.claim),
        subordinate_workers=[
            {
                "worker_id": share.worker_id,
                "gpu_indexes": list(share.gpu_indexes),
                "computed_resource_claim": _claim(share.claim),
            }
            for share in (() if place is None else place.subordinates)
        ]
        or None,
        download_progress=_rate(instance.download_progress),
        restart_count=instance.restart_count or None,
        next_retry_at=_at(instance.next_retry_at),
        deleted_at=_at(instance.deleted_at),
    )


def _claim(claim: Claim) -> Doc:
    return _brief(ram=claim.ram or None, vram=dict(claim.vram) or None)


def brief_worker(worker: Worker, snapshot: Snapshot, load: WorkerLoad) -> Doc:
    status, free = worker.status, snapshot.free(worker)
    claimed = summed(claim for _, claim in snapshot.claims_on(worker.id))
    loads = device_loads(load, len(status.gpu_devices))
    return _brief(
        id=worker.id,
        name=worker.name,
        ip=worker.ip,
        labels=dict(worker.labels),
        state=worker.condition.state.value,
        state_message=worker.condition.why[:LONGEST_MESSAGE],
        state_since=_at(worker.condition.since),
        cordoned=worker.cordoned or None,
        draining=worker.draining or None,
        barred=worker.barred or None,
        drain=_drain(worker, snapshot),
        taints=plain(worker.taints) or None,
        version=worker.version_running,
        cpu=_brief(total=status.cpu.total, utilization=_rate(load.cpu)),
        memory=_brief(total=status.memory.total, claimed=claimed.ram, used=load.memory.used, free=free.ram),
        model_bytes_free=worker.model_bytes_free,
        gpu_devices=[
            _brief(
                index=device.index,
                name=device.name,
                type=device.type,
                total=device.memory.total,
                claimed=claimed.vram.get(device.index),
                free=free.vram.get(device.index),
                fault=device.fault,
                **_measured(device, measured),
            )
            for device, measured in zip(status.gpu_devices, loads, strict=True)
        ],
        created_at=_at(worker.created_at),
    )


def _drain(worker: Worker, snapshot: Snapshot) -> Doc | None:
    progress = drain_progress(worker, snapshot) if worker.draining else None
    return None if progress is None else _brief(of=progress.of, left=len(progress.left))


def _measured(device: Device, load: DeviceLoad) -> Doc:
    """What is measured of a device. Where it cannot be told whose memory is in use, ``used`` is all of it."""
    used, foreign = load.memory.used, device.memory.foreign
    whose = {"used": used}
    if used is not None and foreign is not None:
        others = min(max(foreign, 0), used)
        whose = {"used_by_us": used - others, "used_by_others": others}
    return _brief(temperature=_rate(load.temperature), utilization=_rate(load.core), **whose)


def brief_load(worker: Worker, load: WorkerLoad) -> Doc:
    """The parts of a worker's brief document that its load is shown in."""
    loads = device_loads(load, len(worker.status.gpu_devices))
    devices = zip(worker.status.gpu_devices, loads, strict=True)
    return {
        "cpu": _brief(utilization=_rate(load.cpu)),
        "memory": _brief(used=load.memory.used),
        "gpu_devices": [
            {"index": device.index, **_measured(device, measured)} for device, measured in devices
        ],
    }


def brief_rate(rate: ModelRate) -> Doc:
    """What is told of a model beside its document, because it changes all the time."""
    return _brief(
        tokens_per_second=_rate(rate.written),
        prompt_tokens_per_second=_rate(rate.read),
        last_used_at=_at(rate.used_at),
    )


def brief_file(file: ModelFile) -> Doc:
    return _brief(
        id=file.id,
        worker_id=file.worker_id,
        source=file.source.kind.value,
        source_text=file.source.readable,
        local_dir=file.local_dir,
        size=file.size,
        state=file.state.value,
        state_message=file.state_message[:LONGEST_MESSAGE],
        download_progress=_rate(file.download_progress),
        download_speed=_rate(file.download_speed),
        pinned=file.pinned or None,
        last_used_at=_at(file.last_used_at),
        deleted_at=_at(file.deleted_at),
        created_at=_at(file.created_at),
    )


RATE: Mapping[str, JsonShape] = {
    "tokens_per_second": Number(),
    "prompt_tokens_per_second": Number(),
    "last_used_at": Instant(),
}
_CLAIM = Document(name="BriefClaim", fields={"ram": Integer(), "vram": Dictionary(Integer())})
_PLACE: Mapping[str, JsonShape] = {
    "worker_id": Integer(),
    "gpu_indexes": Array(Integer()),
    "computed_resource_claim": _CLAIM,
}
SHAPES: Mapping[BriefKind, Document] = {
    BriefKind.MODELS: Document(
        name="BriefModel",
        fields={
            "id": Integer(),
            "name": Text(),
            "source": Choice(SourceKind),
            "source_text": Text(),
            "backend": Text(),
            "categories": Array(Text()),
            "replicas": Integer(),
            "ready_replicas": Integer(),
            "state": Choice(ModelState),
            "instances": Dictionary(Integer()),
            "priority": Integer(),
            "generation": Integer(),
            "access_policy": Choice(ModelAccess),
            "created_at": Instant(),
            "updated_at": Instant(),
        },
        note="instances: how many there are in each state, without those that end. What is empty is left out.",
    ),
    BriefKind.WORKERS: Document(
        name="BriefWorker",
        fields={
            "id": Integer(),
            "name": Text(),
            "ip": Text(),
            "labels": Dictionary(Text()),
            "state": Choice(WorkerState),
            "state_message": Text(),
            "state_since": Instant(),
            "cordoned": Boolean(),
            "draining": Boolean(),
            "barred": Boolean(),
            "drain": Document(name="BriefDrain", fields={"of": Integer(), "left": Integer()}),
            "taints": Array(AttrsObject(Taint)),
            "version": Text(),
            "cpu": Document(name="BriefCpu", fields={"total": Number(), "utilization": Number()}),
            "memory": Document(
                name="BriefMemory", fields=dict.fromkeys(("total", "claimed", "used", "free"), Integer())
            ),
            "model_bytes_free": Integer(),
            "gpu_devices": Array(
                Document(
                    name="BriefDevice",
                    fields={
                        "index": Integer(),
                        "name": Text(),
                        "type": Text(),
                        **dict.fromkeys(
                            ("total", "claimed", "free", "used", "used_by_us", "used_by_others"), Integer()
                        ),
                        "temperature": Number(),
                        "utilization": Number(),
                        "fault": Text(),
                    },
                    note="Bytes, degrees Celsius, percent. used is told where it is not known whose memory it is.",
                )
            ),
            "created_at": Instant(),
        },
        note="What is unknown, empty or false is left out.",
    ),
    BriefKind.INSTANCES: Document(
        name="BriefModelInstance",
        fields={
            "id": Integer(),
            "name": Text(),
            "model_id": Integer(),
            "state": Choice(InstanceState),
            "state_message": Text(),
            "state_since": Instant(),
            **_PLACE,
            "subordinate_workers": Array(Document(name="BriefSubordinateWorker", fields=_PLACE)),
            "download_progress": Number(),
            "restart_count": Integer(),
            "next_retry_at": Instant(),
            "deleted_at": Instant(),
        },
        note=f"state_message has at most {LONGEST_MESSAGE} characters. What is unknown or empty is left out.",
    ),
    BriefKind.FILES: Document(
        name="BriefModelFile",
        fields={
            "id": Integer(),
            "worker_id": Integer(),
            "source": Choice(SourceKind),
            "source_text": Text(),
            "local_dir": Text(),
            "size": Integer(),
            "state": Choice(FileState),
            "state_message": Text(),
            "download_progress": Number(),
            "download_speed": Number(),
            "pinned": Boolean(),
            "last_used_at": Instant(),
            "deleted_at": Instant(),
            "created_at": Instant(),
        },
        note="What is unknown, empty or false is left out.",
    ),
}
