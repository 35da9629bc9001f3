"""The ``resources`` block: what a worker has, as an administrator writes it in place of detection. Sizes in bytes."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import attrs

from gpustack.config.value import quote, read_bool, read_int, read_number, read_object, read_text

TYPE_OF_VENDOR = {
    "NVIDIA": "cuda",
    "Moore Threads": "musa",
    "Apple": "mps",
    "Huawei": "npu",
    "AMD": "rocm",
    "Hygon": "dcu",
    "Iluvatar": "corex",
    "Cambricon": "mlu",
    "Intel": "xpu",
    "MetaX": "maca",
    "T-Head": "ppu",
}


@attrs.frozen(kw_only=True)
class CpuOverride:
    total: int


@attrs.frozen(kw_only=True)
class MemoryOverride:
    """Memory in bytes."""

    total: int
    is_unified_memory: bool = False


@attrs.frozen(kw_only=True)
class SwapOverride:
    """Swap in bytes."""

    total: int


@attrs.frozen(kw_only=True)
class FilesystemOverride:
    """A mounted file system, its size in bytes."""

    name: str
    mount_point: str
    mount_from: str = ""
    total: int


@attrs.frozen(kw_only=True)
class OperatingSystemOverride:
    name: str
    version: str = ""


@attrs.frozen(kw_only=True)
class KernelOverride:
    name: str
    release: str = ""
    version: str = ""
    architecture: str = ""


@attrs.frozen(kw_only=True)
class UptimeOverride:
    """Seconds since boot, and the instant of boot as it was written: ISO 8601, in UTC if it does not say."""

    uptime: float
    boot_time: str = ""


@attrs.frozen(kw_only=True)
class DeviceNetworkOverride:
    """The network interface of a device that has one of its own (NPUs)."""

    inet: str
    status: str = "up"
    netmask: str = ""
    mac: str = ""
    gateway: str = ""
    iface: str = ""
    mtu: int | None = None


@attrs.frozen(kw_only=True)
class DeviceOverride:
    """An accelerator. ``type`` follows from the vendor when it is not written."""

    name: str
    vendor: str
    index: int
    device_index: int
    device_chip_index: int = 0
    memory: MemoryOverride
    type: str
    network: DeviceNetworkOverride | None = None


@attrs.frozen(kw_only=True)
class ResourceBlock:
    """The whole block. A part that is ``None`` is detected; an empty ``gpu_devices`` says that there are none."""

    cpu: CpuOverride | None = None
    memory: MemoryOverride | None = None
    swap: SwapOverride | None = None
    filesystem: tuple[FilesystemOverride, ...] | None = None
    os: OperatingSystemOverride | None = None
    kernel: KernelOverride | None = None
    uptime: UptimeOverride | None = None
    gpu_devices: tuple[DeviceOverride, ...] | None = None

    def __str__(self) -> str:
        """The block as JSON, which ``read_resources`` reads to an equal one."""
        return json.dumps(attrs.asdict(self, filter=lambda _, value: value is not None))


class ResourcesError(ValueError):
    """Parts of the block are wrong. ``faults`` holds a sentence for each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


def read_resources(value: Any) -> ResourceBlock:
    """Read the block from a mapping or its JSON text. Raise ResourcesError with everything wrong in it."""
    if isinstance(value, ResourceBlock):
        return value
    try:
        block = read_object(value)
    except ValueError as error:
        raise ResourcesError((str(error),)) from None
    reader = _Reader()
    parts = reader.fields(ResourceBlock, block, "", _PARTS)
    if not reader.faults:
        reader.faults += _repeated_indexes(parts.get("gpu_devices") or ())
    if reader.faults:
        raise ResourcesError(tuple(reader.faults))
    return ResourceBlock(**parts)


def _repeated_indexes(devices: tuple[DeviceOverride, ...]) -> list[str]:
    """Devices with the index of another, whatever their types: claims on devices are kept by index alone."""
    seen: set[int] = set()
    faults = []
    for number, device in enumerate(devices):
        if device.index in seen:
            faults.append(f"gpu_devices[{number}] has the index {device.index} of another device")
        seen.add(device.index)
    return faults


Read = Callable[["_Reader", Any, str], Any]


