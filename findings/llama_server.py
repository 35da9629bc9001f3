"""llama.cpp's own HTTP server out of the ``xllamacpp`` package, on a port of the loopback, and how to ask it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import tiny_gguf
import xllamacpp

MODEL = "tiny.gguf"
SECONDS = 60.0


def start(**settings: Any) -> Any:
    """A server with the tiny model; it ends when it is let go. The settings are llama.cpp's, by its names."""
    tiny_gguf.write(MODEL)
    params = xllamacpp.CommonParams()
    params.model.path = MODEL
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = -1  # llama-server's own default
    for name, value in settings.items():
        setattr(params, name, value)
    return xllamacpp.Server(params)


def ask(server: Any, path: str, body: Any = None) -> tuple[int, str]:
    """The status and the text of the answer; with a body it is a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        server.listening_address + path, data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def events(text: str) -> list[Any]:
    """The values of a stream of server-sent events; its last word ``[DONE]`` is no value."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
