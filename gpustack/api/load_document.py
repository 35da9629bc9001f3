"""The load of a worker in JSON: shown in the documents of the API, and read out of the status that a worker sends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import attrs
import orjson

from gpustack.domain.load import DeviceLoad, DiskLoad, MemoryLoad, WorkerLoad
from gpustack.server.report import MOST

from .shape import LARGEST, Instant, Integer, JsonShape, Number
from .view import Doc

_NUMBER, _WHOLE, _INSTANT = Number(), Integer(), Instant()
_NO_LOAD = DeviceLoad()


def show_host_load(status: Doc, load: WorkerLoad) -> None:
    """Put the load into the document of a worker's recorded status, but for that of its devices. What is not known is
    left out, except for the file systems, of which the record has figures that are near."""
    _show(status["cpu"], utilization_rate=load.cpu)
    _show_memory(status["memory"], load.memory)
    _show_memory(status["swap"], load.swap)
    _show(status["uptime"], uptime=load.uptime, boot_time=load.boot_time)
    if len(load.filesystem) == len(status["filesystem"]):
        for document, disk in zip(status["filesystem"], load.filesystem, strict=True):
            _show(document, used=disk.used, free=disk.free, available=disk.available)


def device_loads(load: WorkerLoad, count: int) -> Sequence[DeviceLoad]:
    """The loads of a worker's devices; unknown while the load is of other devices than its record has."""
    return load.gpu_devices if len(load.gpu_devices) == count else (_NO_LOAD,) * count


def show_device_load(device: Doc, load: DeviceLoad) -> None:
    """Put the load into the document of a device."""
    _show(device, temperature=load.temperature)
    _show_memory(device["memory"], load.memory)
    core = device.get("core")
    if core is not None:
        _show(core, utilization_rate=load.core)


def _show_memory(document: Doc, load: MemoryLoad) -> None:
    _show(document, used=load.used, utilization_rate=load.utilization_rate)


def _show(document: Doc, **values: object) -> None:
    for name, value in values.items():
        if value is not None:
            document[name] = value
        else:
            document.pop(name, None)


@attrs.frozen
class StatusReading:
    """The load in a status that a worker sent, and a digest of everything else in it."""

    load: WorkerLoad
    rest: bytes


def read_load(body: bytes) -> StatusReading | None:
    """Read the load out of a ``StatusReport``; ``None`` for a body of another form, whose faults its shape names."""
    try:
        document = orjson.loads(body)
        load = _taken(document["status"])
        return StatusReading(load, blake2b(orjson.dumps(document), digest_size=16).digest())
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _taken(status: Doc) -> WorkerLoad:
    """The load, removed from the document. Raises for a form that is not the usual one."""
    if max(len(status["filesystem"]), len(status["gpu_devices"])) > MOST:
        raise ValueError("more than a record holds")
    return WorkerLoad(
        cpu=_number(status["cpu"].pop("utilization_rate", None)),
        memory=_taken_memory(status["memory"]),
        swap=_taken_memory(status["swap"]),
        filesystem=tuple(map(_taken_disk, status["filesystem"])),
        uptime=_number(status["uptime"].pop("uptime", None)),
        boot_time=_instant(status["uptime"].pop("boot_time", None)),
        gpu_devices=tuple(map(_taken_device, status["gpu_devices"])),
    )


def _taken_memory(document: Doc) -> MemoryLoad:
    return MemoryLoad(
        used=_whole(document.pop("used", None)),
        utilization_rate=_number(document.pop("utilization_rate", None)),
    )


def _taken_disk(document: Doc) -> DiskLoad:
    return DiskLoad(
        used=_whole(document.pop("used", None)),
        free=_whole(document.pop("free", None)),
        available=_whole(document.pop("available", None)),
    )


def _taken_device(document: Doc) -> DeviceLoad:
    core = document["core"]
    return DeviceLoad(
        temperature=_number(document.pop("temperature", None)),
        core=None if core is None else _number(core.pop("utilization_rate", None)),
        memory=_taken_memory(document["memory"]),
    )


def _number(value: Any) -> float | None:
    if value is None or type(value) is float:
        return value
    return float(_strictly(_NUMBER, value))


def _whole(value: Any) -> int | None:
    if value is None or (type(value) is int and 0 <= value <= LARGEST):
        return value
    return int(_strictly(_WHOLE, value))


def _instant(value: Any) -> datetime | None:
    if value is None:
        return None
    read: datetime = _strictly(_INSTANT, value)
    return read


def _strictly(shape: JsonShape, value: Any) -> Any:
    """The value as the shape reads it. Raises ``ValueError`` where it is none of that shape."""
    faults: list[str] = []
    read = shape.read(value, "", faults)
    if faults:
        raise ValueError(faults[0])
    return read
