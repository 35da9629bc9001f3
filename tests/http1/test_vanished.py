"""A machine that vanishes without a word, its cable pulled, holds no request for long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio

from gpustack.http1.fault import UpstreamClosed
from gpustack.http1.keepalive import end_unacknowledged, is_elsewhere, keep_alive
from gpustack.http1.pool import Pool
from gpustack.http1.upstream import Address
from tests.http1.wire import Client, Script
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


async def test_a_connection_that_carried_a_long_body_is_patient_and_not_used_again(
    nursery: trio.Nursery,
) -> None:
    """An engine that is busy leaves it unread for a while, which the kernel would take for a machine that is gone."""

    async def act(client: Client, number: int) -> None:
        while True:
            await script.request(client)
            await client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    script = Script(act)
    await nursery.start(script.run)
    pool = Pool()
    await nursery.start(pool.run)
    address = Address("127.0.0.1", script.port)
    for size, connections in ((10, 1), (10, 1), (300_000, 1), (10, 2), (10, 2)):
        async with pool.request(address, "POST", b"/", body=b"x" * size) as response:
            assert await response.read(10) == b"ok"
        assert script.connections == connections
    nursery.cancel_scope.cancel()


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
    pool = Pool()
    await nursery.start(pool.run)
    call = pool.request(Address(THERE, 8080), "POST", b"/", body=b"{}", connect_timeout=60.0)

    async def pull() -> None:
        assert other_machine.stdout is not None
        read = other_machine.stdout.readline
        assert await trio.to_thread.run_sync(read, abandon_on_cancel=True) == "taken\n"
        await trio.run_process(["ip", "-n", f"gps{os.getpid()}", "link", "set", f"f{os.getpid()}", "down"])

    nursery.start_soon(pull)
    with (
        trio.fail_after(120),
        pytest.raises(UpstreamClosed),
    ):  # the kernel alone would take a quarter of an hour
        async with call:
            pass
    assert call.runs == 1
    nursery.cancel_scope.cancel()
