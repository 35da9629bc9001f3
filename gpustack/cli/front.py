"""The front port: inference and worker posts on the core, everything else handed to the app once it is loaded."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

import attrs
import orjson

from gpustack.http1.exchange import Exchange, Peer
from gpustack.http1.handoff import HypercornHandOff
from gpustack.http1.head import Head
from gpustack.http1.reactor import Reactor
from gpustack.http1.server import Handler, HttpServer

_JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_STARTING = (False, {"server": "loading"})


@attrs.frozen
class Lane:
    """Requests that one handler takes."""

    claims: Callable[[Head], bool]
    handler: Handler


@attrs.define(eq=False, init=False)
class Front:
    """Answers health from the first moment; other lanes open as what is behind them is loaded."""

    server: HttpServer
    hand_off: HypercornHandOff
    readiness: Callable[[], tuple[bool, Mapping[str, str]]]
    _lanes: list[Lane]

    def __init__(self, listeners: Sequence[socket.socket], reactor: Reactor) -> None:
        self._lanes = []
        self.readiness = lambda: _STARTING
        self.hand_off = HypercornHandOff(name="app")
        self.server = HttpServer(
            "front",
            listeners,
            handler=self._handle,
            claims=self._claims,
            hand_off=self.hand_off,
            reactor=reactor,
        )

    def open_lane(self, lane: Lane) -> None:
        """From now on these requests go to that handler."""
        self._lanes.append(lane)

    def _claims(self, head: Head, peer: Peer) -> bool:
        return head.path in ("/healthz", "/readyz") or any(lane.claims(head) for lane in self._lanes)

    async def _handle(self, exchange: Exchange) -> None:
        head = exchange.head
        if head.path == "/healthz":
            await exchange.respond(200, _JSON, b'"ok"')
        elif head.path == "/readyz":
            ready, parts = self.readiness()
            body = b'"ok"' if ready else orjson.dumps({"ready": False, **parts})
            await exchange.respond(200 if ready else 503, _JSON, body)
        else:
            for lane in self._lanes:
                if lane.claims(head):
                    await lane.handler(exchange)
                    return
