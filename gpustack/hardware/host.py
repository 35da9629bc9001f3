"""The host: processor, memory, file systems and system, within the limits of our control group."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import attrs

from gpustack.domain.worker import Cpu, Filesystem, Kernel, Memory, OperatingSystem, Uptime, WorkerStatus
from gpustack.hardware.cgroup import CgroupUsage, read_group
from gpustack.text import printable

MOST_FILESYSTEMS = 32

_REMOTE = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "beegfs", "afs", "fuse.sshfs", "ncpfs")
"""File systems that are not measured: while their server is away, ``statvfs`` on them never returns."""

_PSEUDO = ("squashfs", "overlay", "tmpfs", "devtmpfs", "ramfs", "iso9660", "nullfs", "autofs")
"""File systems that hold no models. An overlay is measured all the same where it is the root of a container."""


@attrs.frozen
class _CpuSample:
    at: float
    busy: float
    """Seconds of processor time consumed: by the group where it has a limit, else by the machine."""


@attrs.define(eq=False)
class HostMonitor:
    """Measures the host. It remembers the last reading of the processor, since load is a difference of two.

    ``root`` is where ``proc``, ``sys`` and ``etc`` are found. ``clock`` is monotonic, in seconds.
    """

    clock: Callable[[], float]
    root: Path = Path("/")
    _last: _CpuSample | None = None

    def look(self, now: datetime) -> WorkerStatus:
        """Measure, in a millisecond or two. Blocking: call it in a thread. What cannot be measured is ``None``.

        The first time there is no processor load. Devices and engines are left empty: see ``monitor.compose``.
        """
        import psutil

        group = read_group(self.root)
        return WorkerStatus(
            cpu=self._cpu(group),
            memory=_memory(group),
            swap=_swap(),
            filesystem=filesystems(psutil.disk_partitions(all=True)),
            os=read_os(self.root),
            kernel=_kernel(),
            uptime=_uptime(now, psutil.boot_time()),
        )

    def _cpu(self, group: CgroupUsage) -> Cpu:
        import psutil

        cores = usable_cores(
            group, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        )
        if group.cpus is not None and group.cpu_seconds is not None:
            busy = group.cpu_seconds
            capacity = cores
        else:
            times = psutil.cpu_times()
            busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - _guest(times)
            capacity = float(psutil.cpu_count() or 0) or None
        before, self._last = self._last, _CpuSample(self.clock(), busy)
        return Cpu(total=cores, utilization_rate=load(before, self._last, capacity))

    def __repr__(self) -> str:
        return (
            f"<HostMonitor, last measured at {self._last.at:.1f} s>"
            if self._last
            else "<HostMonitor, not measured yet>"
        )


def usable_cores(group: CgroupUsage, allowed: int | None) -> float | None:
    """The smaller of the number of cores we may be scheduled on and the group's quota."""
    known = [float(count) for count in (allowed, group.cpus) if count]
    return min(known) if known else None


def load(before: _CpuSample | None, after: _CpuSample, cores: float | None) -> float | None:
    """Percent of ``cores`` used between two readings."""
    if before is None or not cores or after.at <= before.at:
        return None
    share = (after.busy - before.busy) / ((after.at - before.at) * cores)
    return round(min(max(share, 0.0), 1.0) * 100, 1)


def bounded(machine: Memory, group: CgroupUsage) -> Memory:
    """The machine's memory within the group's limit, whichever is smaller."""
    if group.memory is None or (machine.total is not None and machine.total <= group.memory):
        return machine
    return attrs.evolve(
        machine,
        total=group.memory,
        used=group.memory_used,
        utilization_rate=percent(group.memory_used, group.memory),
    )


def percent(part: int | None, whole: int | None) -> float | None:
    """``part`` of ``whole`` in percent, to a tenth."""
    return None if part is None or not whole else round(part / whole * 100, 1)


def filesystems(partitions: Iterable[object]) -> tuple[Filesystem, ...]:
    """The local file systems among ``partitions`` (as psutil lists mounts), each device once, at most 32."""
    found: dict[str, Filesystem] = {}
    for partition in partitions:
        mount, device, kind = (
            str(getattr(partition, name, "")) for name in ("mountpoint", "device", "fstype")
        )
        if not _is_storage(mount, device, kind) or device in found:
            continue
        try:
            seen = os.statvfs(mount)
            is_folder = Path(
                mount
            ).is_dir()  # containers get single files of the host mounted, such as /etc/hosts
        except OSError:
            continue
        if seen.f_blocks == 0 or not is_folder:
            continue
        unit = seen.f_frsize
        found[device] = Filesystem(
            name=printable(mount),
            mount_point=printable(mount),
            mount_from=printable(device),
            total=seen.f_blocks * unit,
            used=(seen.f_blocks - seen.f_bfree) * unit,
            free=seen.f_bfree * unit,
            available=seen.f_bavail * unit,
        )
        if len(found) == MOST_FILESYSTEMS:
            break
    return tuple(found.values())


def _is_storage(mount: str, device: str, kind: str) -> bool:
    if mount == "/":
        return True
    if kind.startswith(_REMOTE) or kind in _PSEUDO:
        return False
    return device.startswith("/") or kind in ("zfs", "apfs", "btrfs", "xfs", "ext4", "bcachefs", "virtiofs")


def read_os(root: Path = Path("/")) -> OperatingSystem:
    """Name and version of the distribution from ``os-release``; elsewhere what the platform says."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            with (root / name).open(encoding="utf-8", errors="replace") as file:
                fields = dict(_assignments(file.read(64 << 10)))
        except OSError:
            continue
        return OperatingSystem(
            name=printable(fields.get("NAME", "")),
            version=printable(fields.get("VERSION") or fields.get("VERSION_ID", "")),
        )
    return OperatingSystem(name=platform.system(), version=platform.release())


def _assignments(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith("#"):
            yield key.strip(), value.strip().strip("\"'")


def _kernel() -> Kernel:
    seen = platform.uname()
    return Kernel(
        name=printable(seen.system),
        release=printable(seen.release),
        version=printable(seen.version),
        architecture=printable(seen.machine),
    )


def _memory(group: CgroupUsage) -> Memory:
    import psutil

    seen = psutil.virtual_memory()
    used = seen.total - seen.available
    # Apple's accelerator shares the memory of the host
    unified = platform.system() == "Darwin" and platform.machine() == "arm64"
    machine = Memory(
        total=seen.total, used=used, utilization_rate=percent(used, seen.total), is_unified_memory=unified
    )
    return bounded(machine, group)


def _swap() -> Memory:
    import psutil

    try:
        seen = psutil.swap_memory()
    except (OSError, RuntimeError):  # psutil raises either where the system does not tell
        return Memory()
    return Memory(total=seen.total, used=seen.used, utilization_rate=percent(seen.used, seen.total))


def _guest(times: object) -> float:
    """Time of guests is counted in ``user`` and ``nice`` as well: once is enough."""
    return float(getattr(times, "guest", 0.0)) + float(getattr(times, "guest_nice", 0.0))


def _uptime(now: datetime, boot: float) -> Uptime:
    boot_time = datetime.fromtimestamp(int(boot), UTC)
    return Uptime(uptime=max((now - boot_time).total_seconds(), 0.0), boot_time=boot_time)
