"""The limits of this process's control group: what a container or service unit may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import attrs

UNLIMITED = 1 << 60
"""Version 1 of cgroups writes a huge number where there is no limit; no machine has as much."""


@attrs.frozen(kw_only=True)
class CgroupUsage:
    """Limits and usage of the control group; ``None`` where it sets no limit or does not account.

    ``cpus`` may be a fraction. ``cpu_seconds`` is what the limited group has consumed since it was made.
    ``memory_used`` is in bytes, without file pages that the kernel would give back at once.
    """

    cpus: float | None = None
    cpu_seconds: float | None = None
    memory: int | None = None
    memory_used: int | None = None


_Reading = Callable[[Path], float | None]
_Used = Callable[[Path], int | None]


@attrs.frozen
class _Mount:
    point: Path
    root: str
    controllers: frozenset[str]
    """Empty for version 2, which has all of them."""


def read_group(root: Path = Path("/")) -> CgroupUsage:
    """Read the control groups of this process, version 1 or 2. Never raises: what cannot be read is ``None``.

    A limit may be set on any ancestor: the lowest one counts. ``root`` is where ``proc`` and ``sys`` are found.
    """
    mounts = _mounts(root)
    places = _memberships(root)
    use = CgroupUsage()
    for mount in mounts:
        if mount.controllers:
            if "memory" in mount.controllers and "memory" in places:
                use = _lower_memory_limit(
                    use, _chain(mount, places["memory"]), "memory.limit_in_bytes", _used_v1
                )
            if "cpu" in mount.controllers and "cpu" in places:
                use = _lower_cpu_limit(use, _chain(mount, places["cpu"]), _quota_v1, _consumed_v1)
        elif "" in places:
            chain = _chain(mount, places[""])
            use = _lower_memory_limit(use, chain, "memory.max", _used_v2)
            use = _lower_cpu_limit(use, chain, _quota_v2, _consumed_v2)
    return use


def _lower_memory_limit(use: CgroupUsage, chain: list[Path], limit: str, used: _Used) -> CgroupUsage:
    for folder in chain:
        size = _number(folder / limit)
        if size is not None and size < UNLIMITED and (use.memory is None or size < use.memory):
            use = attrs.evolve(use, memory=size, memory_used=used(folder))
    return use


def _lower_cpu_limit(use: CgroupUsage, chain: list[Path], quota: _Reading, consumed: _Reading) -> CgroupUsage:
    for folder in chain:
        cpus = quota(folder)
        if cpus is not None and (use.cpus is None or cpus < use.cpus):
            use = attrs.evolve(use, cpus=cpus, cpu_seconds=consumed(folder))
    return use


def _used_v1(folder: Path) -> int | None:
    return _less(
        _number(folder / "memory.usage_in_bytes"), _field(folder / "memory.stat", "total_inactive_file")
    )


def _used_v2(folder: Path) -> int | None:
    return _less(_number(folder / "memory.current"), _field(folder / "memory.stat", "inactive_file"))


def _less(used: int | None, reclaimable: int | None) -> int | None:
    return None if used is None else max(used - (reclaimable or 0), 0)


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None


def _quota_v2(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def _consumed_v1(folder: Path) -> float | None:
    # There when cpu and cpuacct are mounted together, as usual.
    nanoseconds = _number(folder / "cpuacct.usage")
    return None if nanoseconds is None else nanoseconds / 1e9


def _consumed_v2(folder: Path) -> float | None:
    microseconds = _field(folder / "cpu.stat", "usage_usec")
    return None if microseconds is None else microseconds / 1e6


def _mounts(root: Path) -> list[_Mount]:
    found = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) < 5 or len(after) < 3 or after[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = frozenset(after[2].split(",")) if after[0] == "cgroup" else frozenset()
        found.append(_Mount(root / before[4].lstrip("/"), before[3], controllers))
    return found


def _memberships(root: Path) -> dict[str, str]:
    """Controller → path of our group; version 2 has the empty name."""
    places = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                places[controller] = parts[2]
    return places


def _chain(mount: _Mount, path: str) -> list[Path]:
    """The folders of our group and its ancestors, as far as this mount shows them.

    Inside a container the mount may begin at our own group, while the path is still relative to the host's root.
    """
    ours, top = PurePosixPath(path), PurePosixPath(mount.root)
    inside = ours.relative_to(top) if ours.is_relative_to(top) else PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    leaf = mount.point / inside
    if not leaf.is_dir():
        return [mount.point]
    return [mount.point / part for part in (inside, *inside.parents)] if inside.parts else [mount.point]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    try:
        return int(text)
    except ValueError:
        return None


def _field(path: Path, name: str) -> int | None:
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None
