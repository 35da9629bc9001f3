"""A hub that lies, floods or leads astray costs one sentence: not the daemon, not its memory, not its secrets."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio

from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import GpustackError
from gpustack.remote.http import ANSWER_LIMIT

FILE = {"rfilename": "m.gguf", "size": 100, "lfs": {"size": 100, "sha256": "0" * 64, "pointerSize": 1}}
MODEL: dict[str, Any] = {"id": "a/b", "modelId": "a/b", "sha": "c" * 40, "siblings": [FILE]}
Answer = Callable[[BaseHTTPRequestHandler], None]
FLOOD = 4 * ANSWER_LIMIT


def with_file(**fields: Any) -> dict[str, Any]:
    return {**MODEL, "siblings": [{**FILE, **fields}]}


LIES: dict[str, Any] = {
    "size is negative": with_file(size=-5),
    "size is text": with_file(size="x"),
    "size is a fraction": with_file(size=1.5),
    "size is a list": with_file(size=[1]),
    "size is beyond all disks": with_file(size=2**70),
    "name is a number": with_file(rfilename=5),
    "name is nothing": with_file(rfilename=None),
    "name leads out": with_file(rfilename="../../../etc/x.gguf"),
    "name is absolute": with_file(rfilename="/etc/x.gguf"),
    "name leads out on other systems": with_file(rfilename="a\\..\\..\\x.gguf"),
    "name has a NUL": with_file(rfilename="a\0.gguf"),
    "name has a line break": with_file(rfilename="a\nb.gguf"),
    "name is half a character": with_file(rfilename="\ud800.gguf"),
    "name is endless": with_file(rfilename="a" * 5000 + ".gguf"),
    "commit is a number": {**MODEL, "sha": 5},
    "commit is an object": {**MODEL, "sha": {}},
    "hash is a number": with_file(lfs={"size": 1, "sha256": 5, "pointerSize": 1}),
    "hash is no object": with_file(lfs="x"),
    "files are an object": {**MODEL, "siblings": {"a": 1}},
    "files are texts": {**MODEL, "siblings": ["a"]},
    "files are countless": {
        **MODEL,
        "siblings": [{"rfilename": f"{n}.gguf", "size": 1} for n in range(20_000)],
    },
    "nothing": None,
    "a list": [],
}


class Hub(ThreadingHTTPServer):
    """Gives one and the same answer to everything."""

    daemon_threads = True
    answer: Answer
    sent = 0
    """The most bytes that were taken of one answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that had enough are no errors."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Hub)
        self.server.answer(self)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def evil() -> Iterator[Hub]:
    hub = Hub(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def says(body: bytes, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **headers,
        }.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def flood(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.end_headers()
    assert isinstance(handler.server, Hub)
    with contextlib.suppress(OSError):
        handler.wfile.write(b'{"id":"')
        sent = 0
        while sent < FLOOD:
            sent += handler.wfile.write(b"a" * (1 << 20))
            handler.server.sent = max(sent, handler.server.sent)


async def refused(hub: Hub, folder: Path) -> list[str]:
    """What is said of a model there by who reads its header and by who fetches it, with and without a pattern."""
    sentences = []
    for pattern in (None, "*.gguf"):
        source = ModelSource(
            kind=SourceKind.HUGGING_FACE, huggingface_repo_id="a/b", huggingface_filename=pattern
        )
        reader = FactsReader(clock=trio.current_time, rng=random.Random(1), endpoint=hub.url)
        cache = Cache(folder, random.Random(1), settings=CacheSettings(endpoint=hub.url))
        for ask in (reader.read, cache.ensure):
            with trio.fail_after(50), pytest.raises(GpustackError) as caught:
                await ask(source)
            sentences.append(str(caught.value))
    return sentences


@pytest.mark.attack("hub")
@pytest.mark.parametrize("lie", sorted(LIES))
async def test_a_listing_that_lies_is_refused_with_a_sentence(evil: Hub, tmp_path: Path, lie: str) -> None:
    evil.answer = says(json.dumps(LIES[lie]).encode())
    assert all(await refused(evil, tmp_path / "cache"))
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith(".gguf")]


@pytest.mark.attack("hub")
@pytest.mark.parametrize("body", [b"<html>", b"[" * 100_000, b'"\xff"', b""], ids=ascii)
async def test_what_is_no_json_is_refused_with_a_sentence(evil: Hub, tmp_path: Path, body: bytes) -> None:
    evil.answer = says(body)
    assert all("does not answer like a model hub" in said for said in await refused(evil, tmp_path / "cache"))


@pytest.mark.attack("hub")
async def test_a_listing_without_end_is_not_read_to_its_end(evil: Hub, tmp_path: Path) -> None:
    evil.answer = flood
    assert all("answered with more than" in said for said in await refused(evil, tmp_path / "cache"))
    assert evil.sent < FLOOD


@pytest.mark.attack("hub")
async def test_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked(evil: Hub, tmp_path: Path) -> None:
    evil.answer = says(gzip.compress(b" " * FLOOD), content_encoding="gzip")
    assert all(
        "an encoding that nobody asked for" in said for said in await refused(evil, tmp_path / "cache")
    )


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://metadata.google.internal/",
        "file:///etc/passwd",
        "//[",
        "x:y",
    ],
)
async def test_a_listing_leads_nowhere_inside(evil: Hub, tmp_path: Path, place: str) -> None:
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("location", place)
        handler.send_header("content-length", "0")
        handler.end_headers()

    evil.answer = elsewhere
    assert all(await refused(evil, tmp_path / "cache"))
