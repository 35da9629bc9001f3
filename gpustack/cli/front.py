"""The front port: inference and worker posts on the core, everything else handed to the app once it is loaded."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

import attrs
import orjson

from gpustack.api.cors import CrossOrigin, cross_origin
from gpustack.api.readiness import readiness
from gpustack.config.options import Options
from gpustack.http1.certificate import Certificate
from gpustack.http1.exchange import Exchange
from gpustack.http1.handoff import HypercornHandOff
from gpustack.http1.head import Head
from gpustack.http1.reactor import Reactor
from gpustack.http1.server import Handler, HttpServer

_JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_STARTING = (False, {"server": "loading"})


def cross_origin_of(options: Options) -> CrossOrigin | None:
    """The rule that the options make; ``None`` unless ``--enable-cors``."""
    if not options.enable_cors:
        return None
    return cross_origin(
        origins=options.allow_origins,
        methods=options.allow_methods,
        headers=options.allow_headers,
        credentials=options.allow_credentials,
    )


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
    cross_origin: CrossOrigin | None
    """What pages of other sites may do; ``None``: nothing."""
    _lanes: list[Lane]

    def __init__(
        self, listeners: Sequence[socket.socket], reactor: Reactor, certificate: Certificate | None = None
    ) -> None:
        self._lanes = []
        self.cross_origin = None
        self.readiness = lambda: _STARTING
        self.hand_off = HypercornHandOff(name="app")
        self.server = HttpServer(
            "front",
            listeners,
            handler=self._handle,
            reactor=reactor,
            tls=None if certificate is None else lambda: certificate.context,
        )

    def open_lane(self, lane: Lane) -> None:
        """From now on these requests go to that handler."""
        self._lanes.append(lane)

    async def _handle(self, exchange: Exchange) -> None:
        if self.cross_origin is not None:
            question = self.cross_origin.preflight(exchange.head)
            if question is not None:
                await exchange.respond(question.status, question.fields, question.body)
                return
            exchange.extra = self.cross_origin.fields(exchange.head)
        await self._handler_of(exchange.head)(exchange)

    def _handler_of(self, head: Head) -> Handler:
        if head.path == "/healthz":
            return _healthy
        if head.path == "/readyz":
            return self._ready
        return next((lane.handler for lane in self._lanes if lane.claims(head)), self.hand_off)

    async def _ready(self, exchange: Exchange) -> None:
        answer = readiness(*self.readiness())
        extra = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await exchange.respond(answer.status, [*_JSON, *extra], orjson.dumps(answer.document))


async def _healthy(exchange: Exchange) -> None:
    await exchange.respond(200, _JSON, b'"ok"')
