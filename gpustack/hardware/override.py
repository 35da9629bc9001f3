"""The ``resources`` block of the configuration: what a worker has, told by its owner instead of measured."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import attrs

from gpustack.domain.device import DEVICE_TYPES, Device, DeviceMemory, DeviceNetwork
from gpustack.domain.worker import (
    Cpu,
    Filesystem,
    Kernel,
    Memory,
    OperatingSystem,
    Uptime,
    WorkerStatus,
)
from gpustack.errors import Invalid

V = TypeVar("V")

_VENDORS: Mapping[str, str] = {
    "nvidia": "NVIDIA",
    "moore threads": "Moore Threads",
    "apple": "Apple",
    "huawei": "Huawei",
    "amd": "AMD",
    "hygon": "Hygon",
    "iluvatar": "Iluvatar",
    "cambricon": "Cambricon",
    "intel": "Intel",
}


@attrs.frozen(kw_only=True)
class Override:
    """What was told: a status, and which of its parts. A part that was not told may still be measured."""

    status: WorkerStatus
    parts: frozenset[str]

    def over(self, measured: WorkerStatus) -> WorkerStatus:
        """``measured`` with the parts that were told put in its place."""
        return attrs.evolve(measured, **{name: getattr(self.status, name) for name in self.parts})

    @property
    def tells_devices(self) -> bool:
        """Devices were told, so none are looked for (and nothing is known of their load)."""
        return "gpu_devices" in self.parts


def read_override(block: object) -> Override:
    """Read the parsed ``resources`` mapping (behaviour.md s.1.6).

    Raises Invalid with every fault, each a sentence that names the key.
    """
    faults: list[str] = []
    at = _Node.of(block, "resources", faults)
    status = WorkerStatus(
        cpu=at.part("cpu", _cpu) or Cpu(),
        memory=at.part("memory", _memory) or Memory(),
        swap=at.part("swap", _swap) or Memory(),
        filesystem=at.parts("filesystem", _filesystem),
        os=at.part("os", _os) or OperatingSystem(),
        kernel=at.part("kernel", _kernel) or Kernel(),
        uptime=at.part("uptime", _uptime) or Uptime(),
        gpu_devices=at.parts("gpu_devices", _device),
    )
    at.close()
    first: dict[int, int] = {}
    for place, device in enumerate(status.gpu_devices):
        if first.setdefault(device.index, place) != place:
            faults.append(
                f"resources.gpu_devices[{place}].index is {device.index}, "
                f"as that of gpu_devices[{first[device.index]}]: give every device an index of its own"
            )
    if faults:
        raise Invalid(*faults)
    return Override(status=status, parts=at.given)


@attrs.define(eq=False)
class _Node:
    """One mapping of the block: hands out its values checked, notes what is wrong and what nobody asked for."""

    values: Mapping[str, object]
    path: str
    faults: list[str]
    asked: set[str] = attrs.field(factory=set)

    @classmethod
    def of(cls, value: object, path: str, faults: list[str]) -> _Node:
        if not isinstance(value, Mapping):
            faults.append(f"{path} must be a mapping of keys to values")
            value = {}
        return cls({str(key): item for key, item in value.items()}, path, faults)

    def close(self) -> None:
        for key in sorted(set(self.values) - self.asked):
            known = ", ".join(sorted(self.asked))
            self.faults.append(f"{self.path}.{key} is not known (there are {known})")

    @property
    def given(self) -> frozenset[str]:
        return frozenset(key for key in self.asked if self.values.get(key) is not None)

    def wrong(self, key: str, what: str) -> None:
        self.faults.append(f"{self.path}.{key} {what}")

    def value(self, key: str, required: bool = False) -> object | None:
        self.asked.add(key)
        value = self.values.get(key)
        if value is None and required:
            self.wrong(key, "is required")
        return value

    def part(self, key: str, read: Callable[[_Node], V]) -> V | None:
        value = self.value(key)
        return None if value is None else self._read(value, f"{self.path}.{key}", read)

    def parts(self, key: str, read: Callable[[_Node], V]) -> tuple[V, ...]:
        value = self.value(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            self.wrong(key, "must be a list")
            return ()
        return tuple(self._read(item, f"{self.path}.{key}[{i}]", read) for i, item in enumerate(value))

    def _read(self, value: object, path: str, read: Callable[[_Node], V]) -> V:
        node = _Node.of(value, path, self.faults)
        result = read(node)
        node.close()
        return result

    def text(self, key: str, required: bool = False) -> str:
        value = self.value(key, required)
        if value is None:
            return ""
        if not isinstance(value, str | int | float) or isinstance(value, bool) or str(value).strip() == "":
            self.wrong(key, "must be a text")
            return ""
        return str(value)

    def count(self, key: str, required: bool = False) -> int | None:
        value = self.value(key, required)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
            self.wrong(key, f"must be a whole number, zero or more, not {value!r}")
            return None
        return value

    def amount(self, key: str) -> float | None:
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            self.wrong(key, f"must be a number above zero, not {value!r}")
            return None
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            self.wrong(key, f"must be true or false, not {value!r}")
        return value is True

    def choice(self, key: str, choices: Mapping[str, str], required: bool = False) -> str | None:
        """The value of ``choices`` whose key is the text told, in whatever case."""
        value = self.value(key, required)
        if value is None:
            return None
        chosen = choices.get(str(value).lower())
        if chosen is None:
            self.wrong(key, f"must be one of {', '.join(dict.fromkeys(choices.values()))}, not {value!r}")
        return chosen

    def address(self, key: str, required: bool = False) -> str | None:
        value = self.value(key, required)
        if value is None:
            return None
        try:
            return str(ipaddress.ip_address(str(value)))
        except ValueError:
            self.wrong(key, f"must be an IP address, not {value!r}")
            return None


def _cpu(at: _Node) -> Cpu:
    return Cpu(total=at.amount("total"))


def _memory(at: _Node) -> Memory:
    return Memory(total=at.count("total"), is_unified_memory=at.flag("is_unified_memory"))


def _swap(at: _Node) -> Memory:
    return Memory(total=at.count("total"))


def _filesystem(at: _Node) -> Filesystem:
    return Filesystem(
        name=at.text("name", required=True),
        mount_point=at.text("mount_point", required=True),
        mount_from=at.text("mount_from"),
        total=at.count("total"),
    )


def _os(at: _Node) -> OperatingSystem:
    return OperatingSystem(name=at.text("name"), version=at.text("version"))


def _kernel(at: _Node) -> Kernel:
    return Kernel(
        name=at.text("name"),
        release=at.text("release"),
        version=at.text("version"),
        architecture=at.text("architecture"),
    )


def _uptime(at: _Node) -> Uptime:
    told = at.value("boot_time")
    boot: datetime | None = None
    if isinstance(told, datetime):  # YAML knows instants
        boot = told
    elif told is not None:
        try:
            boot = datetime.fromisoformat(str(told))
        except ValueError:
            at.wrong("boot_time", f"must be a time such as 2025-01-31T12:00:00Z, not {told!r}")
    if boot is not None:
        boot = boot.replace(tzinfo=UTC) if boot.tzinfo is None else boot.astimezone(UTC)
    return Uptime(uptime=at.amount("uptime"), boot_time=boot)


def _device(at: _Node) -> Device:
    vendor = at.choice("vendor", _VENDORS, required=True)
    kind = at.choice("type", {name: name for name in DEVICE_TYPES.values()})
    index = at.count("index", required=True)
    device_index = at.count("device_index")
    return Device(
        index=index or 0,
        name=at.text("name", required=True),
        vendor=vendor or "",
        type=kind or (DEVICE_TYPES[vendor.lower()] if vendor else ""),
        device_index=index if device_index is None else device_index,
        device_chip_index=at.count("device_chip_index") or 0,
        memory=_required(at, "memory"),
        network=at.part("network", _network),
    )


def _required(at: _Node, key: str) -> DeviceMemory:
    memory = at.part(key, _device_memory)
    if memory is None:
        at.wrong(key, "is required, with its total in bytes")
    return memory or DeviceMemory()


def _device_memory(at: _Node) -> DeviceMemory:
    return DeviceMemory(
        total=at.count("total", required=True), is_unified_memory=at.flag("is_unified_memory")
    )


def _network(at: _Node) -> DeviceNetwork:
    return DeviceNetwork(
        status=at.choice("status", {"up": "up", "down": "down"}) or "up",
        inet=at.address("inet", required=True),
        netmask=at.address("netmask"),
        mac=at.text("mac") or None,
        gateway=at.address("gateway"),
        iface=at.text("iface") or None,
        mtu=at.count("mtu"),
    )
