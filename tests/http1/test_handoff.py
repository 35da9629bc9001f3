"""An ASGI app behind hypercorn's inner classes, on connections that our core owns."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from quart import request, websocket
from quart_trio import QuartTrio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

from gpustack.errors import PayloadTooLarge
from gpustack.http1.exchange import Exchange
from gpustack.http1.handoff import READ_BODY, HypercornHandOff
from gpustack.http1.server import ServerLimits
from tests.http1.conftest import Serve
from tests.http1.wire import PATIENCE, Client, Served, eventually, get, post

CORE = b"from the core"


class Site:
    """A quart-trio app and what happened in it."""

    def __init__(self) -> None:
        self.app = QuartTrio("site")
        self.app.config["RESPONSE_TIMEOUT"] = None
        self.app.config["MAX_CONTENT_LENGTH"] = 1 << 20
        self.inside = trio.Event()
        self.ended = trio.Event()
        self.events: list[str] = []
        self._lifespan()
        self._requests()
        self._streams()

    def _lifespan(self) -> None:
        app = self.app

        @app.before_serving
        async def up() -> None:
            self.events.append("up")

        @app.after_serving
        async def down() -> None:
            self.events.append("down")

    def _requests(self) -> None:
        app = self.app

        @app.get("/who")
        async def who() -> dict[str, Any]:
            return {"from": request.remote_addr, "scheme": request.scheme, "query": request.args.get("q")}

        @app.post("/size")
        async def size() -> dict[str, int]:
            return {"size": len(await request.get_data())}

        @app.post("/ignores")
        async def ignores() -> str:
            return "not read"

        @app.get("/fail")
        async def fail() -> str:
            raise ValueError("secret detail")

    def _streams(self) -> None:
        app = self.app

        @app.get("/stream")
        async def stream() -> AsyncIterator[bytes]:
            async def body() -> AsyncIterator[bytes]:
                for i in range(3):
                    yield b"data: %d\n\n" % i

            return body(), 200, {"content-type": "text/event-stream"}  # type: ignore[return-value]  # Quart's own form

        @app.get("/flood")
        async def flood() -> AsyncIterator[bytes]:
            async def body() -> AsyncIterator[bytes]:
                self.inside.set()
                while True:
                    yield b"x" * 65536

            return body(), 200  # type: ignore[return-value]  # Quart's own form

        @app.get("/wait")
        async def wait() -> str:
            self.inside.set()
            try:
                await trio.sleep_forever()
            finally:
                self.ended.set()

        @app.websocket("/ws")
        async def ws() -> None:
            while True:
                await websocket.send("echo " + await websocket.receive())


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def hand_off(nursery: trio.Nursery) -> HypercornHandOff:
    hand_off = HypercornHandOff(patience=0.3, waiting=2, shutdown_timeout=2.0)
    await nursery.start(hand_off.run)
    return hand_off


async def front(serve: Serve, hand_off: HypercornHandOff, **options: Any) -> Served:
    async def core(exchange: Exchange) -> None:
        await exchange.read_body(1 << 20)
        await exchange.respond(200, body=CORE)

    return await serve(
        core, claims=lambda head, peer: head.path.startswith("/v1/"), hand_off=hand_off, **options
    )


async def test_core_and_app_share_a_kept_connection(
    serve: Serve, hand_off: HypercornHandOff, site: Site
) -> None:
    hand_off.ready(site.app)
    served = await front(serve, hand_off)
    client = await served.connect()
    for _ in range(3):
        assert (await client.ask(get("/who?q=%C3%A9"))).body == (
            b'{"from":"127.0.0.1","query":"\\u00e9","scheme":"http"}\n'
        )
        assert (await client.ask(post(b"x", "/v1/chat/completions"))).body == CORE
        assert (await client.ask(post(b"x" * 500_000, "/size"))).body == b'{"size":500000}\n'
        assert (await client.ask(get("/nowhere"))).status == 404
        assert (await client.ask(get("/stream"))).body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert len(served.server.connections) == 1
    await eventually(lambda: "serving, 0 in flight" in repr(hand_off))


async def test_pipelined_requests_for_both_are_answered_in_order(
    serve: Serve, hand_off: HypercornHandOff, site: Site
) -> None:
    hand_off.ready(site.app)
    client = await (await front(serve, hand_off)).connect()
    await client.send(post(b"abc", "/size") + get("/v1/models") + post(b"", "/size") + get("/v1/models"))
    assert [(await client.answer()).body for _ in range(4)] == [b'{"size":3}\n', CORE, b'{"size":0}\n', CORE]


async def test_head_chunked_uploads_and_continue_reach_the_app(
    serve: Serve, hand_off: HypercornHandOff, site: Site
) -> None:
    hand_off.ready(site.app)
    client = await (await front(serve, hand_off)).connect()
    await client.send(b"HEAD /who HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await client.answer(bodyless=True)).status == 200
    await client.send(b"POST /size HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    await client.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (await client.answer()).body == b'{"size":5}\n'
    await client.send(b"POST /size HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    assert (await client.answer()).status == 100
    await client.send(b"body")
    assert (await client.answer()).body == b'{"size":4}\n'


async def test_an_app_that_refuses_or_ignores_a_body_answers_all_the_same(
    serve: Serve, hand_off: HypercornHandOff, site: Site
) -> None:
    hand_off.ready(site.app)
    served = await front(serve, hand_off)
    for path, status in (("/size", 413), ("/ignores", 200)):
        client = await served.connect()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n".encode()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, head + b"x" * 4_000_000)
            assert (await client.answer()).status == status


@pytest.mark.attack("flood")
async def test_a_body_that_never_comes_has_an_end_and_a_stream_has_none(
    serve: Serve, hand_off: HypercornHandOff, site: Site, brisk: ServerLimits
) -> None:
    hand_off.ready(site.app)
    served = await front(serve, hand_off, limits=brisk)
    stuck, waiting = await served.connect(), await served.connect()
    await waiting.send(get("/wait"))
    answer = await stuck.ask(post(b"the whole body", "/size")[:-5])
    assert answer.status == 408
    assert site.inside.is_set()
    assert not site.ended.is_set()


async def test_a_client_that_leaves_cancels_the_app(
    serve: Serve, hand_off: HypercornHandOff, site: Site
) -> None:
    hand_off.ready(site.app)
    client = await (await front(serve, hand_off)).connect()
    await client.send(get("/wait"))
    with trio.fail_after(PATIENCE):
        await site.inside.wait()
        await client.close()
        await site.ended.wait()
        await eventually(lambda: "0 in flight" in repr(hand_off))


async def test_a_failing_app_is_a_500(serve: Serve, hand_off: HypercornHandOff, site: Site) -> None:
    hand_off.ready(site.app)
    client = await (await front(serve, hand_off)).connect()
    for _ in range(2):
        answer = await client.ask(get("/fail"))
        assert answer.status == 500
        assert b"secret" not in answer.body


@pytest.mark.parametrize(("path", "body"), [("/before", b""), ("/inside", b"half")])
async def test_a_failing_raw_app_is_a_500_or_a_cut_answer(
    serve: Serve, hand_off: HypercornHandOff, path: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if path == "/inside":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body, "more_body": True})
        raise ValueError("app failed")

    hand_off.ready(app)
    client = await (await front(serve, hand_off)).connect()
    await client.send(get(path))
    if path == "/before":
        assert (await client.answer()).status == 500
        assert (await client.ask(get("/v1/models"))).body == CORE
    else:
        assert (await client.rest()).endswith(b"4\r\nhalf\r\n")
    assert "app failed" in caplog.text


async def test_an_app_may_speak_without_reading_and_work_on_after_its_answer(
    serve: Serve, hand_off: HypercornHandOff
) -> None:
    worked = trio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        await trio.lowlevel.checkpoint()
        worked.set()

    hand_off.ready(app)
    client = await (await front(serve, hand_off)).connect()
    assert (await client.ask(post(b"x" * 100, "/a"))).body == b"ok"
    assert (await client.ask(get("/v1/models"))).body == CORE
    assert worked.is_set()


# --- websockets ---


async def open_websocket(client: Client, path: str) -> WSConnection:
    connection = WSConnection(ConnectionType.CLIENT)
    await client.send(connection.send(Request(host="x", target=path)))
    return connection


async def next_event(client: Client, connection: WSConnection) -> object:
    while True:
        for event in connection.events():
            if not isinstance(event, Ping):
                return event
        if not client.buffer and not await client.more():
            return None
        connection.receive_data(client.buffer)
        client.buffer = b""


async def test_websockets_are_handed_over(serve: Serve, hand_off: HypercornHandOff, site: Site) -> None:
    hand_off.ready(site.app)
    served = await front(serve, hand_off)
    client = await served.connect()
    assert (await client.ask(get("/v1/models"))).body == CORE
    connection = await open_websocket(client, "/ws")
    assert isinstance(await next_event(client, connection), AcceptConnection)
    for text in ("one", "two" * 10_000):
        await client.send(connection.send(TextMessage(text)))
        said = ""
        while len(said) < len(text) + 5:
            event = await next_event(client, connection)
            assert isinstance(event, TextMessage)
            said += event.data
        assert said == "echo " + text
    await client.send(connection.send(CloseConnection(1000)))
    assert isinstance(await next_event(client, connection), CloseConnection)
    await eventually(lambda: not served.server.connections)


async def test_a_websocket_nobody_wants_is_refused(
    serve: Serve, hand_off: HypercornHandOff, site: Site
) -> None:
    hand_off.ready(site.app)
    client = await (await front(serve, hand_off)).connect()
    await open_websocket(client, "/nowhere")
    assert (await client.answer()).status == 404
    bad = get("/ws", "connection: upgrade", "upgrade: websocket")  # no key, no version
    assert (await client.ask(bad)).status == 400


@pytest.mark.attack("smuggling")
async def test_h2c_is_not_spoken(serve: Serve, hand_off: HypercornHandOff, site: Site) -> None:
    hand_off.ready(site.app)
    client = await (await front(serve, hand_off)).connect()
    upgrade = get(
        "/who", "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"
    )
    assert (await client.ask(upgrade)).status == 200


# --- starting and stopping ---


@pytest.mark.attack("flood")
async def test_requests_wait_for_the_app_in_bounds(
    serve: Serve, hand_off: HypercornHandOff, site: Site
) -> None:
    served = await front(serve, hand_off)
    assert "without an app" in repr(hand_off)
    clients = [await served.connect() for _ in range(3)]
    for client in clients[:2]:
        await client.send(get("/who"))
    await eventually(lambda: "2 waiting" in repr(hand_off))
    answer = await clients[2].ask(get("/who"))
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"5")
    assert (await clients[2].ask(get("/v1/models"))).body == CORE  # inference does not wait for the console
    hand_off.ready(site.app)
    for client in clients[:2]:
        assert (await client.answer()).status == 200
    assert site.events == ["up"]
    with pytest.raises(RuntimeError):
        hand_off.ready(site.app)


async def test_patience_has_an_end(serve: Serve, hand_off: HypercornHandOff) -> None:
    client = await (await front(serve, hand_off)).connect()
    assert (await client.ask(get("/who"))).status == 503


async def test_the_app_is_told_of_its_end(site: Site) -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            hand_off = HypercornHandOff(site.app)
            await nursery.start(hand_off.run)
            await eventually(lambda: "serving" in repr(hand_off))
            nursery.cancel_scope.cancel()
    assert site.events == ["up", "down"]


async def test_an_app_that_cannot_start_ends_the_service() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with trio.fail_after(PATIENCE), pytest.raises(ExceptionGroup) as caught:
        await HypercornHandOff(app).run()
    assert "no database" in repr(caught.value.exceptions)


@pytest.mark.attack("flood")
async def test_all_stops_in_time_though_a_client_does_not_read(
    serve: Serve, site: Site, nursery: trio.Nursery
) -> None:
    """Hypercorn's own server waits for such a client without end."""
    with trio.CancelScope() as scope:
        hand_off = HypercornHandOff(site.app, shutdown_timeout=1.0)
        stopped = trio.Event()

        async def run(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as own:
                async with trio.open_nursery() as inner:
                    await inner.start(hand_off.run)
                    task_status.started(own)
            stopped.set()

        ending: trio.CancelScope = await nursery.start(run)
        served = await front(serve, hand_off)
        client = await served.connect()
        await client.send(get("/flood"))
        with trio.fail_after(PATIENCE):
            await site.inside.wait()
            (connection,) = served.server.connections
            await eventually(lambda: connection.stream.writer.task is not None)
            served.server.stop_accepting()
            with trio.move_on_after(0.1) as grace:
                await served.server.drained()
            assert grace.cancelled_caught
            served.scope.cancel()
            await eventually(lambda: not served.server.connections)
            ending.cancel()
            await stopped.wait()
        assert site.events == ["up", "down"]
    assert not scope.cancelled_caught


@pytest.mark.attack("flood")
async def test_a_client_that_stops_reading_is_cut_without_a_trace_of_failure(
    serve: Serve,
    hand_off: HypercornHandOff,
    site: Site,
    brisk: ServerLimits,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hand_off.ready(site.app)
    served = await front(serve, hand_off, limits=brisk)
    client = await served.connect()
    await client.send(get("/flood"))
    with trio.fail_after(PATIENCE):
        await site.inside.wait()
        await eventually(lambda: not served.server.connections)
    assert "Error" not in caplog.text


# --- the pin ---


def test_hypercorn_is_the_one_this_was_written_for() -> None:
    """The hand-off uses hypercorn's inner classes: read them again before moving the pin."""
    assert importlib.metadata.version("hypercorn").startswith("0.18.")
    stream = [
        "self",
        "app",
        "config",
        "context",
        "task_group",
        "ssl",
        "client",
        "server",
        "send",
        "stream_id",
    ]
    for kind in (HTTPStream, WSStream):
        assert list(inspect.signature(kind.__init__).parameters) == stream
        assert {"handle", "app_send"} <= set(dir(kind))
    assert list(inspect.signature(Lifespan.__init__).parameters) == ["self", "app", "config", "state"]
    assert {"handle_lifespan", "wait_for_startup", "wait_for_shutdown"} <= set(dir(Lifespan))
    assert list(inspect.signature(TaskGroup.spawn_app).parameters) == [
        "self",
        "app",
        "config",
        "scope",
        "send",
    ]


# --- bodies that the app asks for


@pytest.fixture
async def on_demand(nursery: trio.Nursery, site: Site) -> HypercornHandOff:
    @site.app.post("/read")
    async def read() -> dict[str, int]:
        taken: list[int] = []
        site.inside.set()
        try:
            body = await request.scope["state"][READ_BODY](1 << 20, taken.append)
        finally:
            site.ended.set()
        return {"size": len(body), "taken": sum(taken)}

    @site.app.errorhandler(PayloadTooLarge)
    async def too_large(error: PayloadTooLarge) -> tuple[str, int]:
        return str(error), 413

    hand_off = HypercornHandOff(site.app, bodies_on_demand=True)
    await nursery.start(hand_off.run)
    return hand_off


async def test_a_body_is_read_when_the_app_asks_for_it(serve: Serve, on_demand: HypercornHandOff) -> None:
    served = await front(serve, on_demand)
    client = await served.connect()
    assert (await client.ask(post(b"abc", "/read"))).body == b'{"size":3,"taken":0}\n'
    large = await client.ask(post(b"x" * (1 << 19), "/read"))
    assert large.body == b'{"size":524288,"taken":524288}\n'
    assert (await client.ask(post(b"abc", "/ignores"))).body == b"not read"
    assert (await client.ask(get("/v1/x"))).body == CORE
    answer = await client.ask(post(b"x" * (1 << 21), "/read"))
    assert (answer.status, b"at most 1048576 bytes" in answer.body) == (413, True)


async def test_nothing_of_a_body_is_read_before(serve: Serve, on_demand: HypercornHandOff) -> None:
    """An app that answers without it does so at once, whatever is still to come."""
    served = await front(serve, on_demand)
    client = await served.connect()
    await client.send(post(b"x" * 1000, "/ignores")[:-1])
    assert (await client.answer()).body == b"not read"


async def test_a_client_that_leaves_inside_its_body_ends_the_app(
    serve: Serve, on_demand: HypercornHandOff, site: Site
) -> None:
    served = await front(serve, on_demand)
    client = await served.connect()
    await client.send(post(b"x" * 1000, "/read")[:-1])
    with trio.fail_after(PATIENCE):
        await site.inside.wait()
        await client.close()
        await site.ended.wait()
    await eventually(lambda: on_demand.in_flight == 0)


async def test_a_malformed_body_is_answered_by_the_transport(
    serve: Serve, on_demand: HypercornHandOff
) -> None:
    served = await front(serve, on_demand)
    client = await served.connect()
    await client.send(b"POST /read HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n")
    assert (await client.answer()).status == 400
