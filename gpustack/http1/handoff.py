"""Passes requests to an ASGI app through hypercorn, on the connection on which they came.

Hypercorn's inner classes speak ASGI to the app (``HTTPStream``, ``WSStream``, ``Lifespan``); the socket, the
parsing and the framing stay here. So a connection may mix requests for the app and for our own handlers, a client that
stops reading is cut after the write timeout (hypercorn's own server would wait without end, under a shield), and
draining, limits and TLS are those of ``HttpServer``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Any, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.events import (
    Body,
    Data,
    EndBody,
    Event,
    Request,
    Response,
    StreamClosed,
)
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ConnectionState,
    Scope,
)

from gpustack.errors import GpustackError
from gpustack.http1.exchange import BodyError, BodyTimeout, ClientDisconnect, Exchange
from gpustack.http1.fields import OWNED, fault_body

log = logging.getLogger(__name__)

OWNER: Final = "owner"
"""The key in a scope's ``state`` of ``Exchange.owner``: which local user's program sent the request."""
READ_BODY: Final = "gpustack.read_body"
"""The key in a scope's ``state`` of the function that reads the request's body, with ``bodies_on_demand``."""
ReadBody = Callable[[int, Callable[[int], None] | None], Awaitable[bytes]]
"""Reads the body as ``Exchange.read_body`` does, with its limit in bytes."""

_STREAM: Final = 1  # HTTP/1.1 has one request at a time
_SWITCHED: Final = 101
_NOTICE: Final = 0.1
_WEBSOCKET_PING: Final = 30.0


class HypercornHandOff:
    """A service and a handler: give it to ``HttpServer`` as ``hand_off``.

    ``run`` carries the app's lifespan. Requests that come before ``ready(app)`` wait, up to ``patience`` seconds
    and ``waiting`` of them; the others are answered 503. A client that leaves cancels the app's task.

    ASGI messages bring a body before the app has decided whether to accept it, and frameworks keep what they bring.
    With ``bodies_on_demand`` they bring none: nothing is read until the app calls ``READ_BODY``.
    """

    def __init__(
        self,
        app: ASGIFramework | None = None,
        *,
        name: str = "hand-off",
        patience: float = 30.0,
        waiting: int = 256,
        shutdown_timeout: float = 10.0,
        bodies_on_demand: bool = False,
    ) -> None:
        self.name = name
        self.in_flight = 0
        self._waiting = 0
        self._patience = patience
        self._most_waiting = waiting
        self._given = trio.Event()
        self._serving = trio.Event()
        self._context = WorkerContext(None)
        self._state: dict[str, Any] = {}
        self._bodies_on_demand = bodies_on_demand
        self._config = Config()
        self._config.accesslog = None
        self._config.errorlog = log
        self._config.websocket_ping_interval = _WEBSOCKET_PING
        self._config.shutdown_timeout = inf  # our own deadline applies
        self._shutdown_timeout = shutdown_timeout
        self._ended = False
        self._app: ASGIWrapper | None = None
        if app is not None:
            self.ready(app)

    def __repr__(self) -> str:
        state = (
            "serving" if self._serving.is_set() else "starting" if self._given.is_set() else "without an app"
        )
        return f"<HypercornHandOff {self.name} {state}, {self.in_flight} in flight, {self._waiting} waiting>"

    def ready(self, app: ASGIFramework) -> None:
        """Sets the app, which serves when ``run`` has started it up."""
        if self._app is not None:
            raise RuntimeError("the hand-off has its app already")
        self._app = ASGIWrapper(app)
        self._given.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Starts the app up when it is there, shuts it down when cancelled. Raises what its start-up raises."""
        task_status.started()
        await self._given.wait()
        assert self._app is not None
        lifespan = Lifespan(self._app, self._config, self._state)
        # its own scope, shielded: the app must outlive our cancellation to be sent its shutdown event
        alive = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(_live, lifespan, alive)
            try:
                await lifespan.wait_for_startup()
                self._serving.set()
                await trio.sleep_forever()
            finally:
                self._ended = True
                deadline = trio.current_time() + self._shutdown_timeout
                with trio.CancelScope(shield=True, deadline=deadline):
                    await _shut_down(lifespan)
                alive.cancel()

    async def __call__(self, exchange: Exchange) -> None:
        """Has the app answer the exchange. Raises what reading the request's body raises."""
        if not self._serving.is_set() and not await self._started():
            await exchange.respond(
                503,
                [(b"content-type", b"application/json"), (b"retry-after", b"5")],
                fault_body(503, "The server is starting; try again in a moment."),
            )
            return
        assert self._app is not None
        self.in_flight += 1
        try:
            conversation = AsgiExchange(exchange, self._app, self._config, self._context, self._state)
            if self._bodies_on_demand:
                conversation.read_on_demand()
            await conversation.run()
        finally:
            self.in_flight -= 1

    async def _started(self) -> bool:
        if self._ended or self._waiting >= self._most_waiting:
            return False
        self._waiting += 1
        try:
            with trio.move_on_after(self._patience):
                await self._serving.wait()
        finally:
            self._waiting -= 1
        return self._serving.is_set()


