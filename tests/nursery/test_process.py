"""Process groups: begun behind a gate, and ended whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gpustack.nursery import (
    ExitStatus,
    GroupState,
    LogFile,
    ProcessGroup,
    read_state,
    spawn_group,
    use_thread_runner,
)
from tests.nursery.programs import ENV, PYTHON, STUBBORN_GRANDCHILD, is_running, line_of, until_gone


async def _spawn(source: str, log: Path, **options: object) -> ProcessGroup:
    return await spawn_group([*PYTHON, source], env=ENV, log=LogFile(log), **options)  # type: ignore[arg-type]  # any of its options


@pytest.mark.parametrize(
    ("source", "exit_"),
    [
        ("raise SystemExit(3)", ExitStatus(3, None)),
        ("import os; os.kill(os.getpid(), 9)", ExitStatus(None, 9)),
    ],
)
async def test_wait_tells_how_the_program_ended(tmp_path: Path, source: str, exit_: ExitStatus) -> None:
    with trio.fail_after(20):
        group = await _spawn(source, tmp_path / "a.log")
        assert await group.wait() == exit_
        assert not group.alive
        assert await group.end(1) == exit_
        assert await group.end(1) == exit_  # ending twice is ending once
        assert await group.wait() == exit_


async def test_output_goes_to_the_file_and_input_is_empty(tmp_path: Path) -> None:
    with trio.fail_after(20):
        group = await _spawn(
            "import sys; print('in', repr(sys.stdin.read())); print('err', file=sys.stderr)",
            tmp_path / "a.log",
        )
        await group.wait()
        await group.end(1)
    assert (tmp_path / "a.log").read_text() == "in ''\nerr\n"


async def test_the_environment_is_the_one_given_and_is_not_in_the_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/of/the/daemon")
    source = (
        "import os, pathlib; print(sorted(set(os.environ) - {'PWD', 'OLDPWD', 'LC_CTYPE'}));"
        "print(os.environ['KEY'].encode() in pathlib.Path('/proc/self/cmdline').read_bytes())"
    )
    with trio.fail_after(20):
        group = await spawn_group(
            [*PYTHON, source], env={**ENV, "KEY": "s3cret"}, log=LogFile(tmp_path / "a.log")
        )
        await group.wait()
        await group.end(1)
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert "'KEY'" in lines[0]
    assert "NOTIFY_SOCKET" not in lines[0]
    assert lines[1] == "False"


async def test_the_program_leads_its_own_session_under_the_number_written_down(tmp_path: Path) -> None:
    state_file = tmp_path / "a.json"
    with trio.fail_after(20):
        group = await _spawn(
            "import os; print('ids', os.getpid(), os.getpgid(0), os.getsid(0)); import time; time.sleep(600)",
            tmp_path / "a.log",
            state_file=state_file,
            port=4711,
            generation=3,
            meta={"instance": "a"},
        )
        assert await line_of(tmp_path / "a.log", "ids") == f"ids {group.pid} {group.pid} {group.pid}"
        state = read_state(state_file)
        assert isinstance(state, GroupState)
        assert state == group.state
        assert (state.port, state.generation, state.meta) == (4711, 3, {"instance": "a"})
        assert repr(group) == f"<ProcessGroup {group.pid}: running>"
        assert await group.end(5) == ExitStatus(None, signal.SIGTERM)
        assert repr(group) == f"<ProcessGroup {group.pid}: ended, ended by SIGTERM>"


async def test_the_state_is_on_disk_before_the_program_begins(tmp_path: Path) -> None:
    state_file = tmp_path / "a.json"
    source = f"import json, os; state = json.load(open({str(state_file)!r})); print('me', state['pid'] == os.getpid())"
    with trio.fail_after(20):
        group = await _spawn(source, tmp_path / "a.log", state_file=state_file)
        await group.wait()
        await group.end(1)
    assert (tmp_path / "a.log").read_text() == "me True\n"


async def test_end_lets_a_program_that_heeds_term_finish(tmp_path: Path) -> None:
    source = textwrap.dedent("""
        import signal, sys, time
        signal.signal(15, lambda *_: (print("saved"), sys.exit(0)))
        print("up")
        time.sleep(600)
    """)
    with trio.fail_after(20):
        group = await _spawn(source, tmp_path / "a.log")
        await line_of(tmp_path / "a.log", "up")
        assert await group.end(15) == ExitStatus(0, None)
    assert (tmp_path / "a.log").read_text() == "up\nsaved\n"


async def test_a_grandchild_that_ignores_term_is_gone_after_the_grace(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with trio.fail_after(30):
        group = await _spawn(STUBBORN_GRANDCHILD.format(then="time.sleep(600)"), log)
        child = int((await line_of(log, "child")).split()[1])
        await line_of(log, "deaf")
        assert is_running(child)
        assert await group.end(0.3) == ExitStatus(None, signal.SIGTERM)
        assert not is_running(child)


async def test_what_a_leader_left_behind_is_ended_too(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with trio.fail_after(30):
        group = await _spawn(STUBBORN_GRANDCHILD.format(then=""), log)
        child = int((await line_of(log, "child")).split()[1])
        await line_of(log, "deaf")
        assert await group.wait() == ExitStatus(0, None)
        assert is_running(child)
        assert repr(group) == f"<ProcessGroup {group.pid}: leader exit code 0>"
        assert await group.end(0.3) == ExitStatus(0, None)
        assert not is_running(child)


async def test_ending_is_finished_though_cancelled(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with trio.fail_after(30):
        group = await _spawn(STUBBORN_GRANDCHILD.format(then="time.sleep(600)"), log)
        child = int((await line_of(log, "child")).split()[1])
        await line_of(log, "deaf")
        with trio.CancelScope() as scope:
            scope.cancel()
            await group.end(0.2)
        assert not is_running(child)
        assert not is_running(group.pid)


async def test_several_may_wait_for_one_group(tmp_path: Path) -> None:
    with trio.fail_after(20):
        group = await _spawn("import time; time.sleep(600)", tmp_path / "a.log")
        got: list[ExitStatus] = []

        async def wait() -> None:
            got.append(await group.wait())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(group.pid, signal.SIGKILL)
        await group.end(1)
    assert got == [ExitStatus(None, 9)] * 3


async def test_a_missing_program_is_an_error_of_the_caller(tmp_path: Path) -> None:
    for name in ("no-such-engine", "./no-such-engine"):
        with pytest.raises(FileNotFoundError, match="there is no program"):
            await spawn_group([name], env=ENV, log=LogFile(tmp_path / "a.log"))


async def test_a_state_that_cannot_be_written_means_that_the_program_never_begins(tmp_path: Path) -> None:
    with trio.fail_after(20), pytest.raises(FileNotFoundError):
        await _spawn("print('begun')", tmp_path / "a.log", state_file=tmp_path / "absent" / "a.json")
    assert (tmp_path / "a.log").read_text() == ""


async def test_a_start_cancelled_at_any_hop_leaves_neither_process_nor_state(tmp_path: Path) -> None:
    """Cancelled once the process waits at its gate, and again once its state is written."""
    state_file = tmp_path / "a.json"
    for cancel_at in (1, 2):
        pids: list[int] = []
        with trio.fail_after(20), trio.CancelScope() as scope:
            hops = 0

            async def hop(fn: Callable[[], Any], /, **_: object) -> Any:
                nonlocal hops
                hops += 1
                result = fn()
                if isinstance(result, subprocess.Popen):
                    pids.append(result.pid)  # noqa: B023
                if hops == cancel_at:  # noqa: B023  run within its round
                    scope.cancel()
                return result

            with use_thread_runner(hop):
                await _spawn("print('begun')", tmp_path / "a.log", state_file=state_file)
        assert scope.cancelled_caught
        assert pids
        assert not is_running(pids[0])
        assert not state_file.exists()
        assert (tmp_path / "a.log").read_text() == ""


async def test_a_daemon_killed_before_the_release_leaves_no_begun_program(tmp_path: Path) -> None:
    """The daemon dies while its child waits at the gate: the child must go away without a sound."""
    daemon_source = textwrap.dedent(f"""
        import os, signal, sys, trio
        from pathlib import Path
        from gpustack.nursery import LogFile, use_thread_runner, spawn_group

        async def hop(fn, *, abandon_on_cancel, limiter):
            result = fn()
            if Path({str(tmp_path / "a.json")!r}).exists():  # written, and the gate still shut
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        async def main():
            with use_thread_runner(hop):
                await spawn_group([sys.executable, "-c", "print('begun')"], env={ENV!r},
                                  log=LogFile(Path({str(tmp_path / "a.log")!r})),
                                  state_file=Path({str(tmp_path / "a.json")!r}))
        trio.run(main)
    """)
    with trio.fail_after(30):
        daemon = await trio.run_process([sys.executable, "-c", daemon_source], check=False)
        assert daemon.returncode == -signal.SIGKILL
        await until_gone(json.loads((tmp_path / "a.json").read_text())["pid"])
    assert (tmp_path / "a.log").read_text() == ""


def _may_protect_itself() -> bool:
    attempt = ["sh", "-c", "echo -300 > /proc/self/oom_score_adj"]
    return subprocess.run(attempt, stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.skipif(not _may_protect_itself(), reason="needs CAP_SYS_RESOURCE")
async def test_an_engine_is_not_shielded_from_the_oom_killer_as_its_daemon_is(tmp_path: Path) -> None:
    source = textwrap.dedent(f"""
        import sys, trio
        from pathlib import Path
        from gpustack.nursery import LogFile, spawn_group
        Path("/proc/self/oom_score_adj").write_text("-300")
        async def main():
            group = await spawn_group([sys.executable, "-c", "print(open('/proc/self/oom_score_adj').read())"],
                                      env={ENV!r}, log=LogFile(Path({str(tmp_path / "a.log")!r})))
            await group.wait()
            await group.end(1)
        trio.run(main)
    """)
    with trio.fail_after(30):
        await trio.run_process([sys.executable, "-c", source], stdin=subprocess.DEVNULL)
    assert (tmp_path / "a.log").read_text().strip() == "0"
