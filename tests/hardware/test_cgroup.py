"""What the control group allows is what the machine has, in either hierarchy and inside containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gpustack.hardware.cgroup import CgroupUsage, read_group

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
V1_PLACE = "5:memory:{place}\n3:cpu,cpuacct:{place}\n1:name=systemd:/init.scope\n0::/init.scope\n"
GIB = 2**30


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_tightest_limit_of_our_group_and_its_ancestors_counts(tmp_path: Path) -> None:
    slice_ = "sys/fs/cgroup/system.slice"
    root = tree(
        tmp_path,
        {
            "proc/self/mountinfo": V2_MOUNT,
            "proc/self/cgroup": "0::/system.slice/gpustack.service\n",
            f"{slice_}/gpustack.service/memory.max": "max\n",
            f"{slice_}/gpustack.service/memory.current": "111\n",
            f"{slice_}/gpustack.service/cpu.max": "350000 100000\n",
            f"{slice_}/gpustack.service/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
            f"{slice_}/memory.max": f"{8 * GIB}\n",
            f"{slice_}/memory.current": f"{3 * GIB}\n",
            f"{slice_}/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            f"{slice_}/cpu.max": "max 100000\n",
        },
    )
    assert read_group(root) == CgroupUsage(cpus=3.5, cpu_seconds=2.5, memory=8 * GIB, memory_used=2 * GIB)


@pytest.mark.parametrize(
    ("top", "place", "folder"),
    [
        ("/", "/docker/abc", "docker/abc/"),
        ("/docker/abc", "/docker/abc", ""),  # a container that sees its own group as the root
        ("/", "/", ""),
        ("/docker/abc", "/", ""),
    ],
)
def test_the_first_hierarchy_is_read_as_well(tmp_path: Path, top: str, place: str, folder: str) -> None:
    memory, cpu = f"sys/fs/cgroup/memory/{folder}", f"sys/fs/cgroup/cpu,cpuacct/{folder}"
    root = tree(
        tmp_path,
        {
            "proc/self/mountinfo": V1_MOUNTS.format(top=top),
            "proc/self/cgroup": V1_PLACE.format(place=place),
            f"{memory}memory.limit_in_bytes": f"{4 * GIB}\n",
            f"{memory}memory.usage_in_bytes": f"{GIB}\n",
            f"{memory}memory.stat": "total_inactive_file 24\n",
            f"{cpu}cpu.cfs_quota_us": "150000\n",
            f"{cpu}cpu.cfs_period_us": "100000\n",
            f"{cpu}cpuacct.usage": "7000000000\n",
        },
    )
    assert read_group(root) == CgroupUsage(cpus=1.5, cpu_seconds=7.0, memory=4 * GIB, memory_used=GIB - 24)


def test_no_limit_is_none(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/mountinfo": V1_MOUNTS.format(top="/"),
            "proc/self/cgroup": V1_PLACE.format(place="/"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert read_group(root) == CgroupUsage()


@pytest.mark.parametrize("limit", ["", "many\n", "100000", "max\n", "100000 0\n", "\xff\n"])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, limit: str) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/mountinfo": V2_MOUNT + "garbage\n - \n",
            "proc/self/cgroup": "0::/\nnonsense\n",
            "sys/fs/cgroup/cpu.max": limit,
        },
    )
    assert read_group(root).cpus is None


def test_a_path_outside_the_mount_stays_inside_it(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/mountinfo": V2_MOUNT,
            "proc/self/cgroup": "0::/../../elsewhere\n",
            "sys/fs/cgroup/memory.max": "100\n",
            "sys/elsewhere/memory.max": "1\n",
        },
    )
    assert read_group(root).memory == 100


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert read_group(tmp_path) == CgroupUsage()
