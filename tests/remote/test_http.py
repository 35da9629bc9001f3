"""Outgoing calls: what goes wrong is named, what comes is bounded, and the proxy is for the world outside."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trio

from gpustack.errors import Unavailable
from gpustack.remote.http import (
    BadResponse,
    RemoteConnectionError,
    RemoteError,
    RemoteTimeout,
    ResponseTooLarge,
    Timeouts,
    open_client,
    shown,
)

BIG = 1 << 20


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.path = self.path.removesuffix("?token=secret")
        if self.path == "/garbage":
            self.wfile.write(b"what?\r\n\r\n")
            self.close_connection = True
        elif self.path == "/short":
            self.answer(200, b"x" * 10, length=100)
            self.close_connection = True
        elif self.path == "/silent":
            self.server.quiet.wait(30)  # type: ignore[attr-defined]
            self.close_connection = True
        elif self.path == "/silent-body":
            self.answer(200, b"x" * 10, length=100)
            self.server.quiet.wait(30)  # type: ignore[attr-defined]
            self.close_connection = True
        elif self.path == "/big":
            self.answer(200, b"x" * BIG)
        elif self.path == "/away":
            self.answer(302, b"", location="/headers")
        else:
            self.answer(200, json.dumps({**dict(self.headers.items()), "seen": self.path}).encode())

    def do_POST(self) -> None:
        self.answer(201, self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        listener.quiet = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}"
        listener.quiet.set()  # type: ignore[attr-defined]
        listener.shutdown()
        thread.join(10)


async def test_an_answer_is_read_whole(served: str) -> None:
    async with open_client(served, headers={"X-Mine": "1"}) as client:
        reply = await client.request("GET", "/some?x=1")
        assert (reply.status, reply.json()["seen"], reply.json()["X-Mine"]) == (200, "/some?x=1", "1")
        assert reply.headers["content-length"] == str(len(reply.body))
        assert repr(client) == "<HttpClient, 1 requests made>"


async def test_a_document_is_sent_as_json(served: str) -> None:
    async with open_client() as client:
        reply = await client.request("POST", f"{served}/x", json={"a": [1, None]})
    assert (reply.status, reply.json()) == (201, {"a": [1, None]})


async def test_pieces_come_as_they_are_sent(served: str) -> None:
    async with open_client(served) as client, client.stream("GET", "/big") as incoming:
        assert sum([len(piece) async for piece in incoming.pieces()]) == BIG


async def test_leaving_in_the_middle_leaves_nothing_behind(served: str) -> None:
    async with open_client(served, connections=1) as client:
        for _ in range(2):
            async with client.stream("GET", "/big") as incoming:
                async for _piece in incoming.pieces():
                    break
        assert (await client.request("GET", "/x")).status == 200


async def test_a_redirect_is_an_answer_like_others(served: str) -> None:
    async with open_client(served) as client:
        reply = await client.request("GET", "/away")
    assert (reply.status, reply.headers["location"]) == (302, "/headers")


@pytest.mark.parametrize(
    ("path", "kind", "word"),
    [
        ("/garbage", RemoteConnectionError, "broke off the connection"),
        ("/short", RemoteConnectionError, "broke off the connection"),
        ("/silent", RemoteTimeout, "sent nothing for too long"),
        ("/silent-body", RemoteTimeout, "sent nothing for too long"),
        ("/big", ResponseTooLarge, "more than 1000 bytes"),
    ],
)
async def test_what_goes_wrong_is_named(served: str, path: str, kind: type[RemoteError], word: str) -> None:
    with trio.fail_after(30):
        async with open_client(timeouts=Timeouts(stall=0.2)) as client:
            with pytest.raises(kind, match=word) as caught:
                await client.request("GET", f"{served}{path}?token=secret", limit=1000)
    assert isinstance(caught.value, Unavailable)
    assert str(caught.value).startswith(f"{served}{path} ")


@pytest.mark.attack("hub")
async def test_an_answer_that_drips_meets_the_deadline(served: str) -> None:
    with trio.fail_after(30):
        async with open_client(served) as client:
            with pytest.raises(RemoteTimeout, match=r"did not answer within 0\.2 s"):
                await client.request("GET", "/silent-body", deadline=0.2)


async def test_one_call_may_be_less_patient_than_the_client(served: str) -> None:
    with trio.fail_after(30):
        async with open_client(served) as client:
            with pytest.raises(RemoteTimeout):
                async with client.stream("GET", "/silent", timeout=0.1):
                    pass


@pytest.mark.parametrize("base", [True, False])
async def test_nobody_listening_is_told_with_place_and_reason(free_port: int, base: bool) -> None:
    server = f"http://127.0.0.1:{free_port}"
    async with open_client(server if base else "") as client:
        with pytest.raises(
            RemoteConnectionError, match=rf"^{server}/a cannot be reached \(Connection refused\)"
        ):
            await client.request("GET", "/a" if base else f"{server}/a")


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "http://[::1", "//x"])
async def test_only_http_is_spoken(url: str) -> None:
    async with open_client() as client:
        with pytest.raises(BadResponse):
            await client.request("GET", url)


async def test_something_that_is_not_json_is_a_bad_reply(served: str) -> None:
    async with open_client(served) as client:
        reply = await client.request("GET", "/big")
        with pytest.raises(BadResponse, match="not JSON"):
            reply.json()


async def test_the_proxy_is_for_the_world_outside(
    served: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", served)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with open_client() as client:
        through = await client.request("GET", "http://hub.invalid/x")
        assert through.json()["seen"] == "http://hub.invalid/x"
        with pytest.raises(RemoteConnectionError, match="Connection refused"):
            await client.request("GET", f"http://127.0.0.1:{free_port}/x")
    async with open_client(trust_env=False) as client:
        with pytest.raises(RemoteConnectionError):
            await client.request("GET", "http://hub.invalid/x")


async def test_cancelling_leaves_the_connections_usable(served: str) -> None:
    async with open_client(served, connections=1) as client:
        for _ in range(3):
            with trio.move_on_after(0.05):
                await client.request("GET", "/silent")
        with trio.fail_after(10):
            assert (await client.request("GET", "/x")).status == 200


def test_a_certificate_file_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        open_client(verify="/nonexistent.pem")


async def test_a_context_of_ones_own_is_taken() -> None:
    async with open_client(verify=ssl.create_default_context()) as client:
        assert repr(client) == "<HttpClient, 0 requests made>"


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://user:pass@host:8443/a/b?sig=1#x", "https://host:8443/a/b"),
        ("http://[::1]:80/x?y", "http://[::1]:80/x"),
        ("/path?token=1", "/path"),
        ("http://[::1", "a malformed address"),
        ("http://h:99999/", "a malformed address"),
    ],
)
def test_no_secret_of_an_address_is_shown(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    "value", ["Bearer Hunter2\n", "Bearer Hunter2\r\nx: y", "Hunter2\u00e9", "Hunter2\x00", "Hunter2\udce9"]
)
async def test_a_header_that_cannot_be_sent_is_told_without_it(served: str, value: str) -> None:
    async with open_client(served) as client:
        with pytest.raises(BadResponse) as caught:
            await client.request("GET", "/x", headers={"authorization": value})
    assert "Hunter2" not in str(caught.value)
