"""A hub that costs next to nothing (sendfile): one repository with one file, in ModelScope's API; counts what it sends.

python benchmarks/file_hub.py FILE SHA256      prints its URL; a line on stdin makes it print the bytes sent so far
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = "model.gguf"


class Hub(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    path, digest = "", ""
    sent = 0
    counting = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        size = os.path.getsize(self.server.path)  # noqa: PTH202
        if "/repo/files" in self.path:
            entry = {"Path": NAME, "Type": "blob", "Size": size, "Sha256": self.server.digest}
            body = json.dumps({"Code": 200, "Success": True, "Data": {"Files": [entry]}}).encode()
            self._head(200, len(body))
            self.wfile.write(body)
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        start, end = (int(found[1]), min(int(found[2]) + 1, size)) if found else (0, size)
        self._head(206 if found else 200, end - start, f"bytes {start}-{end - 1}/{size}" if found else None)
        self.wfile.flush()
        with open(self.server.path, "rb") as source:  # noqa: PTH123
            while start < end:
                try:
                    took = os.sendfile(self.connection.fileno(), source.fileno(), start, end - start)
                except OSError:  # the client left
                    self.close_connection = True
                    return
                start += took
                with self.server.counting:
                    self.server.sent += took

    def _head(self, status: int, length: int, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(length))
        if content_range:
            self.send_header("content-range", content_range)
        self.end_headers()


def main() -> None:
    hub = Hub(("127.0.0.1", 0), Handler)
    hub.path, hub.digest = sys.argv[1:3]
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{hub.server_address[1]}", flush=True)
    for _ in sys.stdin:
        print(hub.sent, flush=True)


if __name__ == "__main__":
    main()
