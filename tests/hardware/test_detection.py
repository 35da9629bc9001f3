"""Accelerators are found by a child process that may hang, die or lie without harm to the worker."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.worker import Memory, WorkerStatus
from gpustack.hardware.detection import QUIET, Detection, DeviceMonitor, from_json
from gpustack.hardware.detector import DetectorReport
from gpustack.hardware.look import to_json
from gpustack.hardware.monitor import compose
from gpustack.hardware.probe import started_at
from gpustack.nursery.process import module_command
from tests.child import environment
from tests.fakes.nvml import GB10, H200, FakeNvml, cards
from tests.hardware.machine import LATER, NOW, plug


@pytest.fixture
def watch(nvml: FakeNvml, tmp_path: Path) -> DeviceMonitor:
    return DeviceMonitor(root=plug(tmp_path), env=environment(**nvml.env), deadline=20.0)


def saying(root: Path, program: str, deadline: float = 20.0) -> DeviceMonitor:
    """A watch whose child is ``program``."""
    return DeviceMonitor(root=plug(root), command=(sys.executable, "-c", program), deadline=deadline)


async def test_every_card_is_seen_with_all_it_tells(watch: DeviceMonitor, nvml: FakeNvml) -> None:
    nvml.tell(cards(2, util=40, temp=61))
    seen = await watch.look(NOW)
    assert (seen.faults, seen.stale_since) == ((), None)
    first, second = seen.devices
    assert (first.index, first.name, first.vendor, first.type) == (0, "NVIDIA H200", "NVIDIA", "cuda")
    assert (first.memory.total, first.memory.used) == (H200["total"], H200["used"])
    assert (first.core.total, first.core.utilization_rate) == (16896, 40.0)
    assert (first.temperature, first.compute_capability, first.driver_version) == (61.0, "9.0", "570.124.06")
    assert (second.index, second.uuid) == (1, cards(2)[1]["uuid"])


@pytest.mark.parametrize("name", ["detect", "detection"])
async def test_a_daemon_of_before_an_upgrade_sees_the_cards_until_its_reload(
    nvml: FakeNvml, tmp_path: Path, name: str
) -> None:
    """It starts its child by a former name, from the program that is installed now."""
    nvml.tell(cards(2))
    command = module_command(f"gpustack.hardware.{name}")
    watch = DeviceMonitor(root=plug(tmp_path), env=environment(**nvml.env), deadline=20.0, command=command)
    assert [device.index for device in (await watch.look(NOW)).devices] == [0, 1]


async def test_a_question_a_card_cannot_answer_costs_only_that_answer(
    watch: DeviceMonitor, nvml: FakeNvml
) -> None:
    (card,) = cards(1)
    nvml.tell([{key: value for key, value in card.items() if key in ("state", "name", "total", "used")}])
    (seen,) = (await watch.look(NOW)).devices
    assert (seen.name, seen.memory.total, seen.fault) == ("NVIDIA H200", H200["total"], None)
    assert (seen.uuid, seen.temperature, seen.core) == (None, None, None)


async def test_a_card_that_shares_the_hosts_memory_is_given_that_memory(
    watch: DeviceMonitor, nvml: FakeNvml
) -> None:
    nvml.tell([GB10])
    detection = await watch.look(NOW)
    assert detection.devices[0].memory == DeviceMemory(is_unified_memory=True)
    status = compose(WorkerStatus(memory=Memory(total=128, used=28)), detection, ())
    (memory,) = (device.memory for device in status.gpu_devices)
    assert (memory.total, memory.used, memory.is_unified_memory) == (128, 28, True)
    assert status.memory.is_unified_memory


async def test_a_lost_card_is_shown_with_its_fault_and_hides_no_other(
    watch: DeviceMonitor, nvml: FakeNvml
) -> None:
    lost, well = cards(2)
    nvml.tell([{**lost, "state": "lost"}, well])
    first, second = (await watch.look(NOW)).devices
    assert first.fault is not None and "lost" in first.fault
    assert (first.index, first.memory.total, first.memory.is_unified_memory) == (0, None, False)
    assert (second.index, second.fault) == (1, None)


@pytest.mark.parametrize(
    ("library", "word"), [("not_loaded", "kernel driver is not loaded"), ("mismatch", "different versions")]
)
async def test_a_broken_driver_is_told_with_what_to_do(
    watch: DeviceMonitor, nvml: FakeNvml, library: str, word: str
) -> None:
    nvml.tell([], library=library)
    seen = await watch.look(NOW)
    assert seen.devices == ()
    assert word in seen.faults[0]


async def test_a_hanging_driver_costs_the_deadline_and_the_last_answer_stays_marked_stale(
    watch: DeviceMonitor, nvml: FakeNvml
) -> None:
    nvml.tell(cards(1))
    good = await watch.look(NOW)
    nvml.tell(cards(1, state="hang"))
    watch.deadline = 1.0
    with trio.fail_after(30):
        seen = await watch.look(LATER)
    assert seen == Detection(
        devices=good.devices,
        faults=("NVIDIA devices cannot be looked at: the driver did not answer within 1 s",),
        stale_since=NOW,
    )
    nvml.tell(cards(1))
    watch.deadline = 20.0
    assert await watch.look(LATER) == good


@pytest.mark.parametrize(
    ("vendor", "kind"), [("0x1af4", "0x030000"), ("0x10de", "0x020000")], ids=["other vendor", "network card"]
)
async def test_without_a_vendors_card_on_the_bus_nothing_is_started(
    tmp_path: Path, vendor: str, kind: str
) -> None:
    root = plug(tmp_path, vendor, kind)
    watch = DeviceMonitor(root=root, command=("/nonexistent",))
    assert await watch.look(NOW) == Detection()


@pytest.mark.parametrize("file", ["dev/dxg", "dev/nvidiactl"])
async def test_a_device_file_is_as_good_as_a_card_on_the_bus(tmp_path: Path, file: str) -> None:
    root = plug(tmp_path, "0x8086")
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).touch()
    seen = await DeviceMonitor(root=root, command=("/nonexistent",)).look(NOW)
    assert "could not be started" in seen.faults[0]


@pytest.mark.parametrize(
    ("program", "word"),
    [
        ("print('x')", "its report cannot be read"),
        ("print('[]')", "its report cannot be read"),
        ("print('{\"devices\": [{}]}')", "its report cannot be read"),
        ("raise SystemExit('library exploded')", "exit code 1 (library exploded)"),
        ("import os; os.abort()", f"signal {signal.SIGABRT.value}"),
        ("print('x' * (5 << 20))", "said more than"),
        ("import time; time.sleep(600)", "did not answer within"),
    ],
)
async def test_a_child_that_fails_is_a_sentence(tmp_path: Path, program: str, word: str) -> None:
    deadline = 1.0 if "sleep" in program else 20.0
    with trio.fail_after(60):
        seen = await saying(tmp_path, program, deadline).look(NOW)
    assert seen.devices == ()
    assert seen.faults[0].startswith("NVIDIA devices cannot be looked at: ")
    assert word in seen.faults[0]


async def test_cancelling_a_look_ends_the_child_and_what_it_started(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    os.mkfifo(told)
    program = (
        "import os, subprocess, sys\n"
        "other = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(told)!r}, 'w').write(f'{{os.getpid()}} {{other.pid}}')\n"
        "other.wait()\n"
    )
    watch = saying(tmp_path, program, deadline=600)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.look, NOW)
            pids = [int(pid) for pid in (await trio.Path(told).read_text()).split()]
            nursery.cancel_scope.cancel()
        for pid in pids:
            while _runs(pid):
                await trio.lowlevel.checkpoint()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_child_that_cannot_be_killed_is_not_joined_by_another(tmp_path: Path) -> None:
    """A process stuck in a driver cannot be made here, so one that merely runs plays it."""
    marks = tmp_path / "marks"
    program = f"open({str(marks)!r}, 'a').write('x'); print('{json.dumps(to_json(DetectorReport()))}')"
    watch = saying(tmp_path, program)
    await watch.look(NOW)
    stuck = await trio.lowlevel.open_process(["sleep", "600"])
    try:
        watch._states["nvidia"].stuck = stuck
        seen = await watch.look(LATER)
        assert seen.stale_since == NOW
        assert "still hangs inside the driver" in seen.faults[0]
        assert marks.read_text() == "x"
    finally:
        stuck.kill()
        await stuck.wait()
    assert (await watch.look(LATER)).faults == ()
    assert marks.read_text() == "xx"


def devices() -> Iterator[Device]:
    yield Device(index=0, name="a", vendor="NVIDIA", type="cuda")
    yield Device(
        index=1, name="b", vendor="NVIDIA", type="cuda", memory=DeviceMemory(total=5), labels={"a": "b"}
    )


def test_a_report_survives_its_way_through_json() -> None:
    found = DetectorReport(devices=tuple(devices()), faults=("one",))
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


async def test_a_detector_that_finds_nothing_is_not_asked_again_at_once(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    program = f"open({str(marks)!r}, 'a').write('x'); print('{json.dumps(to_json(DetectorReport()))}')"
    watch = saying(tmp_path, program)
    for instant in (NOW, NOW + QUIET / 2, NOW + QUIET):
        assert await watch.look(instant) == Detection()
    assert marks.read_text() == "xx"


async def test_a_detector_that_takes_long_rests_ten_times_as_long(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    report = json.dumps(to_json(DetectorReport(devices=tuple(devices()))))
    program = f"import time; open({str(marks)!r}, 'a').write('x'); time.sleep(1.5); print({report!r})"
    watch = saying(tmp_path, program)
    first = await watch.look(NOW)
    assert await watch.look(NOW + timedelta(seconds=14)) == first
    assert marks.read_text() == "x"
    assert await watch.look(NOW + QUIET) == first
    assert marks.read_text() == "xx"


async def test_a_tool_that_cannot_be_ended_is_not_joined_by_another(tmp_path: Path) -> None:
    """What hangs in a driver cannot be made here, so a process that merely runs plays it; not so another of its pid."""
    marks = tmp_path / "marks"
    hanging = await trio.lowlevel.open_process(["sleep", "600"])
    start = started_at(hanging.pid)
    assert start is not None
    try:
        for told, looks in ((start, "x"), (start + 1, "xx")):
            report = json.dumps(to_json(DetectorReport(faults=("it hangs",), left=((hanging.pid, told),))))
            watch = saying(tmp_path, f"open({str(marks)!r}, 'a').write('x'); print({report!r})")
            marks.write_text("")
            await watch.look(NOW)
            await watch.look(LATER)
            assert marks.read_text() == looks
    finally:
        hanging.kill()
        await hanging.wait()
    assert started_at(hanging.pid) is None
