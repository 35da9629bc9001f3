"""What callers make the server keep in memory is bounded for each of them, and given back when they have gone."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest

from tests.daemon import WITHIN, Daemon, daemon

MIB = 1 << 20
PAGE = 15 * MIB
PASSWORD = "Long_enough_1"

pytestmark = pytest.mark.attack("flood")


class _Hub(BaseHTTPRequestHandler):
    """A hub whose pages are as large as one may be."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(PAGE))
        self.end_headers()
        try:
            for _ in range(PAGE // MIB):
                self.wfile.write(b"x" * MIB)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@attrs.frozen
class Bob:
    """An ordinary user of a daemon."""

    daemon: Daemon
    hub: str
    key: str

    def begin(
        self, stack: ExitStack, method: str, path: str, *fields: str, body: bytes = b""
    ) -> socket.socket:
        """Send a request and read nothing; the connection lasts as long as ``stack``."""
        parts = urlsplit(self.daemon.url)
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        connection.settimeout(WITHIN)
        connection.connect((parts.hostname, parts.port))
        lines = [f"{method} {path} HTTP/1.1", f"host: {parts.netloc}", f"authorization: Bearer {self.key}"]
        connection.sendall("\r\n".join([*lines, *fields, "", ""]).encode())
        try:
            connection.sendall(body)
        except OSError:  # refused before all of it was sent
            connection.close()
        return connection

    def resident(self) -> int:
        text = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) * 1024

    def until(self, holds: Callable[[], bool], what: str) -> None:
        self.daemon.until(holds, what)


@pytest.fixture(scope="module")
def bob(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bob]:
    hub = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    hub.daemon_threads = True
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{hub.server_address[1]}"
    folder = tmp_path_factory.mktemp("memory") / "data"
    with daemon(folder, "--disable-worker", env={"HF_ENDPOINT": url}) as one:
        user = {"username": "bob", "password": PASSWORD, "require_password_change": False}
        assert one.call("POST", "/v1/users", user)[0] == 200
        proof = f"Basic {base64.b64encode(f'bob:{PASSWORD}'.encode()).decode()}"
        key = one.call("POST", "/v1/api-keys", {"name": "k"}, {"authorization": proof})[1]["value"]
        yield Bob(one, url, key)
    hub.shutdown()
    hub.server_close()


def test_forty_pages_of_a_hub_are_not_kept_for_clients_that_do_not_read(bob: Bob) -> None:
    """They are 600 MiB together."""
    before = bob.resident()
    with ExitStack() as stack:
        pages = [bob.begin(stack, "GET", f"/proxy?url={bob.hub}/page") for _ in range(40)]
        begun = [page.recv(1 << 10) for page in pages]
        assert all(head.startswith(b"HTTP/1.1 200") for head in begun), begun
        grown = bob.resident() - before
        whole = bob.begin(stack, "GET", f"/proxy?url={bob.hub}/page", "connection: close")
        size = 0
        while piece := whole.recv(MIB):
            size += len(piece)
    assert size > PAGE, "who reads gets all of it"
    assert grown < 100 * MIB


def test_unfinished_bodies_of_one_user_take_a_bounded_part_and_give_it_back(bob: Bob) -> None:
    """They would be 400 MiB together."""
    before = bob.resident()
    body = b"x" * (2 * MIB - 1)
    fields = ("content-type: application/json", f"content-length: {2 * MIB}")
    with ExitStack() as stack:
        for _ in range(200):
            bob.begin(stack, "POST", "/v1/api-keys", *fields, body=body)
        assert bob.daemon.call("GET", "/v1/users/me")[0] == 200, "others are served meanwhile"
        grown = bob.resident() - before
    assert grown < 200 * MIB
    bob.until(lambda: bob.resident() - before < 100 * MIB, "memory that goes back")
    assert bob.daemon.call("POST", "/v1/api-keys", {"name": "again"})[0] == 200


def test_a_body_is_not_read_before_its_sender_is_known(bob: Bob) -> None:
    before = bob.resident()
    stranger = attrs.evolve(bob, key="gpustack_0000_0000")
    fields = ("content-type: application/json", f"content-length: {2 * MIB}")
    with ExitStack() as stack:
        for _ in range(100):
            one = stranger.begin(stack, "POST", "/v1/api-keys", *fields, body=b"x" * MIB)
            if one.fileno() >= 0:
                assert one.recv(1 << 10).startswith(b"HTTP/1.1 401")
        assert bob.resident() - before < 60 * MIB
