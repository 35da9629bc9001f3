"""Whose program is at the other end of a connection, by each way that there is to know it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gpustack.hardware.proc_net import TABLES, owner_in_tables
from gpustack.hardware.sock_diag import owner_by_netlink
from gpustack.hardware.socket_owner import find_owner, owner_of_process, search
from gpustack.http1.address import AddressPair
from tests.child import environment
from tests.needs import requires, requires_root

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is compared is the kernel of Linux")

STRANGER = 12345
"""A user without an account."""
ASK = """
import os, socket, sys
if sys.argv[5] != "None": os.setuid(int(sys.argv[5]))
one = socket.socket(getattr(socket, sys.argv[1]))
one.connect((sys.argv[2], int(sys.argv[3])))
if sys.argv[4] == "half": one.shutdown(socket.SHUT_WR)
if sys.argv[4] == "closed": one.close()
print("connected", flush=True)
sys.stdin.read()
"""
Look = Callable[[AddressPair, float], int | None]
LOOKS: dict[str, Look] = {
    "netlink": lambda ends, until: owner_by_netlink(ends),
    "tables": owner_in_tables,
    "processes": owner_of_process,
}
WAYS = {
    "IPv4": ("127.0.0.1", "AF_INET", "127.0.0.1"),
    "IPv6": ("::1", "AF_INET6", "::1"),
    "IPv4 to a port of both": ("::", "AF_INET", "127.0.0.1"),
    "IPv4 in IPv6": ("::", "AF_INET6", "::ffff:127.0.0.1"),
    "IPv4 in IPv6 to a port of IPv4": ("127.0.0.1", "AF_INET6", "::ffff:127.0.0.1"),
}


@pytest.fixture(params=LOOKS)
def look(request: pytest.FixtureRequest) -> Callable[[AddressPair], int | None]:
    def look(ends: AddressPair) -> int | None:
        try:
            return LOOKS[request.param](ends, time.monotonic() + 60)
        except OSError:  # it does not tell: then the next way is asked
            return search(ends, time.monotonic() + 60)

    return look


def listening(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")


@contextmanager
def asked(
    how: str = "open", way: str = "IPv4", user: int | None = None
) -> Iterator[tuple[AddressPair, socket.socket]]:
    """A connection that another process has made to us, of another user if one is named."""
    host, family, address = WAYS[way]
    with ExitStack() as stack:
        listener = stack.enter_context(listening(host))
        command = [sys.executable, "-c", ASK, family, address, str(listener.getsockname()[1]), how]
        command.append(str(user))
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        stack.callback(process.kill)
        ours, peer = listener.accept()
        stack.enter_context(ours)
        assert process.stdout is not None and process.stdout.readline() == b"connected\n"
        yield AddressPair.of(peer, ours.getsockname()), ours


@pytest.mark.parametrize("way", WAYS)
def test_ones_own_program_is_ones_own(look: Callable[[AddressPair], int | None], way: str) -> None:
    with asked(way=way) as (ends, _):
        assert look(ends) == os.geteuid()


@pytest.mark.root
@pytest.mark.attack("access")
@pytest.mark.parametrize("way", WAYS)
def test_another_users_program_is_that_users(look: Callable[[AddressPair], int | None], way: str) -> None:
    requires_root()
    with asked(way=way, user=STRANGER) as (ends, _):
        assert look(ends) == STRANGER


@pytest.mark.root
@pytest.mark.parametrize("look_", [LOOKS["netlink"], LOOKS["tables"]], ids=["netlink", "tables"])
def test_who_has_closed_one_half_still_is_who_asks(look_: Look) -> None:
    requires_root()
    with asked("half", user=STRANGER) as (ends, _):
        assert look_(ends, time.monotonic() + 60) == STRANGER


@pytest.mark.root
@pytest.mark.attack("access")
def test_who_has_sent_a_request_and_left_is_not_taken_for_root(
    look: Callable[[AddressPair], int | None],
) -> None:
    """The kernel tells a socket that nobody holds any more as root's."""
    requires_root()
    with asked("closed", user=STRANGER) as (ends, ours):
        assert ours.recv(1) == b""
        assert look(ends) is None


