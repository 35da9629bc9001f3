"""Runs a service until it is told to end: sockets, signals, and the time that running requests get."""

from __future__ import annotations

import os
import signal
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

KEY_VARIABLE = "GPUSTACK_ENGINE_API_KEY"
DRAIN_SECONDS = 10.0
_ENDINGS = (signal.SIGTERM, signal.SIGINT)


def engine_key() -> str | None:
    """The key that clients must send; taken out of the environment, so that no child inherits it."""
    return os.environ.pop(KEY_VARIABLE, "") or None


def say(name: str, sentence: str) -> None:
    """One line on stderr, in one piece."""
    os.write(2, f"{name}: {sentence}\n".encode(errors="replace"))


async def serve_until_told(app: Any, name: str, host: str, port: int, drain_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT, then up to ``drain_seconds`` more for what runs. A second signal ends at once.

    Raises ``OSError`` where the port cannot be taken.
    """
    config = Config()
    config.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    config.graceful_timeout = drain_seconds
    config.keep_alive_timeout = 3600.0
    config.read_timeout = None
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    told = trio.Event()
    with trio.open_signal_receiver(*_ENDINGS) as signals:
        async with trio.open_nursery() as nursery:

            async def serving(*, task_status: trio.TaskStatus[list[str]]) -> None:
                await serve(app, config, shutdown_trigger=told.wait, task_status=task_status)
                nursery.cancel_scope.cancel()

            bound = await nursery.start(serving)
            say(name, f"listening on {bound[0]}")
            async for _ in signals:
                if told.is_set():
                    break
                told.set()
            nursery.cancel_scope.cancel()
