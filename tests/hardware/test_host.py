"""What a worker says of its host: measured, within its control group, unknown where it cannot know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from gpustack.domain.document import decode, encode
from gpustack.domain.worker import Memory, WorkerStatus
from gpustack.hardware.cgroup import CgroupUsage
from gpustack.hardware.host import (
    MOST_FILESYSTEMS,
    HostMonitor,
    bounded,
    filesystems,
    read_os,
    usable_cores,
)

GIB = 2**30
NOW = datetime(2026, 1, 2, tzinfo=UTC)
MACHINE = Memory(total=16 * GIB, used=4 * GIB, utilization_rate=25.0)


def seconds() -> Iterator[float]:
    yield from (10.0 * n for n in range(100))


def group(root: Path, usage: int, limit: int = GIB) -> Path:
    for name, text in {
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/cpu.stat": f"usage_usec {usage}\n",
        "sys/fs/cgroup/memory.max": f"{limit}\n",
        "sys/fs/cgroup/memory.current": f"{limit // 4}\n",
        "etc/os-release": 'NAME="Debian GNU/Linux"\n# VERSION="none"\nVERSION="12 (bookworm)"\nbroken\n',
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_is_measured() -> None:
    status = HostMonitor(clock=seconds().__next__).look(datetime.now(UTC))
    assert status.memory.total and 0 < status.memory.total <= psutil.virtual_memory().total
    assert status.cpu.total and 0 < status.cpu.total <= (os.cpu_count() or 0)
    assert status.kernel.release == os.uname().release
    assert status.uptime.uptime and status.uptime.boot_time
    assert any(one.mount_point == "/" for one in status.filesystem)
    for one in status.filesystem:
        assert one.total and one.used is not None and one.used <= one.total


def test_the_first_look_knows_no_load_and_the_second_does() -> None:
    host = HostMonitor(clock=seconds().__next__)
    assert host.look(NOW).cpu.utilization_rate is None
    load = host.look(NOW).cpu.utilization_rate
    assert load is not None and 0 <= load <= 100


def test_inside_a_group_the_load_is_that_of_the_group(tmp_path: Path) -> None:
    host = HostMonitor(clock=seconds().__next__, root=group(tmp_path, usage=1_000_000))
    host.look(NOW)
    group(tmp_path, usage=2_000_000)  # one second of work in ten, of half a core
    status = host.look(NOW)
    assert (status.cpu.total, status.cpu.utilization_rate) == (0.5, 20.0)
    assert (status.memory.total, status.memory.used, status.memory.utilization_rate) == (GIB, GIB // 4, 25.0)
    assert (status.os.name, status.os.version) == ("Debian GNU/Linux", "12 (bookworm)")


def test_memory_is_the_smaller_of_machine_and_group() -> None:
    assert bounded(MACHINE, CgroupUsage(memory=64 * GIB, memory_used=1)) == MACHINE
    assert bounded(MACHINE, CgroupUsage()) == MACHINE
    unknown_use = bounded(MACHINE, CgroupUsage(memory=GIB))
    assert (unknown_use.total, unknown_use.used, unknown_use.utilization_rate) == (GIB, None, None)


def test_cores_are_the_smaller_of_affinity_and_quota() -> None:
    assert usable_cores(CgroupUsage(cpus=1.5), 8) == 1.5
    assert usable_cores(CgroupUsage(cpus=12.0), 8) == 8
    assert usable_cores(CgroupUsage(), None) is None


def partition(mountpoint: str, device: str, fstype: str) -> SimpleNamespace:
    return SimpleNamespace(mountpoint=mountpoint, device=device, fstype=fstype)


def test_only_storage_is_listed_and_each_device_once(tmp_path: Path) -> None:
    folder = str(tmp_path)
    single = tmp_path / "hosts"
    single.write_text("")
    seen = filesystems(
        [
            partition("/", "overlay", "overlay"),
            partition(str(single), "/dev/sdz", "ext4"),  # a single file of the host, in a container
            partition(folder, "/dev/sdb1", "xfs"),
            partition(folder, "/dev/sdb1", "xfs"),
            partition(folder, "proc", "proc"),
            partition(folder, "tmpfs", "tmpfs"),
            partition(folder, "filer:/models", "nfs4"),
            partition(str(tmp_path / "gone"), "/dev/sdc1", "ext4"),
        ]
    )
    assert [(one.mount_point, one.mount_from) for one in seen] == [("/", "overlay"), (folder, "/dev/sdb1")]


def test_the_list_of_filesystems_is_bounded(tmp_path: Path) -> None:
    many = [partition(str(tmp_path), f"/dev/sd{n}", "ext4") for n in range(500)]
    assert len(filesystems(many)) == MOST_FILESYSTEMS


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"=\n==\nNAME"])
def test_an_odd_os_release_is_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_bytes(content)
    assert read_os(tmp_path).name == ""


def test_names_that_the_kernel_tells_can_be_stored_and_sent(tmp_path: Path) -> None:
    """A mount point, a label of a disk and a distribution's name are any bytes."""
    odd = tmp_path / os.fsdecode(b"caf\xe9\n\x1b[31m")
    odd.mkdir()
    (seen,) = filesystems([SimpleNamespace(mountpoint=str(odd), device=f"/dev/{odd.name}", fstype="ext4")])
    assert seen.mount_point == seen.name == f"{tmp_path}/" + r"caf\xe9\n\x1b[31m"
    assert seen.mount_from == r"/dev/caf\xe9\n\x1b[31m"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_bytes(b'NAME="caf\xe9\x00"\nVERSION="1\x1b"\n')
    assert read_os(tmp_path).name.isprintable() and read_os(tmp_path).version == r"1\x1b"
    status = HostMonitor(lambda: 0.0).look(NOW)
    assert decode(encode(status), WorkerStatus) == status
