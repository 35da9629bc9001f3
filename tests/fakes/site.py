"""What the stand-ins of model sites share: a plain HTTP server in a thread, and files by ranges."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class SiteServer(ThreadingHTTPServer):
    daemon_threads = True


class FileHandler(BaseHTTPRequestHandler):
    """Answers whole, or the range that is asked for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def give(self, body: bytes) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if found is None:
            self.answer(200, body)
            return
        first, last = int(found[1]), min(int(found[2]), len(body) - 1)
        self.answer(206, body[first : last + 1], content_range=f"bytes {first}-{last}/{len(body)}")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "content_length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(OSError):  # they may have left meanwhile
            self.wfile.write(body)


@contextlib.contextmanager
def serving(server: SiteServer) -> Iterator[None]:
    """It serves within the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
