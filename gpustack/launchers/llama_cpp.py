"""A llama-server on the llama.cpp inside ``xllamacpp``: the same flags, HTTP and behaviour on signals.

    python -m gpustack.launchers.llama_cpp --model m.gguf --host 127.0.0.1 --port 8080 -c 4096 --metrics

``--drain-seconds N`` (ours) is how long SIGTERM waits for running requests; a second SIGTERM does not wait.
The API key, if any, comes from LLAMA_API_KEY. Exit codes: 0 after SIGTERM, 1 if the engine cannot start,
2 if the arguments are wrong; each with one sentence on stderr. It outlives whoever started it, on purpose.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .flag import Flag, FlagError, apply
from .llama_flags import REFUSED, flags

NAME = "llama_cpp"
DRAIN_SECONDS = 10.0
TEARDOWN_SECONDS = 5
"""Seconds that the threads of the engine have to end once no request runs; then SIGALRM ends the process."""

_ENDINGS = (signal.SIGTERM, signal.SIGINT)


class Settings:
    """Settings of this program, which llama.cpp does not have."""

    drain_seconds: float = DRAIN_SECONDS
    api_key: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    import xllamacpp  # type: ignore[import-untyped]  # the wheel brings no stubs

    words = sys.argv[1:] if argv is None else argv
    if "--version" in words:
        print(f"xllamacpp {xllamacpp.__version__}")  # noqa: T201  # the answer to a question on the command line
        return 0
    settings = Settings()
    try:
        params = parameters(xllamacpp, words, settings)
    except FlagError as wrong:
        return _say(f"{wrong}", 2)
    # While the model loads SIGTERM has its default action: nothing is running that could be drained.
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        return _say(f"the engine did not start: {error}", 1)
    told = _signals_as_bytes()
    _say(f"listening on {server.listening_address}", 0)
    os.read(told, 1)
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_DFL)
    _drain(server.listening_address + params.api_prefix, settings)
    signal.alarm(TEARDOWN_SECONDS)
    del server
    return 0


def parameters(xlc: Any, words: Sequence[str], settings: Settings) -> Any:
    """``CommonParams`` as the command line says, with llama-server's defaults. Raises ``FlagError``."""
    params = xlc.CommonParams()
    params.n_parallel = -1  # as llama-server does: it chooses, and its slots share one cache
    params.port = 8080
    params.ui = False
    params.cors_origins = os.environ.get("LLAMA_ARG_CORS_ORIGINS", params.cors_origins)
    if keys := os.environ.pop("LLAMA_API_KEY", ""):
        params.api_keys = keys.split(",")
        settings.api_key = params.api_keys[0]

    def drain(_: Any, text: str) -> None:
        settings.drain_seconds = float(text)

    apply((*flags(xlc), Flag(("--drain-seconds",), drain)), REFUSED, params, words)
    if not params.model.path:
        raise FlagError("--model is required")
    for flag, path in (("--model", params.model.path), ("--mmproj", params.mmproj.path)):
        if path and not Path(path).is_file():
            raise FlagError(f"{flag}: there is no file {path}")
    return params


def _signals_as_bytes() -> int:
    """A descriptor that can be read once we are asked to end.

    The kernel may hand the signal to one of the engine's threads; waiting on a lock, Python's own thread would
    never notice (seen in one of a hundred ends).
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in _ENDINGS:
        signal.signal(number, lambda *_: None)
    return reader


def _drain(address: str, settings: Settings) -> None:
    deadline = time.monotonic() + settings.drain_seconds
    while time.monotonic() < deadline and _is_busy(address, settings.api_key):
        time.sleep(0.05)


def _is_busy(address: str, api_key: str) -> bool:
    """Whether a slot works on a request. If that cannot be asked (``--no-slots``), nothing is waited for.

    An engine that sleeps has no work, and would load its model to tell of its slots.
    """
    properties = _answer(f"{address}/props", api_key)
    if properties is not None and properties.get("is_sleeping"):
        return False
    slots = _answer(f"{address}/slots", api_key)
    return slots is not None and any(slot["is_processing"] for slot in slots)


def _answer(url: str, api_key: str) -> Any:
    """The JSON that the engine answers; ``None`` if it does not."""
    import json
    import urllib.request

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {api_key}"})
    try:
        with direct.open(request, timeout=2) as response:
            return json.load(response)
    except (OSError, ValueError):
        return None


def _say(sentence: str, code: int) -> int:
    # In one piece: the engine's log goes to the same place, bit by bit from another thread.
    os.write(2, f"{NAME}: {sentence}\n".encode())
    return code


if __name__ == "__main__":
    sys.exit(main())
