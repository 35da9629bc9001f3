"""Stands for ``vllm serve``: on several hosts the head serves HTTP and never asks for its follower, which is silent.

As the real one: the head answers ``/health`` whatever becomes of its follower, and ends with code 0 when a request
finds out; asked to end it waits for its requests, and then writes ``drained`` into the folder ``VLLM_STUB_DRAINS``.
``VLLM_STUB_FAILS`` in the environment names who fails at the start: ``head`` or ``follower``.

LoRA adapters are loaded and unloaded as by vLLM 0.32: same paths, same status codes, same words. A request for
``/slow`` is answered once the file that its header ``x-until`` names is there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOADED: dict[str, str] = {}
"""Adapters by name, each with its path."""


def value_of(flag: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(flag) + 1] if flag in sys.argv else default


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def load(name: str, path: str) -> None:
    if name in LOADED:
        raise Refusal(400, f"The lora adapter '{name}' has already been loaded.")
    try:
        rank = json.loads((Path(path) / "adapter_config.json").read_text())["r"]
    except OSError:
        raise Refusal(404, f"Loading lora {name} failed: No adapter found for {path}") from None
    room = int(value_of("--max-lora-rank", "16"))
    if rank > room:
        why = f"LoRA rank {rank} is greater than max_lora_rank {room}."
        see = "please check the stack trace above for the root cause"
        raise Refusal(500, f"Call to add_lora method failed: Worker failed with error '{why}', {see}")
    LOADED[name] = path


def unload(name: str) -> None:
    if name not in LOADED:
        raise Refusal(404, f"The lora adapter '{name}' cannot be found.")
    del LOADED[name]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models" and self.may():
            served = value_of("--served-model-name")
            cards = [{"id": served, "root": sys.argv[2], "parent": None}]
            cards += [{"id": name, "root": path, "parent": served} for name, path in LOADED.items()]
            self.answer(200, {"object": "list", "data": cards})
        elif self.path != "/v1/models":
            self.answer(200, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.endswith("_lora_adapter"):
            if self.may():
                self.change(json.loads(body))
            return
        while self.path == "/slow" and not Path(self.headers["x-until"]).exists():
            time.sleep(0.02)
        self.answer(200, {})
        if self.path == "/break":
            os._exit(0)

    def may(self) -> bool:
        wanted = os.environ.get("VLLM_API_KEY")
        allowed = wanted is None or self.headers.get("authorization") == f"Bearer {wanted}"
        if not allowed:
            self.answer(401, {"error": "Unauthorized"})
        return allowed

    def change(self, asked: dict[str, str]) -> None:
        try:
            if os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") != "1" or "--enable-lora" not in sys.argv:
                raise Refusal(404, "Not Found")
            if self.path == "/v1/load_lora_adapter":
                load(asked["lora_name"], asked["lora_path"])
            else:
                unload(asked["lora_name"])
        except Refusal as refusal:
            kind = {"type": "Error", "param": None, "code": refusal.status}
            self.answer(refusal.status, {"error": {"message": str(refusal), **kind}})
        else:
            self.answer(200, {})

    def answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def drain(folder: Path) -> None:
    time.sleep(4)
    (folder / "drained").touch()
    os._exit(0)


def load_first_ones() -> None:
    """As the real one, it does not start without any of those that it is told of."""
    if "--lora-modules" not in sys.argv:
        return
    for word in sys.argv[sys.argv.index("--lora-modules") + 1 :]:
        if word.startswith("-"):
            break
        asked = json.loads(word)
        try:
            load(asked["name"], asked["path"])
        except Refusal as refusal:
            sys.exit(f"ValueError: {refusal}")


def main() -> None:
    role = "follower" if "--headless" in sys.argv else "head"
    if os.environ.get("VLLM_STUB_FAILS") == role:
        print("RuntimeError: Gloo connectFullMesh failed", flush=True)
        sys.exit(1)
    if role == "follower":
        signal.pause()
    if folder := os.environ.get("VLLM_STUB_DRAINS"):
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=drain, args=(Path(folder),)).start())
    load_first_ones()
    if "--master-port" in sys.argv:
        store = socket.create_server((value_of("--master-addr"), int(value_of("--master-port"))))
        assert store.fileno() >= 0, "it listens until this ends"
    with ThreadingHTTPServer((value_of("--host"), int(value_of("--port"))), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
