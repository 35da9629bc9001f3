"""Who sends a password to a running daemon and is gone at once has left a trace all the same."""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon import Daemon, daemon

BODY = json.dumps({"username": "admin", "password": "wrong"}).encode()
BASIC = base64.b64encode(b"admin:wrong")
LOGIN = (
    b"POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)
WAYS = {
    "login": LOGIN % (len(BODY), BODY),
    "reading": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Basic %b\r\n\r\n" % BASIC,
    "inference": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Basic %b\r\n"
    b"content-length: 2\r\n\r\n{}" % BASIC,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("left") / "data", "--disable-worker") as one:
        yield one
        assert "Traceback" not in one.log


def guesses(server: Daemon) -> int:
    """How many are told of, those included that are counted."""
    items: list[dict[str, Any]] = server.call("GET", "/v1/audit-events?action=auth.login&perPage=100")[1][
        "items"
    ]
    assert {one["status"] for one in items} <= {401, 429, 499}
    return len(items)


@pytest.mark.attack("audit")
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("way", WAYS)
def test_who_tries_a_password_and_is_gone_leaves_a_trace(server: Daemon, way: str, reset: bool) -> None:
    before = guesses(server)
    address, _, port = server.url.removeprefix("http://").rpartition(":")
    # Each from an address of its own: equal events of a minute are counted, and written when it is over.
    here = f"127.0.0.{10 + 2 * sorted(WAYS).index(way) + reset}"
    with socket.create_connection((address, int(port)), source_address=(here, 0)) as sender:
        sender.sendall(WAYS[way])
        if reset:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.until(lambda: guesses(server) > before, f"an event of the guess by {way}")
