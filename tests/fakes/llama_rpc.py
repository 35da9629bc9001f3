"""Stands for llama.cpp's two programs of a gang: a server that connects to its RPC servers, and an RPC server.

As the real ones: the RPC server serves one client at a time and exits with code 0 when its port is taken; the main one
answers ``/health`` whatever becomes of its peers, and aborts when it is asked for an answer and one is gone.
"""

from __future__ import annotations

import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.child import ROOT


def value_of(flag: str) -> str:
    return sys.argv[sys.argv.index(flag) + 1]


def serve_rpc() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((value_of("-H"), int(value_of("-p"))))
    except OSError:
        print("Failed to create server socket", flush=True)
        sys.exit(0)
    listener.listen(8)
    while True:
        client, _ = listener.accept()
        while client.recv(4096):
            client.sendall(b"pong")
        client.close()


class Handler(BaseHTTPRequestHandler):
    peers: list[socket.socket]

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        for peer in self.peers:
            try:
                peer.sendall(b"ping")
                alive = bool(peer.recv(16))
            except OSError:
                alive = False
            if not alive:
                print("Remote RPC server crashed or returned malformed response", flush=True)
                os.abort()
        self.answer()

    def answer(self) -> None:
        body = b'{"peers": %d}' % len(self.peers)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve_http() -> None:
    where = [one.rpartition(":") for one in value_of("--rpc").split(",")]
    Handler.peers = [socket.create_connection((host, int(port))) for host, _, port in where]
    server = ThreadingHTTPServer((value_of("--host"), int(value_of("--port"))), Handler)
    server.serve_forever()


def describe() -> None:
    """What a worker asks a build for."""
    if "--version" in sys.argv:
        print("version: 4711 (0a1b2c3d)")
    elif "--list-devices" in sys.argv:
        print("Available devices:")
    else:
        print("--rpc SERVERS    comma-separated list of RPC servers")


def install(folder: Path) -> Path:
    """Both programs as executables in ``folder``; the path of the main one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ggml-rpc-server", "llama-server"):
        program = folder / name
        program.write_text(
            f'#!/bin/sh\nexec env PYTHONPATH={ROOT} {sys.executable} -m tests.fakes.llama_rpc "$@"\n'
        )
        program.chmod(0o755)
    return folder / "llama-server"


if __name__ == "__main__":
    if not {"-H", "--host"} & set(sys.argv):
        describe()
        sys.exit(0)
    serve_rpc() if "-H" in sys.argv else serve_http()
