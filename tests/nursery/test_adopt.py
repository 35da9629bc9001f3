"""A new daemon finds the engines of the one that died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from gpustack.nursery import ExitStatus, GroupState, LogFile, adopt, end_remains, read_states, spawn_group
from tests.nursery.programs import ENV, HTTP_ENGINE, PYTHON, STUBBORN_GRANDCHILD, is_running, line_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="adoption needs pidfd and /proc")


async def _end_all(folder: Path) -> None:
    for state in read_states(folder):
        if isinstance(state, GroupState):
            group = adopt(state)
            await (group.end(0.1) if group is not None else end_remains(state, 0.1))


@pytest.fixture(autouse=True)
def _leave_no_engine(tmp_path: Path) -> Iterator[None]:
    """Engines outlive everyone by design, so also a test that failed."""
    yield
    trio.run(_end_all, tmp_path)


async def _get(port: int) -> str:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        got = b""
        async for piece in stream:
            got += piece
    return got.rpartition(b"\r\n\r\n")[2].decode()


async def _start_and_kill_a_daemon(folder: Path, engine: str, ready: str) -> GroupState:
    """Have another process start ``engine``, kill it with KILL, and return what it wrote down."""
    source = textwrap.dedent(f"""
        import sys, trio
        from pathlib import Path
        from gpustack.nursery import LogFile, spawn_group
        async def main():
            folder = Path(sys.argv[1])
            await spawn_group([*{PYTHON!r}, {engine!r}], env={ENV!r}, log=LogFile(folder / "a.log"),
                              state_file=folder / "a.json")
            print("up", flush=True)
            await trio.sleep_forever()
        trio.run(main)
    """)
    daemon = await trio.lowlevel.open_process(
        [sys.executable, "-c", source, str(folder)], stdout=subprocess.PIPE
    )
    try:
        assert daemon.stdout is not None
        said = b""
        while said != b"up\n":
            piece = await daemon.stdout.receive_some()
            assert piece, said
            said += piece
        await line_of(folder / "a.log", ready)
    finally:
        daemon.kill()
        with trio.CancelScope(shield=True):
            await daemon.wait()
            if daemon.stdout is not None:
                await daemon.stdout.aclose()
    (state,) = read_states(folder)
    assert isinstance(state, GroupState)
    return state


async def test_an_engine_outlives_its_killed_daemon_and_is_adopted_without_restart(tmp_path: Path) -> None:
    with trio.fail_after(60):
        state = await _start_and_kill_a_daemon(tmp_path, HTTP_ENGINE, "port")
        port = int((await line_of(tmp_path / "a.log", "port")).split()[1])
        assert await _get(port) == str(state.pid)
        group = adopt(state)
        assert group is not None
        assert group.alive
        assert (group.pid, await _get(port)) == (state.pid, str(state.pid))
        seen: list[ExitStatus] = []

        async def watch() -> None:
            seen.append(await group.wait())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            assert await group.end(10) == ExitStatus(None, None)
        assert seen == [ExitStatus(None, None)]
        assert not is_running(state.pid)
        with pytest.raises(OSError):
            await _get(port)
        assert adopt(state) is None


async def test_an_adopted_group_is_ended_with_its_stubborn_grandchildren(tmp_path: Path) -> None:
    with trio.fail_after(60):
        engine = STUBBORN_GRANDCHILD.format(then="time.sleep(600)")
        state = await _start_and_kill_a_daemon(tmp_path, engine, "deaf")
        child = int((await line_of(tmp_path / "a.log", "child")).split()[1])
        group = adopt(state)
        assert group is not None
        assert await group.end(0.3) is not None
        assert not is_running(state.pid)
        assert not is_running(child)


async def test_remains_of_a_leader_that_died_alone_are_ended(tmp_path: Path) -> None:
    with trio.fail_after(60):
        engine = STUBBORN_GRANDCHILD.format(then="time.sleep(600)")
        state = await _start_and_kill_a_daemon(tmp_path, engine, "deaf")
        child = int((await line_of(tmp_path / "a.log", "child")).split()[1])
        os.kill(state.pid, signal.SIGKILL)
        while is_running(state.pid):  # noqa: ASYNC110  not our child
            await trio.sleep(0.02)
        assert adopt(state) is None
        assert is_running(child)
        other_boot = attrs.evolve(state, boot_id="another")
        assert await end_remains(other_boot, 0.1)
        assert is_running(child)
        assert await end_remains(state, 0.3)
        assert not is_running(child)
        assert await end_remains(state, 0.3)


async def test_a_group_left_alone_goes_on_for_the_next_daemon_to_adopt(tmp_path: Path) -> None:
    with trio.fail_after(30):
        first = await spawn_group(
            [*PYTHON, "print('up'); import time; time.sleep(600)"],
            env=ENV,
            log=LogFile(tmp_path / "a.log"),
            state_file=tmp_path / "a.json",
        )
        await line_of(tmp_path / "a.log", "up")
        first.leave()
        await first.end(0.1)
        assert is_running(first.pid)
        second = adopt(first.state)
        assert second is not None
        assert await second.end(5) == ExitStatus(None, None)
        assert not is_running(first.pid)
        assert os.waitpid(first.pid, 0)[1] == signal.SIGTERM  # noqa: ASYNC222  it is dead


@pytest.mark.parametrize(
    "change",
    [
        {"boot_id": "another"},
        {"start_ticks": 1},
        {"start_ticks": None},
        {"boot_id": None},
        {"pid": 2**22 + 1},
    ],
)
async def test_a_number_that_another_process_bears_is_neither_adopted_nor_touched(
    tmp_path: Path, change: dict[str, object]
) -> None:
    with trio.fail_after(30):
        group = await spawn_group(
            [*PYTHON, "print('up'); import time; time.sleep(600)"], env=ENV, log=LogFile(tmp_path / "a.log")
        )
        try:
            await line_of(tmp_path / "a.log", "up")
            stale = attrs.evolve(group.state, **change)  # type: ignore[arg-type]  # the cases above
            assert adopt(stale) is None
            assert await end_remains(stale, 0.1)
            assert group.alive
        finally:
            await group.end(5)


async def test_a_process_that_only_waits_to_be_reaped_is_not_adopted(tmp_path: Path) -> None:
    with trio.fail_after(30):
        group = await spawn_group([*PYTHON, "pass"], env=ENV, log=LogFile(tmp_path / "a.log"))
        await group.wait()
        assert adopt(group.state) is None
        await group.end(1)
