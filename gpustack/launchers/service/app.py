"""The ASGI application of an engine program: its routes, its key, and what becomes of a client that leaves."""

from __future__ import annotations

import hmac
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from .call import Receive, Send, ServiceCall, ServiceFault
from .work import WorkQueue

Handler = Callable[[ServiceCall], Awaitable[None]]
_CLIENT_LEFT = 499


class EngineService:
    """Answers ``/health`` to everybody, all else to who has the key; a client that leaves cancels its handler."""

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        key: str | None,
        routes: Mapping[tuple[str, str], Handler],
        work: WorkQueue,
        prefix: str,
    ) -> None:
        """``model``: the entry of ``/v1/models``; ``prefix``: what the names of metrics begin with."""
        self._model = model
        self._key = None if key is None else key.encode()
        self._work = work
        self._prefix = prefix
        self._routes: Mapping[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/v1/models"): self._models,
            ("GET", "/metrics"): self._metrics,
            **routes,
        }

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._answer(ServiceCall(scope, receive, send))

    async def _answer(self, call: ServiceCall) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_left, call, nursery.cancel_scope)
            try:
                await self._handler(call)(call)
            except ServiceFault as fault:
                if fault.status != _CLIENT_LEFT:
                    await call.refuse(fault)
            except Exception as error:  # noqa: BLE001  # a library's fault ends this request, and no other
                sys.stderr.write("".join(traceback.format_exception(error)))
                await call.refuse(ServiceFault(f"The engine failed at this request: {_short(error)}", 500))
            nursery.cancel_scope.cancel()

    def _handler(self, call: ServiceCall) -> Handler:
        if call.path != "/health" and not self._has_key(call):
            raise ServiceFault("The key of this engine is missing or wrong", 401)
        handler = self._routes.get((call.method, call.path))
        if handler is not None:
            return handler
        if any(path == call.path for _, path in self._routes):
            raise ServiceFault(f"{call.method} is not possible at {call.path}", 405)
        raise ServiceFault(f"There is nothing at {call.path} for this model", 404)

    def _has_key(self, call: ServiceCall) -> bool:
        given = call.header(b"authorization") or b""
        return self._key is None or hmac.compare_digest(given, b"Bearer " + self._key)

    async def _health(self, call: ServiceCall) -> None:
        await call.answer({"status": "ok"})

    async def _models(self, call: ServiceCall) -> None:
        await call.answer({"object": "list", "data": [dict(self._model)]})

    async def _metrics(self, call: ServiceCall) -> None:
        await call.answer_bytes(self._work.metrics(self._prefix).encode(), "text/plain; version=0.0.4")


async def _cancel_when_left(call: ServiceCall, scope: trio.CancelScope) -> None:
    await call.left()
    if not call.ending:
        scope.cancel()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _short(error: Exception) -> str:
    """The first line of what a library says, or the kind of error where it says nothing."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