async def _live(
    lifespan: Lifespan,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with scope:
        await lifespan.handle_lifespan(task_status=task_status)


async def _shut_down(lifespan: Lifespan) -> None:
    # closed: the app has ended its lifespan before it was told to
    with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
        await lifespan.wait_for_shutdown()


class AsgiExchange:
    """One request of an ASGI app: connects our exchange and hypercorn's stream."""

    def __init__(
        self,
        exchange: Exchange,
        app: ASGIWrapper,
        config: Config,
        context: WorkerContext,
        state: dict[str, Any],
    ) -> None:
        self._exchange = exchange
        self._app = app
        self._config = config
        self._context = context
        self._state = state
        self._on_demand = False
        self._closed = False
        self._fault: Exception | None = None
        self._scope = trio.CancelScope()
        self._feeding = trio.CancelScope()
        self._responded = trio.Event()
        self._answered = trio.Event()
        self._app_ended = trio.Event()

    def read_on_demand(self) -> None:
        """Let the app read the body with ``READ_BODY``; no message brings it."""
        self._on_demand = True
        self._state = {**self._state, READ_BODY: self._read_body}

    async def run(self) -> None:
        """Returns when the app is done. Raises ClientDisconnect, BodyError, BodyTimeout."""
        with self._scope:
            async with TaskGroup() as group:
                await self._converse(group)
                self._closed = True
                self._scope.cancel()  # ends hypercorn's own tasks, such as pings
        if self._fault is not None:
            raise self._fault

    async def _converse(self, group: TaskGroup) -> None:
        exchange, head = self._exchange, self._exchange.head
        kind = WSStream if head.upgrades_to_websocket else HTTPStream
        stream = kind(
            self._run_app,
            self._config,
            self._context,
            group,
            exchange.tls,
            (exchange.peer.host, exchange.peer.port),
            (exchange.local.host, exchange.local.port),
            self._send,
            _STREAM,
        )
        await stream.handle(
            Request(
                stream_id=_STREAM,
                headers=head.headers,
                http_version=head.version,
                method=head.method,
                raw_path=head.target,
                state=ConnectionState({**self._state, OWNER: exchange.owner}),
            )
        )
        if stream.closed:  # refused by hypercorn: the app has not been called
            return
        feed = self._feed_frames if isinstance(stream, WSStream) else self._feed_body
        try:
            with self._feeding:
                await feed(stream)
        except (ClientDisconnect, GpustackError) as error:
            self._fault = error
            return
        await self._answered.wait()
        self._closed = True
        # An app that has left its receive queue full does not look for this.
        with trio.move_on_after(_NOTICE):
            await stream.handle(StreamClosed(stream_id=_STREAM))
        await self._app_ended.wait()

    async def _feed_body(self, stream: HTTPStream | WSStream) -> None:
        if not self._on_demand:
            async for piece in self._exchange.body_chunks():
                await stream.handle(Body(stream_id=_STREAM, data=piece))
        await stream.handle(EndBody(stream_id=_STREAM))

    async def _read_body(self, limit: int, taken: Callable[[int], None] | None) -> bytes:
        try:
            return await self._exchange.read_body(limit, taken)
        except (BodyError, BodyTimeout, ClientDisconnect) as error:
            # The app must not answer this: the transport knows the state of the connection.
            self._closed, self._fault = True, error
            self._scope.cancel()
            await trio.sleep_forever()
            raise AssertionError("cancelled") from error

    async def _feed_frames(self, stream: HTTPStream | WSStream) -> None:
        await self._responded.wait()
        if self._exchange.status != _SWITCHED:
            return  # refused: the next bytes are another request
        while data := await self._exchange.receive_raw():
            await stream.handle(Data(stream_id=_STREAM, data=data))
        raise ClientDisconnect

    async def _run_app(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        try:
            await self._app(scope, receive, send, sync_spawn, call_soon)
        finally:
            self._app_ended.set()

    async def _send(self, event: Event) -> None:
        """An event that hypercorn's stream sends to the client."""
        if isinstance(event, StreamClosed):
            self._answered.set()
            self._feeding.cancel()
            return
        if self._closed or self._exchange.abandoned or trio.current_effective_deadline() == -inf:
            await trio.lowlevel.checkpoint()  # the checkpoint cancels an app that never stops sending
            return
        try:
            await self._pass_on(event)
        except ClientDisconnect as error:
            self._closed, self._fault = True, error
            self._scope.cancel()

    async def _pass_on(self, event: Event) -> None:
        exchange = self._exchange
        match event:
            case Response(status_code=status, headers=headers) if status == _SWITCHED:
                await exchange.switch_protocols(headers)
                self._responded.set()
            case Response(status_code=status, headers=headers):
                length = next(
                    (int(value) for name, value in headers if name.lower() == b"content-length"), None
                )
                await exchange.start_response(
                    status,
                    [field for field in headers if field[0].lower() not in OWNED],
                    content_length=length,
                    flush=length is None,
                )
                self._responded.set()
            case Body(data=data):
                await exchange.send(data)
            case EndBody():
                await exchange.finish()
            case Data(data=data):
                await exchange.send_raw(data)
