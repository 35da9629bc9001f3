"""A worker: a machine that runs engines, as it last described itself and as the server judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from itertools import islice

import attrs

from .device import Device
from .ray import RayNodeStatus
from .record import REPORTED, Record, stored
from .taint import Taint
from .unit import GIB


class WorkerState(StrEnum):
    """What the server concludes from the heartbeats of a worker."""

    READY = "ready"
    NOT_READY = "not_ready"
    UNREACHABLE = "unreachable"


@attrs.frozen(kw_only=True)
class Condition:
    """A state with its beginning and reason. It is computed anew from evidence and never final."""

    state: WorkerState
    since: datetime | None = None
    why: str = ""


@attrs.frozen(kw_only=True)
class Cpu:
    """Logical cores that this machine or control group may use, and their load in percent."""

    total: float | None = None
    utilization_rate: float | None = None


@attrs.frozen(kw_only=True)
class Memory:
    """Bytes, within the control group where there is one."""

    total: int | None = None
    used: int | None = None
    utilization_rate: float | None = None
    is_unified_memory: bool = False


@attrs.frozen(kw_only=True)
class Filesystem:
    """One mounted file system, in bytes."""

    name: str
    mount_point: str
    mount_from: str = ""
    total: int | None = None
    used: int | None = None
    free: int | None = None
    available: int | None = None


@attrs.frozen(kw_only=True)
class OperatingSystem:
    name: str = ""
    version: str = ""


@attrs.frozen(kw_only=True)
class Kernel:
    name: str = ""
    release: str = ""
    version: str = ""
    architecture: str = ""


@attrs.frozen(kw_only=True)
class Uptime:
    """Seconds since boot, and the instant of boot."""

    uptime: float | None = None
    boot_time: datetime | None = None


class BuildPresence(StrEnum):
    """Whether a build of an engine is on a worker."""

    INSTALLED = "installed"
    """An administrator put it there, or it came with GPUStack."""
    ISOLATED = "isolated"
    """In an environment of its own, which the worker made."""
    INSTALLABLE = "installable"
    """Not there: the worker makes an environment with it, in any version that a deployment names."""
    MISSING = "missing"
    """Not there, and it cannot be installed; ``advice`` says why."""


@attrs.frozen(kw_only=True)
class EngineBuild:
    """An engine as installed on a worker, or as it can be, and the device types that this build supports.

    ``drives`` is empty for a CPU-only build; ``advice`` then says how to get one for the devices there are.
    ``digest`` (of its files, or of the release that it came with) tells apart what has the same version.
    """

    engine: str
    version: str | None = None
    """Of one that is installable: the version that is taken where a deployment names none."""
    origin: str = ""
    path: str | None = None
    drives: tuple[str, ...] = ()
    advice: str = ""
    presence: BuildPresence = BuildPresence.INSTALLED
    on_cpu: bool = True
    """Whether it runs where it is given no device."""
    requirements: tuple[str, ...] = ()
    """What a deployment asked to be installed beside it; such an environment serves no others."""
    disk: int | None = None
    """Bytes that its environment takes, where the worker made it."""
    digest: str | None = None
    rpc: bool = False
    """Whether it can use devices of other workers over llama.cpp's RPC."""
    rpc_server: str | None = None
    """Path of the RPC server of the same build, by which this worker lends its devices to others; ``None`` where there
    is none, or it is not to lend them."""
    python: str | None = None
    """The Python that runs it, for an engine that is a Python program."""

    @property
    def shown(self) -> str:
        """It in words: engine, version and where it comes from."""
        name = f"{self.engine} {self.version}" if self.version else self.engine
        return f"{name} ({self.origin})" if self.origin else name


def is_version(build: str | None, wanted: str) -> bool:
    """Whether a build's version is the one wanted. A local part (``+cpu``) need not be named; unknown is any."""
    return build is None or wanted in (build, build.partition("+")[0])


def choose_build(
    builds: Sequence[EngineBuild],
    engine: str,
    version: str | None = None,
    requirements: tuple[str, ...] = (),
) -> EngineBuild | None:
    """The build that a deployment runs on: the first that is there, else the one to install; ``None`` if neither.

    Without ``version`` and ``requirements`` an installed build goes before an environment of the default version. One
    that is to be installed comes with the version and requirements that it is to have; its version is ``None`` where
    neither the deployment nor the engine names one.
    """
    mine = [build for build in builds if build.engine == engine]
    offer = next((build for build in mine if build.presence is BuildPresence.INSTALLABLE), None)
    wanted = version
    if version is None:
        installed = next((build for build in mine if build.presence is BuildPresence.INSTALLED), None)
        if installed is not None and not requirements:
            return installed
        wanted = None if offer is None else offer.version
    for build in mine:
        is_there = build.presence in (BuildPresence.INSTALLED, BuildPresence.ISOLATED)
        is_wanted = wanted is None or is_version(build.version, wanted)
        if is_there and is_wanted and build.requirements == requirements:
            return build
    if offer is None or wanted is None:
        return None
    return attrs.evolve(offer, version=wanted, requirements=requirements)


@attrs.frozen(kw_only=True)
class ModelDisk:
    """The file system that model files are fetched to."""

    mount_point: str
    """Which of the worker's file systems it is."""
    evicts: bool = False
    """Whether the worker removes files that nobody uses to make room."""


