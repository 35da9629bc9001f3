"""A Xet store on loopback, as far as the hub's client reads from one: tokens, reconstructions, and blocks of chunks.

Each file is one block; its Xet hash is its SHA-256, which the real one's is not. ``log`` holds what was asked.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK = 64 << 10


@dataclass
class Cas:
    """Put files in by ``files[sha256] = content``, and ``cas.headers`` into ``hub.xet``."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    holds: bool = False  # blocks are not sent until ``released``
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def headers(self, sha256: str) -> dict[str, str]:
        """What the hub says of a file that is here."""
        if sha256 not in self.files:
            return {}
        return {"X-Xet-Hash": sha256, "X-Xet-Refresh-Route": f"{self.url}/token"}


def block_of(content: bytes) -> tuple[bytes, int]:
    """Chunks, not compressed, each behind its header of eight bytes; and how many there are."""
    out = bytearray()
    pieces = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    for piece in pieces:
        size = len(piece).to_bytes(3, "little")
        out += b"\0" + size + b"\0" + size + piece
    return bytes(out), len(pieces)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    cas: Cas


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        cas, parts = self.server.cas, self.path.partition("?")[0].strip("/").split("/")
        cas.log.append(parts[0] if parts[0] != "v1" else parts[1])
        if parts == ["token"]:
            told = {
                "X-Xet-Cas-Url": cas.url,
                "X-Xet-Access-Token": "of-the-tests",
                "X-Xet-Token-Expiration": str(int(time.time()) + 3600),
            }
            self.answer(200, b"", told)
        elif parts[:2] == ["v1", "reconstructions"] and parts[2] in cas.files:
            self.answer(200, json.dumps(self.reconstruction(parts[2])).encode(), {})
        elif parts[0] == "block" and parts[1] in cas.files:
            if cas.holds:
                cas.held.set()
                cas.released.wait(60)
            block, _ = block_of(cas.files[parts[1]])
            self.answer(206, block, {"Content-Range": f"bytes 0-{len(block) - 1}/{len(block)}"})
        else:
            self.answer(404, b"", {})

    def reconstruction(self, sha256: str) -> dict[str, Any]:
        content = self.server.cas.files[sha256]
        block, count = block_of(content)
        chunks = {"start": 0, "end": count}
        place = {
            "range": chunks,
            "url": f"{self.server.cas.url}/block/{sha256}",
            "url_range": {"start": 0, "end": len(block) - 1},
        }
        return {
            "offset_into_first_range": 0,
            "terms": [{"hash": sha256, "unpacked_length": len(content), "range": chunks}],
            "fetch_info": {sha256: [place]},
        }

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


@contextlib.contextmanager
def running_cas() -> Iterator[Cas]:
    """A store that has nothing yet."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.cas = cas = Cas(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield cas
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
