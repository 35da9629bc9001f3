"""Accelerators: their memory, cores, load and links, and their names in the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import attrs

DEVICE_TYPES: Mapping[str, str] = {
    "nvidia": "cuda",
    "amd": "rocm",
    "huawei": "npu",
    "moore threads": "musa",
    "apple": "mps",
    "hygon": "dcu",
    "iluvatar": "corex",
    "cambricon": "mlu",
    "intel": "xpu",
    "metax": "maca",
    "t-head": "ppu",
}
"""Vendor (lower case) → type, as written in device ids."""

FAMILY_STRIDE = 10_000
"""Between the indexes of two families of devices in one machine, so that no two devices of a worker share one."""


_MOST_WAYS = 64
"""Links of a device, and devices at the end of each, that are looked at."""


@attrs.frozen(kw_only=True)
class DeviceMemory:
    """Bytes. ``used`` and ``utilization_rate`` (percent) are measured, or ``None``."""

    total: int | None = None
    used: int | None = None
    utilization_rate: float | None = None
    is_unified_memory: bool = False
    foreign: int | None = None
    """What programs that are not GPUStack's hold of it, in steps, so that it seldom changes; ``None`` where that cannot
    be told."""
    overrun: int | None = None
    """What engines here hold beyond their claims, likewise."""

    @property
    def unclaimed(self) -> int:
        """Bytes in use that no claim accounts for, as far as known."""
        return max(self.foreign or 0, 0) + max(self.overrun or 0, 0)


@attrs.frozen(kw_only=True)
class DeviceCore:
    """Compute cores and their load in percent."""

    total: int | None = None
    utilization_rate: float | None = None


@attrs.frozen(kw_only=True)
class DeviceNetwork:
    """A network of the device's own (NPUs)."""

    status: str = "up"
    inet: str | None = None
    netmask: str | None = None
    mac: str | None = None
    gateway: str | None = None
    iface: str | None = None
    mtu: int | None = None


class LinkKind(StrEnum):
    """What data between two devices of a machine passes through, nearest first. Those of PCIe are the words of
    ``nvidia-smi topo``: PIX, PXB, PHB, NODE, SYS."""

    FABRIC = "fabric"
    """Links of the vendor's own: NVLink, XGMI, HCCS, MetaXLink."""
    BOARD = "board"
    """Both are on one board."""
    SWITCH = "switch"
    """At most one PCIe switch."""
    SWITCHES = "switches"
    """Several PCIe switches, and no host bridge."""
    BRIDGE = "bridge"
    """The host bridge of a processor."""
    NODE = "node"
    """Several host bridges of one NUMA node."""
    SYSTEM = "system"
    """The link between NUMA nodes."""

    @property
    def distance(self) -> int:
        """0 for the nearest kind."""
        return list(LinkKind).index(self)


_CLOSENESS: Mapping[LinkKind, float] = {
    kind: 1 - kind.distance / LinkKind.SYSTEM.distance for kind in LinkKind
}


@attrs.frozen(kw_only=True)
class DeviceLink:
    """How a device is joined to others of its machine, ``indexes``: all those that it is joined to in the same way.

    ``count`` is the number of parallel links to each, ``None`` where it is not told or means nothing.
    """

    kind: LinkKind
    indexes: tuple[int, ...]
    count: int | None = None

    @property
    def closeness(self) -> float:
        """1 of links of the vendor's own, 0 across NUMA nodes."""
        return _CLOSENESS[self.kind]


@attrs.frozen(kw_only=True)
class Device:
    """One accelerator as last seen by its worker, or a part of one.

    ``index`` is the number by which its vendor calls it. Of the further families in a machine of several vendors it is
    that plus ``FAMILY_STRIDE``, once for each family before it; of MIG instance 2 of GPU 3 it is 402.
    """

    index: int
    name: str
    vendor: str
    type: str
    uuid: str | None = None
    device_index: int | None = None
    device_chip_index: int = 0
    core: DeviceCore | None = None
    """``None`` where nothing is known of them."""
    memory: DeviceMemory = DeviceMemory()
    network: DeviceNetwork | None = None
    temperature: float | None = None
    compute_capability: str | None = None
    driver_version: str | None = None
    slice_profile: str | None = None
    """Of a part of a card (MIG instance): its size, as ``1g.18gb``. ``None`` for a whole card."""
    links: tuple[DeviceLink, ...] = ()
    """The nearest way to each other device, nearest first; devices to which none is known are in none of them."""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    fault: str | None = None
    """Why the device cannot be used (lost, driver error), as a sentence. It is shown, but nothing is placed on it."""

    @property
    def number(self) -> int:
        """Its number among the devices of its vendor."""
        return self.index % FAMILY_STRIDE

    @property
    def ways(self) -> Mapping[int, DeviceLink]:
        """The nearest link to each other device of its machine to which one is known, by index. Made in bounded time,
        however many a worker tells of."""
        found: dict[int, DeviceLink] = {}
        for link in self.links[:_MOST_WAYS]:
            for index in link.indexes[:_MOST_WAYS]:
                found.setdefault(index, link)
        return found


@attrs.frozen
class DeviceId:
    """``<worker>:<type>:<index>``, the name of a device in API and selectors."""

    worker: str
    type: str
    index: int

    def __str__(self) -> str:
        return f"{self.worker}:{self.type}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> DeviceId:
        """Read ``text``; raises ``ValueError`` with a sentence when it is not a device id."""
        parts = text.rsplit(":", 2)
        is_whole = len(parts) == 3 and parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 10
        if not is_whole or not parts[0] or parts[1] not in DEVICE_TYPES.values():
            kinds = ", ".join(sorted(set(DEVICE_TYPES.values())))
            raise ValueError(f"GPU id {text!r} is not <worker name>:<type>:<index> with a type of {kinds}")
        return cls(parts[0], parts[1], int(parts[2]))