def test_a_connection_that_is_not_there_is_nobodys(look: Callable[[AddressPair], int | None]) -> None:
    with asked() as (ends, _):
        absent = AddressPair((ends.there[0], 1), ends.here)
    assert look(absent) is None


@pytest.mark.attack("access")
def test_a_port_that_is_listened_on_at_the_other_end_answers_for_nobody(
    look: Callable[[AddressPair], int | None],
) -> None:
    """Asked for a connection that has gone, the kernel shows who listens where it came from."""
    with listening("127.0.0.1") as listener, asked() as (ends, _):
        assert look(AddressPair((ends.there[0], listener.getsockname()[1]), ends.here)) is None


@pytest.mark.root
@pytest.mark.attack("access")
def test_a_connection_within_another_network_namespace_is_nobodys(
    look: Callable[[AddressPair], int | None],
) -> None:
    requires_root()
    requires("unshare", apt="util-linux")
    program = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", 0))
one = socket.create_connection(listener.getsockname())
ours, _ = listener.accept()
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"x"], [ours.fileno()])
sys.stdin.read()
"""
    here, there = socket.socketpair()
    command = ["unshare", "--net", sys.executable, "-c", program, str(there.fileno())]
    with (
        here,
        there,
        subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.PIPE) as process,
    ):
        here.settimeout(60)
        _, (descriptor,), _, _ = socket.recv_fds(here, 1, 1)
        with socket.socket(fileno=descriptor) as ours:
            assert look(AddressPair.of(ours.getpeername(), ours.getsockname())) is None
        process.communicate(timeout=60)


@pytest.mark.root
@pytest.mark.attack("access")
def test_a_user_without_a_number_in_our_user_namespace_is_nobody() -> None:
    """The kernel has one number for all of them, which may be the daemon's own."""
    requires_root()
    requires("unshare", apt="util-linux")
    program = """
import socket, sys, time
from gpustack.http1.address import AddressPair
from gpustack.hardware.socket_owner import search
from gpustack.hardware.sock_diag import owner_by_netlink
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
for _ in range(2):
    ours, peer = listener.accept()
    ends = AddressPair.of(peer, ours.getsockname())
    print(owner_by_netlink(ends), search(ends, time.monotonic() + 60), flush=True)
"""
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", program]
    with ExitStack() as stack:
        server = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        )
        stack.callback(server.kill)
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        said = []
        for user in (STRANGER, None):
            ask = [sys.executable, "-c", ASK, "AF_INET", "127.0.0.1", port, "open", str(user)]
            client = stack.enter_context(subprocess.Popen(ask, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(client.kill)
            said.append(server.stdout.readline().strip())
    assert said == ["None None", "0 0"]


@pytest.mark.parametrize("missing", ["tcp6", "all"])
def test_without_the_table_of_ipv6_the_other_is_read_and_without_any_it_is_said(
    tmp_path: Path, missing: str
) -> None:
    with asked() as (ends, _):
        if missing == "all":
            with pytest.raises(FileNotFoundError):
                owner_in_tables(ends, time.monotonic() + 60, tmp_path)
            return
        (tmp_path / "tcp").write_bytes((TABLES / "tcp").read_bytes())
        assert owner_in_tables(ends, time.monotonic() + 60, tmp_path) == os.geteuid()


def test_a_search_ends_when_its_time_is_over() -> None:
    with asked() as (ends, _):
        assert owner_in_tables(ends, time.monotonic() - 1) is None
        assert owner_of_process(ends, time.monotonic() - 1) is None


async def test_an_owner_is_found_where_netlink_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in sandboxes that do not let programs open such sockets."""
    real = socket.socket

    def refused(family: int = -1, *rest: int, **more: int) -> socket.socket:
        if family == socket.AF_NETLINK:
            raise PermissionError("not here")
        return real(family, *rest, **more)

    with asked() as (ends, _):
        monkeypatch.setattr(socket, "socket", refused)
        assert await find_owner(ends) == os.geteuid()
