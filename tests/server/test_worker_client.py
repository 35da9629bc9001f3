"""The server asks a worker on its own port, and says in a sentence what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import orjson
import pytest
import trio

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.document import decode, encode
from gpustack.domain.worker import Worker
from gpustack.errors import BadRequest, GpustackError, Invalid, NotFound, Unavailable
from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor
from gpustack.http1.server import HttpServer
from gpustack.server.worker_client import WorkerClient
from tests.policy.shapes import facts_of

PATH = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")
Serve = Callable[[Callable[[Exchange], Awaitable[None]]], Awaitable[Worker]]


@pytest.fixture
def link(pool: ConnectionPool) -> WorkerClient:
    return WorkerClient(pool, lambda uuid: f"key-of-{uuid}")


@pytest.fixture
def serve(reactor: Reactor, nursery: trio.Nursery) -> Serve:
    """A worker's port with this behind it."""

    async def start(handler: Callable[[Exchange], Awaitable[None]]) -> Worker:
        (listener,) = open_listeners("127.0.0.1", 0)
        await nursery.start(HttpServer("w", [listener], handler=handler, reactor=reactor).run)
        return Worker(name="node", worker_uuid="u1", ip="127.0.0.1", port=listener.getsockname()[1])

    return start


def answering(status: int, body: bytes) -> Callable[[Exchange], Awaitable[None]]:
    async def answer(exchange: Exchange) -> None:
        await exchange.read_body(1 << 20)
        await exchange.respond(status, [(b"content-type", b"application/json")], body)

    return answer


async def read_log(link: WorkerClient, worker: Worker) -> bytes:
    async with link.logs(worker, 7, tail=5, follow=False, previous=True) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_a_log_comes_as_it_is(link: WorkerClient, serve: Serve) -> None:
    asked: list[tuple[str, str, bytes | None]] = []

    async def answer(exchange: Exchange) -> None:
        asked.append((exchange.head.path, str(exchange.head.query), exchange.head.get(b"authorization")))
        await exchange.respond(200, (), b"one \xff\ntwo\n")

    worker = await serve(answer)
    assert await read_log(link, worker) == b"one \xff\ntwo\n"
    ((path, query, key),) = asked
    assert (path, key) == ("/serveLogs/7", b"Bearer key-of-u1")
    assert "tail=5&follow=false&previous=true" in query


async def test_a_followed_log_is_let_go_when_the_client_leaves(link: WorkerClient, serve: Serve) -> None:
    left = trio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.start_response(200)
        try:
            await exchange.send(b"first\n")
            await trio.sleep_forever()
        finally:
            left.set()

    worker = await serve(answer)
    with trio.fail_after(20):
        async with link.logs(worker, 7, tail=-1, follow=True, previous=False) as pieces:
            assert await anext(pieces) == b"first\n"
        await left.wait()


async def test_facts_are_read_there(link: WorkerClient, serve: Serve) -> None:
    facts = facts_of("qwen3-0.6b")
    asked: list[ModelSource] = []

    async def answer(exchange: Exchange) -> None:
        assert (exchange.head.method, exchange.head.path) == ("POST", "/modelFacts")
        asked.append(decode(await exchange.read_body(1 << 20), ModelSource))
        await exchange.respond(200, (), encode(facts))

    assert await link.facts(await serve(answer), PATH) == facts
    assert asked == [PATH]


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (404, b'{"message": "Log file not found"}', NotFound, "Log file not found"),
        (400, b'{"message": "no GGUF"}', BadRequest, "no GGUF"),
        (422, b'{"message": "no GGUF"}', BadRequest, "no GGUF"),
        (401, b'{"message": "wrong key"}', Unavailable, "Worker node answered: wrong key"),
        (500, b"<html>", Unavailable, "Worker node answered: status 500"),
        (503, b"[]", Unavailable, "Worker node answered: status 503"),
        (503, b"7", Unavailable, "Worker node answered: status 503"),
    ],
)
async def test_a_refusal_is_told_in_the_words_of_the_worker(
    link: WorkerClient, serve: Serve, status: int, body: bytes, kind: type[GpustackError], told: str
) -> None:
    worker = await serve(answering(status, body))
    for ask in (lambda: read_log(link, worker), lambda: link.facts(worker, PATH)):
        with pytest.raises(kind) as caught:
            await ask()
        assert str(caught.value) == told


async def test_a_worker_that_does_not_answer_is_named(
    link: WorkerClient, serve: Serve, free_port: int
) -> None:
    async def hang_up(exchange: Exchange) -> None:
        await exchange.start_response(200, content_length=10)

    silent = await serve(hang_up)
    for worker in (attrs.evolve(silent, port=free_port), silent):
        with pytest.raises(Unavailable, match="Worker node does not answer: "):
            await read_log(link, worker)
    with pytest.raises(Unavailable, match="has not told its address"):
        await link.facts(attrs.evolve(silent, ip=""), PATH)


async def test_an_answer_that_is_none_is_refused(link: WorkerClient, serve: Serve) -> None:
    with pytest.raises(Invalid):
        await link.facts(await serve(answering(200, orjson.dumps([1]))), PATH)
    with pytest.raises(GpustackError, match="larger than"):
        await link.facts(await serve(answering(200, b" " * (2 << 20))), PATH)


async def test_an_engine_tells_of_its_model(link: WorkerClient, serve: Serve) -> None:
    """Asked by the worker's forwarding, which knows the engine's key."""
    asked: list[tuple[str, bytes | None]] = []

    async def answer(exchange: Exchange) -> None:
        asked.append((exchange.head.path, exchange.head.get(b"x-target-port")))
        await exchange.respond(200, [], b'{"data": [{"id": "m", "voices": ["de"]}]}')

    worker = await serve(answer)
    assert await link.engine_model(worker, 40001) == {"id": "m", "voices": ["de"]}
    assert asked == [("/proxy/v1/models", b"40001")]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": []}', b'{"data": ["m"]}', b'{"data": 7}'])
async def test_an_engine_that_lists_no_model_is_told(link: WorkerClient, serve: Serve, body: bytes) -> None:
    worker = await serve(answering(200, body))
    with pytest.raises(Unavailable, match="lists no model"):
        await link.engine_model(worker, 40001)
