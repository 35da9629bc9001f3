"""The client of people's programs, against a small server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from gpustack.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from gpustack.remote.admin_client import CREATED, DELETED, SYNCED, AdminClient
from gpustack.remote.http import BadResponse, open_client

Answer = tuple[int, bytes]
Told = Callable[[str, dict[str, list[str]]], Answer]


@pytest.fixture
def serve() -> Iterator[Callable[[Told], str]]:
    """Start a server whose every answer is what the function says to a path and query; its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(told: Told) -> str:
        class Handler(BaseHTTPRequestHandler):
            def _respond(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                parts = urlsplit(self.path)
                status, body = told(parts.path, parse_qs(parts.query))
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                if parts.path == "/v1/chat/completions" and body.startswith(b"{"):
                    self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = _respond

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def said(document: object, status: int = 200) -> Answer:
    return status, json.dumps(document).encode()


async def test_lists_are_read_page_by_page(serve: Callable[[Told], str]) -> None:
    asked: list[dict[str, list[str]]] = []

    def told(path: str, query: dict[str, list[str]]) -> Answer:
        asked.append(query)
        first = (int(query["page"][0]) - 1) * 100
        # what is made meanwhile moves the last of each page on to the next
        items = [{"id": n} for n in range(max(0, first - 1), min(first + 100, 250))]
        return said({"items": items, "pagination": {"totalPage": 3}})

    with trio.fail_after(30):
        async with open_client(serve(told)) as client:
            found = await AdminClient(client).all("/v1/models", search="a b")
    assert [item["id"] for item in found] == list(range(250))
    assert [query["page"] for query in asked] == [["1"], ["2"], ["3"]]
    assert all(query["search"] == ["a b"] for query in asked)


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (401, "Unauthorized", Unauthorized),
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (422, "Invalid", Invalid),
        (503, "ServiceUnavailable", Unavailable),
    ],
)
async def test_a_no_is_the_error_it_was_there(
    serve: Callable[[Told], str], status: int, reason: str, kind: type[Exception]
) -> None:
    url = serve(lambda path, query: said({"code": status, "reason": reason, "message": "Because."}, status))
    with trio.fail_after(30):
        async with open_client(url) as client:
            with pytest.raises(kind, match=r"Because\."):
                await AdminClient(client).create("/v1/models", {"name": "x"})


async def test_what_is_no_server_of_ours_is_told(serve: Callable[[Told], str]) -> None:
    with trio.fail_after(30):
        async with open_client(serve(lambda path, query: (200, b"<html>"))) as client:
            with pytest.raises(BadResponse, match="not JSON"):
                await AdminClient(client).all("/v1/models")
        async with open_client(serve(lambda path, query: (200, b"[]"))) as client:
            with pytest.raises(Unavailable, match="is it a GPUStack server"):
                await AdminClient(client).get("/v1/models/1")


async def test_a_watch_is_read_line_by_line(serve: Callable[[Told], str]) -> None:
    lines = b'{"type":1,"data":{"id":1}}\n\n\n{"type":6,"data":null}\n\n{"type":3,"data":{"id":1}}\n\n'
    with trio.fail_after(30):
        async with (
            open_client(serve(lambda path, query: (200, lines))) as client,
            AdminClient(client).watch("/v1/model-instances", model_id=7) as events,
        ):
            found = [(event.kind, event.item) async for event in events]
    assert found == [(CREATED, {"id": 1}), (SYNCED, {}), (DELETED, {"id": 1})]


async def test_a_chat_ends_at_its_mark_and_raises_what_went_wrong_midway(
    serve: Callable[[Told], str],
) -> None:
    good = b': hello\n\ndata: {"choices":[]}\n\ndata: [DONE]\n\ndata: {"late":1}\n\n'
    bad = b'data: {"choices":[]}\n\ndata: {"error":{"message":"Too many.","code":429,"type":"TooManyRequests"}}\n\n'
    with trio.fail_after(30):
        async with (
            open_client(serve(lambda path, query: (200, good))) as client,
            AdminClient(client).chat({"model": "m"}) as chunks,
        ):
            assert [chunk async for chunk in chunks] == [{"choices": []}]
        async with open_client(serve(lambda path, query: (200, bad))) as client:
            with pytest.raises(TooManyRequests, match=r"Too many\."):
                async with AdminClient(client).chat({"model": "m"}) as chunks:
                    async for _ in chunks:
                        pass


async def test_an_answer_that_does_not_stream_is_one_chunk(serve: Callable[[Told], str]) -> None:
    whole = {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}
    fault = b'{"error": {"message": "Too many.", "code": 429}}'
    with trio.fail_after(30):
        async with (
            open_client(serve(lambda path, query: (200, json.dumps(whole, indent=1).encode()))) as client,
            AdminClient(client).chat({"model": "m"}) as chunks,
        ):
            assert [chunk async for chunk in chunks] == [whole]
        async with open_client(serve(lambda path, query: (200, fault))) as client:
            with pytest.raises(TooManyRequests, match=r"Too many\."):
                async with AdminClient(client).chat({"model": "m"}) as chunks:
                    pass


@pytest.mark.attack("flood")
async def test_a_line_without_end_is_given_up(serve: Callable[[Told], str]) -> None:
    with trio.fail_after(30):
        async with open_client(serve(lambda path, query: (200, b"x" * (5 << 20)))) as client:
            with pytest.raises(BadResponse, match="too long"):
                async with AdminClient(client).watch("/v1/models") as events:
                    await anext(aiter(events))
