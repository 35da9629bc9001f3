"""A machine that vanishes without a word, its cable pulled, holds no request for long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from gpustack.http1.pool import ConnectionPool
from gpustack.http1.stream import Stream, end_unacknowledged, is_elsewhere, keep_alive
from gpustack.http1.upstream import UpstreamAddress, UpstreamClosed, UpstreamConnection
from tests.needs import requires, requires_root

NETWORK = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
HERE, THERE = f"{NETWORK}.1", f"{NETWORK}.2"
TAKES_AND_SAYS_NOTHING = """
import socket, sys, time
listener = socket.create_server((sys.argv[1], 8080))
print("listening", flush=True)
taken, _ = listener.accept()
taken.recv(65536)
print("taken", flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")
def test_connections_to_other_machines_are_probed_and_end_unacknowledged() -> None:
    with socket.socket() as sock:
        keep_alive(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 15
        end_unacknowledged(sock, yes=True)
        assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000
        end_unacknowledged(sock, yes=False)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@pytest.mark.parametrize(
    ("host", "elsewhere"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("10.0.0.1", True),
        ("fe80::1", True),
        ("worker-2", True),
        ("localhost", False),
    ],
)
def test_this_machine_cannot_vanish(host: str, elsewhere: bool) -> None:
    assert is_elsewhere(host) is elsewhere


class RecordedSocket:
    """What is set on a connection to another machine; a real one takes a network namespace (see below)."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.values: list[int] = []

    def getpeername(self) -> tuple[str, int]:
        return self.peer, 80

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        self.values.append(value)


@pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")
@pytest.mark.parametrize(("peer", "values"), [("10.0.0.1", [0, 30_000]), ("127.0.0.1", [])])
def test_a_connection_is_patient_while_it_carries_a_long_body(peer: str, values: list[int]) -> None:
    """An engine that is busy leaves it unread for a while, which the kernel would take for a machine that is gone."""
    sock = RecordedSocket(peer)
    stream = SimpleNamespace(sock=sock)
    upstream = UpstreamConnection(UpstreamAddress(peer, 80), cast(Stream, stream))
    for yes in (True, True, False, False):
        upstream.be_patient(yes)
    assert sock.values == values


@pytest.fixture
def other_machine() -> Iterator[subprocess.Popen[str]]:
    """A network namespace with a cable to here, where somebody listens."""
    requires_root()
    ip = requires("ip", apt="iproute2")
    name = f"gps{os.getpid()}"
    near, far = f"n{os.getpid()}", f"f{os.getpid()}"

    def run(*words: str) -> None:
        subprocess.run([ip, *words], check=True)

    run("netns", "add", name)
    try:
        run("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        run("addr", "add", f"{HERE}/30", "dev", near)
        run("link", "set", near, "up")
        run("-n", name, "addr", "add", f"{THERE}/30", "dev", far)
        run("-n", name, "link", "set", far, "up")
        command = [ip, "netns", "exec", name, sys.executable, "-c", TAKES_AND_SAYS_NOTHING, THERE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            try:
                assert program.stdout is not None
                assert program.stdout.readline() == "listening\n"
                yield program
            finally:
                program.kill()
    finally:
        run("netns", "del", name)


@pytest.mark.root
async def test_a_request_to_a_machine_whose_cable_was_pulled_ends(
    other_machine: subprocess.Popen[str], nursery: trio.Nursery
) -> None:
    pool = ConnectionPool()
    await nursery.start(pool.run)
    where = UpstreamAddress(THERE, 8080)
    call = pool.request(where, "POST", b"/", body=b"{}", connect_timeout=60.0)

    async def pull() -> None:
        assert other_machine.stdout is not None
        read = other_machine.stdout.readline
        assert await trio.to_thread.run_sync(read, abandon_on_cancel=True) == "taken\n"
        await trio.run_process(["ip", "-n", f"gps{os.getpid()}", "link", "set", f"f{os.getpid()}", "down"])

    nursery.start_soon(pull)
    # The kernel alone would take a quarter of an hour.
    with trio.fail_after(120), pytest.raises(UpstreamClosed):
        async with call:
            pass
    assert call.runs == 1
    nursery.cancel_scope.cancel()
