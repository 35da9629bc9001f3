"""Stands for ``vllm serve`` on several hosts: the head serves HTTP and never asks for its follower, which is silent.

As the real one: the head answers ``/health`` whatever becomes of its follower, and ends with code 0 when a request
finds out; asked to end it waits for its requests, and then writes ``drained`` into the folder ``VLLM_STUB_DRAINS``.
``VLLM_STUB_FAILS`` in the environment names who fails at the start: ``head`` or ``follower``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def value_of(flag: str) -> str:
    return sys.argv[sys.argv.index(flag) + 1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.answer()
        if self.path == "/break":
            os._exit(0)

    def answer(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def drain(folder: Path) -> None:
    time.sleep(4)
    (folder / "drained").touch()
    os._exit(0)


def main() -> None:
    role = "follower" if "--headless" in sys.argv else "head"
    if os.environ.get("VLLM_STUB_FAILS") == role:
        print("RuntimeError: Gloo connectFullMesh failed", flush=True)
        sys.exit(1)
    if role == "follower":
        signal.pause()
    if folder := os.environ.get("VLLM_STUB_DRAINS"):
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=drain, args=(Path(folder),)).start())
    store = socket.create_server((value_of("--master-addr"), int(value_of("--master-port"))))
    with store, ThreadingHTTPServer((value_of("--host"), int(value_of("--port"))), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