class _Reader:
    """Reads nested mappings and gathers faults, each with the path of the value at fault."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fields(self, cls: type[Any], value: Any, at: str, reads: Mapping[str, Read]) -> dict[str, Any]:
        """The fields of ``cls`` that ``value`` holds, read by ``reads``; faults are added to ``faults``."""
        if not isinstance(value, Mapping):
            self.faults.append(f"{at or 'resources'} must be a mapping")
            return {}
        for key in value:
            if key not in reads:
                self.faults.append(f"{_join(at, key)} is not known")
        found: dict[str, Any] = {}
        for name, read in reads.items():
            if value.get(name) is not None:
                found[name] = read(self, value[name], _join(at, name))
            elif attrs.fields_dict(cls)[name].default is attrs.NOTHING and (name, cls) not in _DERIVED:
                self.faults.append(f"{_join(at, name)} is missing")
        return found

    def build(self, cls: type[Any], value: Any, at: str, reads: Mapping[str, Read]) -> Any:
        """An instance of ``cls``; ``None`` if ``value`` has a fault, which is added to ``faults``."""
        before = len(self.faults)
        found = self.fields(cls, value, at, reads)
        return cls(**found) if len(self.faults) == before else None


def _join(at: str, name: object) -> str:
    return f"{at}.{name}" if at else str(name)


def _plain(read: Callable[[Any], Any]) -> Read:
    def one(reader: _Reader, value: Any, at: str) -> Any:
        try:
            return read(value)
        except ValueError as error:
            reader.faults.append(f"{at} {error}")
            return None

    return one


def _nested(cls: type[Any], reads: Mapping[str, Read]) -> Read:
    return lambda reader, value, at: reader.build(cls, value, at, reads)


def _list(read: Read) -> Read:
    def every(reader: _Reader, value: Any, at: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            reader.faults.append(f"{at} must be a list")
            return ()
        return tuple(read(reader, item, f"{at}[{number}]") for number, item in enumerate(value))

    return every


def _amount(value: Any) -> int:
    amount = read_int(value)
    if amount < 0:
        raise ValueError("must not be negative")
    return amount


def _duration(value: Any) -> float:
    seconds = read_number(value)
    if seconds < 0:
        raise ValueError("must not be negative")
    return seconds


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {quote(value)}")
        return str(value)

    return read


def _address(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise ValueError(f"must be an IP address, not {quote(value)}") from None


def _timestamp(value: Any) -> str:
    # YAML turns an unquoted timestamp into a datetime; its ISO form says the same.
    text = value.isoformat() if hasattr(value, "isoformat") else read_text(value)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be a time such as 2025-01-31T12:00:00Z, not {quote(value)}") from None
    return text


def _any_text(value: Any) -> str:
    """Read text that may be empty."""
    return read_text(value) if value != "" else ""


def _device(reader: _Reader, value: Any, at: str) -> DeviceOverride | None:
    before = len(reader.faults)
    found = reader.fields(DeviceOverride, value, at, _DEVICE)
    if len(reader.faults) != before:
        return None
    found.setdefault("device_index", found["index"])
    found.setdefault("type", TYPE_OF_VENDOR[found["vendor"]])
    return DeviceOverride(**found)


_NAME, _TEXT, _AMOUNT, _BOOL = _plain(read_text), _plain(_any_text), _plain(_amount), _plain(read_bool)
_MEMORY = _nested(MemoryOverride, {"total": _AMOUNT, "is_unified_memory": _BOOL})
_NETWORK = _nested(
    DeviceNetworkOverride,
    {
        "status": _plain(_one_of("up", "down")),
        "inet": _plain(_address),
        "netmask": _TEXT,
        "mac": _TEXT,
        "gateway": _TEXT,
        "iface": _TEXT,
        "mtu": _AMOUNT,
    },
)
_DEVICE: Mapping[str, Read] = {
    "name": _NAME,
    "vendor": _plain(_one_of(*TYPE_OF_VENDOR)),
    "index": _AMOUNT,
    "device_index": _AMOUNT,
    "device_chip_index": _AMOUNT,
    "memory": _MEMORY,
    "type": _plain(_one_of(*TYPE_OF_VENDOR.values())),
    "network": _NETWORK,
}
_DERIVED = {("device_index", DeviceOverride), ("type", DeviceOverride)}
_PARTS: Mapping[str, Read] = {
    "cpu": _nested(CpuOverride, {"total": _AMOUNT}),
    "memory": _MEMORY,
    "swap": _nested(SwapOverride, {"total": _AMOUNT}),
    "filesystem": _list(
        _nested(
            FilesystemOverride, {"name": _NAME, "mount_point": _NAME, "mount_from": _TEXT, "total": _AMOUNT}
        )
    ),
    "os": _nested(OperatingSystemOverride, {"name": _NAME, "version": _TEXT}),
    "kernel": _nested(
        KernelOverride, {"name": _NAME, "release": _TEXT, "version": _TEXT, "architecture": _TEXT}
    ),
    "uptime": _nested(UptimeOverride, {"uptime": _plain(_duration), "boot_time": _plain(_timestamp)}),
    "gpu_devices": _list(_device),
}
