"""Listening sockets, and the sentence when one cannot be had."""

from __future__ import annotations

import errno
import socket

import pytest

from gpustack.http1.address import Peer, peer_of
from gpustack.http1.listen import ListenError, _sentence, open_listeners


def reached(listener: socket.socket, host: str) -> Peer:
    with socket.create_connection((host, listener.getsockname()[1]), timeout=10):
        listener.settimeout(10)
        sock, address = listener.accept()
        sock.close()
        return peer_of(address)


def close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def test_no_host_is_every_address_on_one_port() -> None:
    listeners = open_listeners("", 0)
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
        families = {listener.family: listener for listener in listeners}
        assert reached(families[socket.AF_INET], "127.0.0.1").host == "127.0.0.1"
        assert reached(families[socket.AF_INET6], "::1").host == "::1"
    finally:
        close(listeners)


def test_the_ipv6_any_address_takes_ipv4_too_and_names_it_so() -> None:
    listeners = open_listeners("::", 0)
    try:
        (listener,) = listeners
        assert reached(listener, "127.0.0.1").host == "127.0.0.1"
        assert reached(listener, "::1").host == "::1"
    finally:
        close(listeners)


def test_a_name_is_its_addresses() -> None:
    listeners = open_listeners("localhost", 0)
    try:
        assert listeners
        assert all(listener.getsockname()[0] in ("127.0.0.1", "::1") for listener in listeners)
        assert all(not listener.getblocking() for listener in listeners)
    finally:
        close(listeners)


def test_a_taken_port_names_the_option_and_leaves_nothing_open() -> None:
    taken = open_listeners("127.0.0.1", 0)
    port = taken[0].getsockname()[1]
    try:
        with pytest.raises(ListenError) as caught:
            open_listeners("127.0.0.1", port, option="--worker-port")
        assert str(caught.value) == (
            f"Port {port} is taken by another program on 127.0.0.1: choose another with --worker-port."
        )
    finally:
        close(taken)
    close(open_listeners("127.0.0.1", port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "host.invalid"])
def test_an_address_that_is_not_ours_names_the_option(host: str) -> None:
    with pytest.raises(ListenError) as caught:
        open_listeners(host, 0)
    assert "set --host to one" in str(caught.value)


def test_a_privileged_port_says_what_would_help() -> None:
    """Written as a sentence only: tests may run as root, who may listen anywhere."""
    sentence = _sentence(PermissionError(errno.EACCES, "denied"), "0.0.0.0", 80, "--port", "--host")
    assert sentence.startswith("Port 80 needs a privilege that this process lacks")
    assert "--port" in sentence


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("127.0.0.1", 5), Peer("127.0.0.1", 5)),
        (("::ffff:10.0.0.1", 5, 0, 0), Peer("10.0.0.1", 5)),
        (("fe80::1", 5, 0, 2), Peer("fe80::1", 5)),
        ("", Peer("unix", 0)),
    ],
)
def test_peers_are_named_as_people_know_them(address: object, peer: Peer) -> None:
    assert peer_of(address) == peer
