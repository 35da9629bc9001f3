"""Vendors' tools are run by a child with a deadline: whatever they do, the worker lives on and keeps what was known."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio

from gpustack.hardware.detection import DeviceMonitor
from gpustack.hardware.probe import LONGEST_OUTPUT, MachineProbe
from tests.child import environment
from tests.fakes.nvml import FakeNvml, cards
from tests.hardware.machine import LATER, NOW, plug

CARD = "0, Iluvatar MR-V50, GPU-1, 16384 MiB, 116 MiB, 0 %, 30 C"
OTHER = "1, Iluvatar MR-V50, GPU-2, 16384 MiB, 0 MiB, 0 %, 30 C"


class Machine:
    """A bus with an Iluvatar card, and an ``ixsmi`` on PATH that is a shell script."""

    def __init__(self, folder: Path) -> None:
        self.tools = folder / "bin"
        self.tools.mkdir()
        self.root = plug(folder / "root", "0x1e3e", "0x120000")
        self.monitor = DeviceMonitor(
            root=self.root, env=environment(PATH=f"{self.tools}{os.pathsep}/usr/bin:/bin"), deadline=20.0
        )

    def tool(self, script: str, name: str = "ixsmi") -> None:
        program = self.tools / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_a_tools_cards_are_seen_and_its_warnings_are_not_in_the_way(machine: Machine) -> None:
    """It is run in the language that we read, without a terminal, in a folder of its own."""
    machine.tool(
        f'echo warning >&2; test "$LC_ALL" = C && test -z "$(ls)" && test ! -t 0 && echo "{CARD}"; exit 0'
    )
    found = await machine.monitor.look(NOW)
    assert found.faults == ()
    assert [(one.index, one.name, one.type) for one in found.devices] == [(0, "Iluvatar MR-V50", "corex")]


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("exec sleep 600", "did not answer within"),
        ("exec yes", f"said more than {LONGEST_OUTPUT} bytes"),
        ("echo 'driver is not loaded' >&2; exit 9", "ended with exit code 9 (driver is not loaded)"),
        ("kill -SEGV $$", "ended with signal 11"),
        ("printf '\\377\\376\\000'", "names no device"),
    ],
    ids=["hangs", "never ends", "fails", "dies", "garbage"],
)
async def test_what_a_tool_does_wrong_is_a_sentence_and_the_last_answer_stays_marked_stale(
    machine: Machine, script: str, word: str
) -> None:
    machine.tool(f'echo "{CARD}"')
    good = await machine.monitor.look(NOW)
    machine.tool(script)
    with trio.fail_after(60):
        seen = await machine.monitor.look(LATER)
    assert (seen.devices, seen.stale_since) == (good.devices, NOW)
    assert word in seen.faults[0]


async def test_cards_that_are_told_before_a_tool_fails_count_and_those_it_left_out_are_kept_as_unfit(
    machine: Machine,
) -> None:
    machine.tool(f'echo "{CARD}"; echo "{OTHER}"')
    await machine.monitor.look(NOW)
    machine.tool(f'echo "{CARD}"; exit 1')
    seen = await machine.monitor.look(LATER)
    first, second = seen.devices
    assert (first.fault, seen.stale_since) == (None, NOW)
    assert second.fault == "The last look at the devices did not find this one"
    machine.tool(f'echo "{CARD}"')
    assert [one.index for one in (await machine.monitor.look(LATER)).devices] == [0]


async def test_a_missing_tool_is_named(machine: Machine) -> None:
    seen = await machine.monitor.look(NOW)
    assert seen.devices == ()
    assert "ixsmi is not installed" in seen.faults[0]


async def test_two_families_in_one_machine_share_no_index(machine: Machine, nvml: FakeNvml) -> None:
    """Claims are held by it. NVIDIA's keep their numbers."""
    machine.tool(f'echo "{CARD}"; echo "{OTHER}"')
    nvml.tell(cards(2, path="0.0.0.0"))
    plug(machine.root, slot=2)
    assert machine.monitor.env is not None
    machine.monitor.env = {**machine.monitor.env, **nvml.env}
    found = await machine.monitor.look(NOW)
    assert [(one.index, one.number, one.type) for one in found.devices] == [
        (0, 0, "cuda"),
        (1, 1, "cuda"),
        (10_000, 0, "corex"),
        (10_001, 1, "corex"),
    ]
    assert found.devices[1].links[0].indexes == (0,)


def test_a_tool_that_leaves_a_process_behind_is_not_waited_for(machine: Machine) -> None:
    machine.tool("sleep 3 & echo here")
    answer = MachineProbe(folders=(str(machine.tools),), deadline=20.0).run("ixsmi")
    assert (answer.out, answer.fault) == ("here\n", None)


def test_all_tools_of_one_look_share_its_time(machine: Machine) -> None:
    machine.tool("exec sleep 600")
    probe = MachineProbe(folders=(str(machine.tools),), deadline=20.0, budget=0.0)
    assert "did not answer" in (probe.run("ixsmi").fault or "")


def test_an_answer_in_a_file_is_read_from_the_folder_of_that_run(machine: Machine) -> None:
    machine.tool("echo said; echo written > there.json")
    probe = MachineProbe(folders=(str(machine.tools),))
    assert probe.run("ixsmi", file="there.json").out == "written\n"
    assert probe.run("ixsmi", file="elsewhere.json").fault == "did not write elsewhere.json"
    assert not Path("there.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_files_are_read_within_bounds(tmp_path: Path) -> None:
    probe = MachineProbe(root=tmp_path)
    (tmp_path / "long").write_text("x" * (1 << 20))
    assert len(probe.read("/long") or "") == 1 << 16
    assert (probe.read("/missing"), probe.names("/missing")) == (None, ())
    assert probe.names("/") == ("long",)


def test_a_tool_is_told_no_secret_of_the_daemon(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPUSTACK_BOOTSTRAP_PASSWORD", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hidden")
    machine.tool("env")
    answer = MachineProbe(folders=(str(machine.tools),)).run("ixsmi")
    assert "PATH=" in answer.out and "hidden" not in answer.out
