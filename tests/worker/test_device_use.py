"""Memory of devices that other programs use, or engines beyond their claims, is told, and does not flutter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.assignment import AssignmentState
from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.instance import Claim
from gpustack.domain.unit import GIB, MIB
from gpustack.domain.worker import WorkerStatus
from gpustack.hardware.detection import Detection, DeviceMonitor
from gpustack.hardware.detector import DeviceUse
from gpustack.hardware.monitor import compose
from gpustack.nursery.process_identity import boot_id, read_stat
from gpustack.nursery.state import GroupState, write_state
from gpustack.worker.assignment_watcher import AssignmentSnapshot
from gpustack.worker.device_use import DRIVER_SHARE, STEP, DeviceShare, DeviceUses, SteadyAmount, share_of
from tests.child import environment
from tests.fakes.nvml import FakeNvml, cards
from tests.hardware.test_detection import plug
from tests.policy.worlds import instance, model

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def engine() -> Iterator[tuple[int, int]]:
    """A process that leads its session, and the pid of its child."""
    program = (
        "import subprocess, sys; child = [sys.executable, '-c', 'import sys; sys.stdin.read()'];"
        "c = subprocess.Popen(child, stdin=subprocess.PIPE);"
        "print(c.pid, flush=True); sys.stdin.read(); c.stdin.close(); c.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        yield process.pid, int(process.stdout.readline())
        process.stdin.close()


@pytest.fixture
def stranger() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def on_record(folder: Path, pid: int, name: str) -> None:
    stat = read_stat(pid)
    assert stat is not None
    state = GroupState(pid=pid, boot_id=boot_id(), start_ticks=stat.start_ticks, started_at=NOW)
    write_state(folder / f"{name}.json", state)


def assigned(**vram: int) -> AssignmentSnapshot:
    claim = Claim(vram={int(name[3:]): size for name, size in vram.items()})
    record = instance(5, model(), on=3, claim=claim)
    return AssignmentSnapshot(AssignmentState(instances={5: record}), synced=True, worker_id=3)


def shares(status: WorkerStatus) -> list[tuple[int | None, int | None]]:
    return [(one.memory.foreign, one.memory.overrun) for one in status.gpu_devices]


async def look(nvml: FakeNvml, folder: Path, uses: DeviceUses) -> WorkerStatus:
    monitor = DeviceMonitor(root=plug(folder), env=environment(**nvml.env), deadline=20.0)
    found: Detection = await monitor.look(NOW)
    return await uses.over(compose(WorkerStatus(), found, ()), found.uses)


async def test_what_strangers_hold_and_what_an_engine_takes_beyond_its_claim_is_told_by_the_driver(
    nvml: FakeNvml, tmp_path: Path, engine: tuple[int, int], stranger: int
) -> None:
    main, child = engine
    ours = f"{main}:{2 * GIB},{child}:{3 * GIB}"
    one, two, three = cards(3, used=40 * GIB)
    one["processes"] = f"{ours},{stranger}:{12 * GIB}"
    two["processes"] = f"{stranger}:{100 * MIB},{2**22 + 1}:{8 * GIB}"
    nvml.tell([one, two, three])
    on_record(tmp_path, main, "instance-5")
    uses = DeviceUses(
        state_dir=tmp_path, assigned=lambda: assigned(gpu0=4 * GIB, gpu1=9 * GIB), sees_all_pids=lambda: True
    )
    told = await look(nvml, tmp_path, uses)
    # The second card's other process does not exist any more; an engine that is starting there holds its claim alone.
    assert shares(told) == [(12 * GIB, GIB), (128 * MIB, 0), (0, 0)]
    assert uses.held == {(5, 0): {0: 5 * GIB}}


async def test_in_a_container_pids_tell_nothing_so_that_claims_are_taken_for_ours(
    nvml: FakeNvml, tmp_path: Path, engine: tuple[int, int]
) -> None:
    nvml.tell(cards(1, used=40 * GIB, processes=f"{engine[0]}:{40 * GIB}"))
    on_record(tmp_path, engine[0], "instance-5")
    uses = DeviceUses(
        state_dir=tmp_path, assigned=lambda: assigned(gpu0=10 * GIB), sees_all_pids=lambda: False
    )
    assert shares(await look(nvml, tmp_path, uses)) == [(30 * GIB - DRIVER_SHARE, None)]
    assert uses.held == {}


async def test_before_the_server_has_told_its_assignments_no_engine_is_beyond_its_claim(
    nvml: FakeNvml, tmp_path: Path, engine: tuple[int, int], stranger: int
) -> None:
    nvml.tell(cards(1, used=40 * GIB, processes=f"{engine[0]}:{30 * GIB},{stranger}:{GIB}"))
    on_record(tmp_path, engine[0], "instance-5")
    snapshots = [AssignmentSnapshot(), assigned(gpu0=20 * GIB)]
    uses = DeviceUses(state_dir=tmp_path, assigned=lambda: snapshots.pop(0), sees_all_pids=lambda: True)
    assert shares(await look(nvml, tmp_path, uses)) == [(GIB, None)]
    assert shares(await look(nvml, tmp_path, uses)) == [(GIB, 10 * GIB)]


async def test_what_runs_within_ray_is_held_by_ray(
    nvml: FakeNvml, tmp_path: Path, engine: tuple[int, int]
) -> None:
    nvml.tell(cards(1, used=40 * GIB, processes=f"{engine[1]}:{30 * GIB}"))
    on_record(tmp_path, engine[0], "ray")
    uses = DeviceUses(
        state_dir=tmp_path, assigned=lambda: assigned(gpu0=30 * GIB), sees_all_pids=lambda: True
    )
    assert shares(await look(nvml, tmp_path, uses)) == [(0, 0)]


async def test_while_a_driver_hangs_what_was_told_last_stays(tmp_path: Path) -> None:
    device = Device(
        index=0, name="G", vendor="AMD", type="rocm", memory=DeviceMemory(total=64 * GIB, used=9 * GIB)
    )
    uses = DeviceUses(state_dir=tmp_path, assigned=lambda: assigned(gpu0=4 * GIB))
    told = await uses.over(WorkerStatus(gpu_devices=(device,)), ())
    assert shares(told) == [(5 * GIB - DRIVER_SHARE, None)]
    empty = attrs.evolve(device, memory=DeviceMemory(total=64 * GIB, used=0))
    for _ in range(20):
        told = await uses.over(WorkerStatus(gpu_devices=(empty,), stale_since=NOW), ())
    assert shares(told) == [(5 * GIB - DRIVER_SHARE, None)]


DEVICE = Device(index=0, name="G", vendor="NVIDIA", type="cuda", memory=DeviceMemory(total=GIB))


@pytest.mark.parametrize(
    "device",
    [
        DEVICE,
        attrs.evolve(DEVICE, fault="lost", memory=DeviceMemory(total=GIB, used=GIB)),
        attrs.evolve(DEVICE, memory=DeviceMemory(total=GIB, used=GIB, is_unified_memory=True)),
    ],
    ids=["no figures", "lost", "the host's memory"],
)
def test_what_cannot_be_told_is_unknown(device: Device) -> None:
    assert share_of(device, None, {}, {}) == DeviceShare()


def test_where_programs_that_draw_are_not_told_what_is_left_of_the_use_is_theirs() -> None:
    device = attrs.evolve(DEVICE, memory=DeviceMemory(total=64 * GIB, used=20 * GIB))
    use = DeviceUse(type="rocm", index=0, by_process={7: 8 * GIB, 8: GIB}, partial=True)
    owned = {7: (5, 0), 8: None}
    assert share_of(device, use, owned, {(5, 0): 9 * GIB}) == DeviceShare(
        foreign=12 * GIB - DRIVER_SHARE, overrun=0
    )
    full = attrs.evolve(device, memory=DeviceMemory(total=64 * GIB, used=9 * GIB))
    assert share_of(full, use, owned, {(5, 0): 6 * GIB}) == DeviceShare(foreign=GIB, overrun=2 * GIB)


def test_a_rise_is_told_at_the_second_look_and_a_fall_only_after_several() -> None:
    one = SteadyAmount(falls_after=3)
    seen = [one.after(size * GIB) for size in (0, 4, 4, 0, 4, 0, 0, 0)]
    assert [None if size is None else size // GIB for size in seen] == [0, 0, 4, 4, 4, 4, 4, 0]
    assert one.after(None) is None
    assert one.after(GIB + 1) == GIB + STEP


@given(base=st.integers(1, 64), wobble=st.lists(st.integers(-STEP // 2, STEP // 2), min_size=20, max_size=60))
def test_what_wavers_within_a_step_is_told_at_most_twice(base: int, wobble: list[int]) -> None:
    one = SteadyAmount(falls_after=6)
    told = [one.after(max(base * STEP + change, 0)) for change in wobble]
    assert len([1 for before, after in pairwise(told) if before != after]) <= 2


@given(st.lists(st.integers(0, 8 * GIB), min_size=2))
def test_no_less_is_told_than_two_looks_in_a_row_found(amounts: list[int]) -> None:
    one = SteadyAmount(falls_after=6)
    for before, after in zip(amounts[:1] + amounts, amounts, strict=False):
        told = one.after(after)
        assert told is not None and told >= min(before, after)
        assert told % STEP == 0