@attrs.frozen(kw_only=True)
class WorkerStatus:
    """What a worker measured; ``None`` where it could not measure."""

    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    swap: Memory = Memory()
    filesystem: tuple[Filesystem, ...] = ()
    model_disk: ModelDisk | None = None
    """``None`` where it is none of those above: then its free space is not known."""
    os: OperatingSystem = OperatingSystem()
    kernel: Kernel = Kernel()
    uptime: Uptime = Uptime()
    gpu_devices: tuple[Device, ...] = ()
    engines: tuple[EngineBuild, ...] = ()
    detection_faults: tuple[str, ...] = ()
    """Why some hardware could not be detected; the rest of the status is valid."""
    ray: RayNodeStatus | None = None
    """``None`` without ``--enable-ray``."""
    stale_since: datetime | None = None
    """Set while the last good answer of a detector is shown because a newer one is not available."""

    @cached_property
    def closeness(self) -> float:
        """0 to 100: how well each two devices of a type are joined, in the mean. 100 is by links of the vendor's own, 0
        across NUMA nodes or unknown."""
        devices = self.gpu_devices
        total, pairs = 0.0, 0
        # a worker says how many devices and links there are: of each the links are looked through once
        for place, one in enumerate(devices):
            near = {index: link.closeness for index, link in one.ways.items()}
            for other in islice(devices, place + 1, None):
                if one.type == other.type:
                    total += near.get(other.index, 0.0)
                    pairs += 1
        return 100 * total / pairs if pairs else 0.0


@attrs.frozen(kw_only=True)
class SystemReserved:
    """Bytes kept free of placements: memory per worker, video memory per device."""

    ram: int = 2 * GIB
    vram: int = 1 * GIB


@stored("workers", unique=(("name",), ("worker_uuid",)))
@attrs.frozen(kw_only=True)
class Worker(Record):
    """A machine of the cluster. The worker owns its description; ``condition`` is the server's."""

    name: str
    worker_uuid: str
    hostname: str = ""
    ip: str = ""
    port: int = 10150
    metrics_port: int | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)
    system_reserved: SystemReserved = attrs.field(default=SystemReserved(), metadata={REPORTED: True})
    status: WorkerStatus = attrs.field(default=WorkerStatus(), metadata={REPORTED: True})
    condition: Condition = attrs.field(
        default=Condition(state=WorkerState.NOT_READY, why="has not reported yet"), metadata={REPORTED: True}
    )
    heartbeat_time: datetime | None = None
    """When it was last heard, as stored now and then; the live value is in the memory of the server."""
    credential_hash: str = ""
    """HMAC of the worker's credential, which it gets when it joins."""
    cordoned: bool = False
    version_running: str = ""
    credential_since: datetime | None = None
    """When the credential was issued; it is replaced from time to time. ``None``: the machine does not keep its
    credential, so it is not replaced, and not demanded when the machine joins again."""
    former_credential_hash: str | None = attrs.field(default=None, repr=False)
    """The credential before, valid until the new one is used: a worker that lost the answer is not locked out."""
    barred: bool = False
    """Its requests and joins are refused, whatever token it has."""
    leaving: bool = False
    """It announced that it stops. It may still report while its engines end; only a join brings it back."""
    draining: bool = False
    """Its instances are started elsewhere, one replica at a time, and then end here. A drain by an administrator also
    cordons it; a worker that drains itself before it stops is not cordoned, and takes instances when it joins
    again."""
    drain_total: int | None = None
    """How many instances there were when the drain began; ``None`` where that was not counted."""

    taints: tuple[Taint, ...] = ()

    @cached_property
    def model_bytes_free(self) -> int | None:
        """Bytes that model files may take, as last recorded; ``None`` where that is not known."""
        disk = self.status.model_disk
        if disk is None:
            return None
        return next(
            (one.available for one in self.status.filesystem if one.mount_point == disk.mount_point), None
        )

    @property
    def evicts_files(self) -> bool:
        """Whether it removes model files that nobody uses to make room."""
        return self.status.model_disk is not None and self.status.model_disk.evicts

    @property
    def takes_instances(self) -> bool:
        """Whether administrators allow new placements here. Whether it is ready is not asked."""
        return not self.cordoned and not self.draining

    @property
    def emptied(self) -> Worker:
        """It as it would be if no program used its devices without a claim."""
        devices = tuple(
            attrs.evolve(one, memory=attrs.evolve(one.memory, foreign=None, overrun=None))
            for one in self.status.gpu_devices
        )
        return attrs.evolve(self, status=attrs.evolve(self.status, gpu_devices=devices))

    @property
    def has_reported(self) -> bool:
        """Whether it has said what it has; one that has just joined has not."""
        return self.status.memory.total is not None or bool(self.status.engines)

    def device(self, index: int) -> Device | None:
        """The device with that index, if the worker has reported it."""
        return next((d for d in self.status.gpu_devices if d.index == index), None)

    def build_of(
        self, engine: str, version: str | None = None, requirements: tuple[str, ...] = ()
    ) -> EngineBuild | None:
        """The build of ``engine`` that a deployment would run on here, if there is one; see ``choose_build``."""
        return choose_build(self.status.engines, engine, version, requirements)


def unmatched(selector: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """The pairs of a worker selector that ``labels`` lacks or has with another value; empty if it matches."""
    return {key: value for key, value in selector.items() if labels.get(key) != value}
