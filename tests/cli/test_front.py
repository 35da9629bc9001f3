"""The front answers from the first moment, in the same words as what is behind it."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import httpx
import pytest
import trio

from gpustack.api.cors import cross_origin
from gpustack.cli.daemon.front import FrontServer, HandlerMount
from gpustack.cli.daemon.listener import Listeners
from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.reactor import new_reactor
from gpustack.logs import LineFormatter

PAGE = "https://app.example.com"


@asynccontextmanager
async def fronted() -> AsyncIterator[tuple[FrontServer, httpx.AsyncClient]]:
    listeners = Listeners({"front": open_listeners("127.0.0.1", 0)})
    reactor = new_reactor(tick=0.05)
    front = FrontServer(listeners, reactor, Random(7))
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: reactor.run(task_status=task_status))
        await nursery.start(lambda task_status: front.server.run(task_status=task_status))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listeners.port('front')}") as client:
            yield front, client
        nursery.cancel_scope.cancel()


async def test_a_daemon_that_loads_lives_and_is_not_ready() -> None:
    async with fronted() as (front, client):
        assert (await client.get("/healthz")).json() == "ok"
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json() == {"status": "not ready", "checks": {"server": "loading"}}
        front.readiness = lambda: (True, {"store": "serving"})
        assert ((await client.get("/readyz")).status_code, (await client.get("/readyz")).json()) == (
            200,
            "ok",
        )


async def test_benchmark_tools_ask_for_health_by_another_name() -> None:
    async with fronted() as (_, client):
        assert ((await client.get("/health")).status_code, (await client.head("/health")).status_code) == (
            200,
            200,
        )


async def test_every_answer_has_a_request_id_and_so_has_the_log() -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.head.path == "/broken":
            raise ZeroDivisionError
        await exchange.respond(200)

    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    handler.setFormatter(LineFormatter())
    front_log = logging.getLogger("gpustack.cli.daemon.front")
    front_log.addHandler(handler)
    async with AsyncExitStack() as stack:
        stack.callback(front_log.removeHandler, handler)
        front, client = await stack.enter_async_context(fronted())
        front.open(HandlerMount(lambda head: True, answer))
        seen = [(await client.get(path)).headers["x-request-id"] for path in ("/healthz", "/readyz", "/v1/x")]
        assert len(set(seen)) == 3 and all(len(one) == 16 for one in seen)
        for given, kept in (("mine-1", True), ("x" * 129, False), ("two words", False)):
            back = (await client.get("/v1/x", headers={"x-request-id": given})).headers.get_list(
                "x-request-id"
            )
            assert (back == [given]) is kept and len(back) == 1
        broken = await client.get("/broken", headers={"x-request-id": "find-me"})
        assert (broken.status_code, broken.headers["x-request-id"]) == (500, "find-me")
        assert "request=find-me" in logged.getvalue()
        raw = await trio.open_tcp_stream("127.0.0.1", client.base_url.port or 0)
        await raw.send_all(b"nonsense\r\n\r\n")
        assert b"x-request-id: " in await raw.receive_some()
        await raw.aclose()


async def test_pages_of_other_sites_are_answered_before_anything_is_loaded() -> None:
    async with fronted() as (front, client):
        assert (
            "access-control-allow-origin"
            not in (await client.get("/healthz", headers={"Origin": PAGE})).headers
        )
        front.cross_origin = cross_origin(origins=[PAGE], methods=["GET"], headers=[], credentials=False)
        answer = await client.get("/readyz", headers={"Origin": PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, PAGE)
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
        preflight = await client.options("/v1/chat/completions", headers=asked)
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-methods"] == "GET"


async def test_what_comes_while_the_daemon_loads_waits_and_is_answered() -> None:
    async with fronted() as (front, client), trio.open_nursery() as nursery:
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await client.post("/v1/chat/completions", json={}))

        async def infer(exchange: Exchange) -> None:
            await exchange.read_body(100)
            await exchange.respond(200, [], b"inferred")

        nursery.start_soon(ask)
        with trio.fail_after(30):
            while not front.server.in_flight:  # noqa: ASYNC110  the request is on its way over a socket
                await trio.sleep(0.01)
            assert not answers
            front.open(HandlerMount(lambda head: head.path.startswith("/v1/chat"), infer))
            while not answers:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert (answers[0].status_code, answers[0].content) == (200, b"inferred")


async def test_a_handler_that_breaks_is_told_in_the_form_of_its_path(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(exchange: Exchange) -> None:
        raise ZeroDivisionError("secret detail")

    async with fronted() as (front, client):
        front.open(HandlerMount(lambda head: True, broken))
        inference = await client.get("/v1/chat/completions")
        management = await client.get("/v1/models")
    assert inference.status_code == management.status_code == 500
    assert inference.json()["error"]["code"] == 500 and management.json()["code"] == 500
    assert b"secret detail" not in inference.content + management.content
    assert "A handler failed" in caplog.text


@pytest.mark.attack("flood")
@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/chat/completions", "/v1/realtime", "/nowhere"])
async def test_a_websocket_is_refused_in_a_sentence_and_not_in_the_log(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with fronted() as (_, client):
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
            "Sec-WebSocket-Version": "13",
        }
        answer = await client.get(path, headers=headers)
        assert (answer.status_code, "no websockets" in answer.text) == (400, True)
        assert not [one for one in caplog.records if one.name.startswith("gpustack")]
        assert (await client.get("/healthz")).status_code == 200
