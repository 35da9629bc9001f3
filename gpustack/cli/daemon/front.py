"""The front port: inference and worker requests on our own HTTP core, everything else handed to the API app."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from random import Random

import attrs
import orjson
import trio

from gpustack.api.cors import CorsPolicy, cross_origin
from gpustack.api.problems import INTERNAL, Problem, problem_of, problem_of_status, readiness
from gpustack.cli.daemon.listener import Listeners
from gpustack.config.options import Options
from gpustack.errors import BadRequest, PayloadTooLarge, Unavailable
from gpustack.hardware.socket_owner import find_owner
from gpustack.http1.address import Peer
from gpustack.http1.certificate import Certificate
from gpustack.http1.exchange import BodyError, BodyTimeout, Exchange
from gpustack.http1.fields import REQUEST_ID_FIELD
from gpustack.http1.handoff import HypercornHandOff
from gpustack.http1.head import RequestHead
from gpustack.http1.reactor import Reactor
from gpustack.http1.server import Handler, HttpServer

log = logging.getLogger(__name__)

_JSON = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_READING = frozenset({"GET", "HEAD"})
_LOADED_WITHIN = 30.0
"""Seconds that a request waits for the daemon to load."""
_TRANSPORT: Mapping[type[Exception], int] = {PayloadTooLarge: 413, BodyTimeout: 408, BodyError: 400}
_STARTING = (False, {"server": "loading"})


def cross_origin_of(options: Options) -> CorsPolicy | None:
    """The CORS rule of the options; ``None`` unless ``--enable-cors``."""
    if not options.enable_cors:
        return None
    return cross_origin(
        origins=options.allow_origins,
        methods=options.allow_methods,
        headers=options.allow_headers,
        credentials=options.allow_credentials,
    )


def request_id_of(rng: Random, head: RequestHead | None) -> bytes:
    """The id of a request: the one that its client gave it if that is short and printable, else a random one."""
    given = None if head is None else head.get(REQUEST_ID_FIELD)
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return b"%016x" % rng.getrandbits(64)


@attrs.frozen
class HandlerMount:
    """A handler, and which requests it takes."""

    claims: Callable[[RequestHead], bool]
    handler: Handler


@attrs.define(eq=False, init=False)
class FrontServer:
    """The HTTP server of the front port. It answers health at once; other requests wait until ``open`` is called."""

    server: HttpServer
    hand_off: HypercornHandOff
    readiness: Callable[[], tuple[bool, Mapping[str, str]]]
    left: Callable[[RequestHead, Peer], None]
    """Told of each request whose client was gone before it was looked at."""
    cross_origin: CorsPolicy | None
    """What pages of other sites may do; ``None``: nothing."""
    _mounts: list[HandlerMount]
    _opened: trio.Event
    _managing: set[trio.CancelScope]
    """The requests that the app works on."""

    def __init__(
        self, listeners: Listeners, reactor: Reactor, rng: Random, certificate: Certificate | None = None
    ) -> None:
        self._mounts = []
        self._opened = trio.Event()
        self._managing = set()
        self.cross_origin = None
        self.readiness = lambda: _STARTING
        self.left = lambda head, peer: None
        self.hand_off = HypercornHandOff(name="app", bodies_on_demand=True)
        self.server = listeners.serve(
            HttpServer(
                "front",
                listeners.at("front"),
                handler=self._handle,
                on_error=_fail,
                reactor=reactor,
                find_owner=find_owner,
                on_left=lambda head, peer: self.left(head, peer),
                # Request ids are no secrets, and each of the system's own random numbers would cost a system call.
                request_id=partial(request_id_of, Random(rng.getrandbits(128))),
                tls=None if certificate is None else lambda: certificate.context,
            )
        )

    def open(self, *mounts: HandlerMount) -> None:
        """From now on requests go to the first mount that claims them, else to the app."""
        self._mounts.extend(mounts)
        self._opened.set()

    async def end_management(self, within: float) -> None:
        """Wait for requests of the app to end; those that have not ended ``within`` seconds (watches, followed logs)
        are cancelled."""
        with trio.move_on_after(within):
            while self._managing:  # noqa: ASYNC110  rare, and over in an instant
                await trio.sleep(0.02)
        for scope in self._managing:
            scope.cancel()

    async def _handle(self, exchange: Exchange) -> None:
        if self.cross_origin is not None:
            preflight = self.cross_origin.preflight(exchange.head)
            if preflight is not None:
                await exchange.respond(preflight.status, preflight.fields, preflight.body)
                return
            exchange.extra = [*exchange.extra, *self.cross_origin.fields(exchange.head)]
        await self._handler_of(exchange.head)(exchange)

    def _handler_of(self, head: RequestHead) -> Handler:
        if head.upgrades_to_websocket:
            return _no_websocket
        if head.method in _READING:
            if head.path in ("/healthz", "/health"):
                return _healthy
            if head.path == "/readyz":
                return self._ready
        if not self._opened.is_set():
            return self._wait
        return next((mount.handler for mount in self._mounts if mount.claims(head)), self._manage)

    async def _wait(self, exchange: Exchange) -> None:
        """Answer a request that comes while the daemon loads, once it has."""
        with trio.move_on_after(_LOADED_WITHIN):
            await self._opened.wait()
        if not self._opened.is_set():
            await _refuse(exchange, problem_of(Unavailable("The server is starting", retry_after=5.0)))
            return
        await self._handler_of(exchange.head)(exchange)

    async def _manage(self, exchange: Exchange) -> None:
        with trio.CancelScope() as scope:
            self._managing.add(scope)
            try:
                await self.hand_off(exchange)
            finally:
                self._managing.discard(scope)

    async def _ready(self, exchange: Exchange) -> None:
        answer = readiness(*self.readiness())
        extra = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await exchange.respond(answer.status, [*_JSON, *extra], orjson.dumps(answer.document))


async def _healthy(exchange: Exchange) -> None:
    await exchange.respond(200, _JSON, b'"ok"')


async def _no_websocket(exchange: Exchange) -> None:
    log.debug("A websocket was asked for: path=%s from=%s", exchange.head.path, exchange.peer.host)
    await _refuse(
        exchange, problem_of(BadRequest("There are no websockets here: send the request without Upgrade"))
    )


async def _fail(exchange: Exchange, error: Exception) -> None:
    """Answer with what a handler raised before its answer began, in the form that clients of the path expect."""
    known = next((kind for kind in _TRANSPORT if isinstance(error, kind)), None)
    if known is not None:
        await _refuse(exchange, problem_of_status(_TRANSPORT[known], str(error)))
        return
    log.error("A handler failed: path=%s", exchange.head.path, exc_info=error)
    await _refuse(exchange, INTERNAL)


async def _refuse(exchange: Exchange, problem: Problem) -> None:
    extra = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await exchange.respond(problem.status, [*_JSON, *extra], problem.body(exchange.head.path))
