"""Documents on loopback, as a program of somebody else would serve them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import attrs


@attrs.define
class Feed:
    """What is answered at ``url``, and what was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = attrs.field(factory=dict)
    asked: list[dict[str, str]] = attrs.field(factory=list)
    paths: list[str] = attrs.field(factory=list)
    bodies: list[bytes] = attrs.field(factory=list)
    pages: dict[str, bytes] = attrs.field(factory=dict)
    """Other paths that answer 200."""


@contextmanager
def serving(feed: Feed) -> Iterator[Feed]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            feed.asked.append({name.lower(): value for name, value in self.headers.items()})
            feed.paths.append(self.path)
            feed.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            other = feed.pages.get(self.path)
            body = feed.body if other is None else other
            self.send_response(feed.status if other is None else 200)
            for name, value in feed.headers.items() if other is None else ():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        feed.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield feed
        finally:
            server.shutdown()
            thread.join()
