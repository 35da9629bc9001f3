"""The interface of a memory need: bytes of the host and of devices, and among how many devices it can be divided."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import attrs

from gpustack.domain.memory_use import MemoryPlan

from .learnt import Experience


@attrs.frozen(kw_only=True)
class DeviceNeed:
    """Bytes of host memory, and of each device in the order of the shares."""

    ram: int
    vram: tuple[int, ...]


@attrs.frozen(kw_only=True)
class MemoryDemand(ABC):
    """The memory need of one deployment. The fits ask it many times, so answers are cheap."""

    total_layers: int | None = None
    """Layers that can be offloaded one by one; ``None`` if it is all or nothing."""
    fixed_layers: int | None = None
    """Layers on devices as the user set them; ``None`` leaves it to us."""
    split: tuple[float, ...] = ()
    """Shares per device set by the user; empty leaves it to us."""
    on_cpu: bool = True
    """Whether it may run without devices at all."""
    on_devices: bool = True
    """Whether it can use devices."""
    note: str = ""
    """Where the figures come from, for the message of the instance."""
    slots: int | None = None
    """Requests at a time that the figures are for; ``None`` where they are not computed from that."""
    slot_choices: tuple[int, ...] = ()
    """The numbers of requests at a time to try when placing, the best first; empty where it is not ours to choose."""
    context: int | None = None
    """Tokens of one request that the figures are for; ``None`` where the engine is not told by us."""
    equal: bool = False
    """Every device holds the same share (tensor × pipeline parallel), so shares other than equal ones mean nothing."""
    device_counts: tuple[int, ...] = ()
    """The numbers of devices, over all workers, that it can be divided among, ascending; empty is any number."""
    spans_workers: bool = False
    """Whether it may be divided among devices of several workers."""

    peculiarity: str = ""
    """Names what else a deployment sets of its engine: any of that may decide about memory, so that only runs with the
    same are compared."""
    runs: Mapping[str, Experience] = attrs.field(factory=dict, eq=False, repr=False)
    """What runs on the same kind of devices have shown, by the settings that decide about memory."""

    @property
    def looks_around(self) -> bool:
        """Whether what one worker is refused for depends on what others have."""
        return False

    def taken(self, need: int, total: int | None) -> int:
        """Bytes that a device of ``total`` bytes loses to a share of ``need`` bytes: more than it needs where the user
        had the engine take a part of the whole device."""
        return need

    def holdable(self, free: int, total: int | None) -> int:
        """The largest share that a device holds of which so much is free: the largest need that is ``taken`` of it.
        Below 0 where it holds none."""
        return free

    def kv_cache(self, devices: int, workers: int = 1) -> int | None:
        """Bytes for the KV cache on each of ``devices``, of as many on each of ``workers``, for engines that are told;
        else ``None``. No devices: on each host."""
        return None

    def tensor_parallel(self, devices: int, workers: int = 1) -> int | None:
        """How many of these devices divide each layer among them, where that is ours to choose; the others hold other
        layers. ``None`` where the engine does not divide layers."""
        return None

    def plan(self, shares: Sequence[float], layers: int | None = None) -> MemoryPlan | None:
        """How the figures of one worker came about, for devices in these shares (none: on the CPU); ``None`` where they
        are not computed term by term."""
        return None

    def least(self, devices: int) -> int:
        """Bytes that it takes of so many devices of one worker together at least, however it is divided; 0 where that
        is not known without dividing it."""
        return 0

    @abstractmethod
    def cpu(self) -> int:
        """Bytes of host memory without any device."""

    @abstractmethod
    def devices(self, shares: Sequence[float], layers: int | None = None) -> DeviceNeed:
        """Bytes when ``layers`` (all by default) are divided among devices as ``shares``."""

    def among_workers(self, shares: Sequence[float], remote: int, layers: int | None = None) -> DeviceNeed:
        """The same where the first ``remote`` devices belong to other workers than the host's."""
        return self.devices(shares, layers)
