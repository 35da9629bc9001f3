"""What systemd hears."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio

from gpustack.nursery import Watchdog, notifier, watchdog_period


def _listen(address: str) -> trio.socket.SocketType:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.setblocking(False)
    return trio.socket.from_stdlib_socket(sock)


async def test_states_reach_the_socket_systemd_named(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with _listen(path) as sock, trio.fail_after(5):
        tell = notifier({"NOTIFY_SOCKET": path})
        tell.ready("serving\n2 models")
        assert await sock.recv(999) == b"READY=1\nSTATUS=serving 2 models"
        tell.extend_timeout(1.5)
        assert await sock.recv(999) == b"EXTEND_TIMEOUT_USEC=1500000"
        tell.stopping()
        assert await sock.recv(999) == b"STOPPING=1"


async def test_nothing_is_said_after_another_process_was_named(tmp_path: Path) -> None:
    """Systemd would log each word of a process that is not the main one."""
    path = str(tmp_path / "notify")
    with _listen(path) as sock, trio.fail_after(5):
        tell = notifier({"NOTIFY_SOCKET": path})
        tell.main_pid(17)
        tell.alive()
        notifier({"NOTIFY_SOCKET": path}).status("the end")
        assert [await sock.recv(999) for _ in range(2)] == [b"MAINPID=17", b"STATUS=the end"]


async def test_an_abstract_socket_is_found() -> None:
    name = f"nursery-test-{os.getpid()}"
    with _listen("\0" + name) as sock, trio.fail_after(5):
        notifier({"NOTIFY_SOCKET": "@" + name}).status("here")
        assert await sock.recv(999) == b"STATUS=here"


def test_without_systemd_or_with_it_gone_nothing_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier({}).ready()
    assert not caplog.records
    gone = notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    gone.ready()
    gone.alive()
    assert len(caplog.records) == 1


async def test_the_watchdog_is_fed_while_the_loop_turns(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with _listen(path) as sock, trio.fail_after(10):
        environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "90000"}
        service = Watchdog(notifier(environ), watchdog_period(environ))
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: service.run(task_status=task_status))
            assert [await sock.recv(999) for _ in range(4)] == [b"WATCHDOG=1"] * 4
            nursery.cancel_scope.cancel()


def test_the_watchdog_is_idle_when_it_was_not_asked_for_or_is_for_another_process() -> None:
    assert watchdog_period({}) is None
    assert watchdog_period({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_period({"WATCHDOG_USEC": "often"}) is None
    assert watchdog_period({"WATCHDOG_USEC": "3000000"}) == 3
    assert watchdog_period({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}) == 3
    assert watchdog_period({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}) is None


async def test_an_idle_watchdog_runs_until_cancelled(autojump_clock: object) -> None:
    with trio.move_on_after(100) as scope:
        await Watchdog(notifier({}), watchdog_period({})).run()
    assert scope.cancelled_caught
