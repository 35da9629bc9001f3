"""The worker's calls to the server, over either client: what is sent, what is read, and what a refusal becomes."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import trio

from gpustack import errors
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.assignment import AssignmentEvent, AssignmentLine
from gpustack.domain.document import decode, encode
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.report import FileReport, InstanceReport, JoinRequest, StatusReport
from gpustack.domain.worker import Cpu, WorkerStatus
from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.server import HttpServer
from gpustack.remote.failover_client import FailoverClient
from gpustack.remote.http import RemoteConnectionError, RemoteError, RemoteTimeout
from gpustack.remote.pooled_client import PooledClient
from gpustack.remote.server_client import ServerClient
from gpustack.remote.server_error import fault_of

PATIENCE = 30.0


class Server:
    """Answers as told and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes | None, bytes]] = []
        self.answer: tuple[int, bytes] = (200, b"null")
        self.pieces: list[bytes] | None = None
        self.hang = False
        self.port = 0

    async def __call__(self, exchange: Exchange) -> None:
        head = exchange.head
        body = await exchange.read_body(1 << 20)
        self.asked.append((head.method, head.path, head.get(b"authorization"), body))
        if self.pieces is None:
            await exchange.respond(self.answer[0], (), self.answer[1])
            return
        await exchange.start_response(200)
        for piece in self.pieces:
            await exchange.send(piece)
            await trio.sleep(0.01)  # so that pieces do not run together
        if self.hang:
            await trio.sleep_forever()
        await exchange.finish()


@pytest.fixture
async def server(nursery: trio.Nursery) -> Server:
    server = Server()
    listeners = open_listeners("127.0.0.1", 0)
    server.port = listeners[0].getsockname()[1]
    await nursery.start(HttpServer("server", listeners, handler=server).run)
    return server


@pytest.fixture(params=["one server", "several"])
async def client(request: pytest.FixtureRequest, server: Server, nursery: trio.Nursery) -> ServerClient:
    url = f"http://127.0.0.1:{server.port}"
    pool = ConnectionPool()
    await nursery.start(pool.run)
    if request.param == "one server":
        return ServerClient(PooledClient.to(url, pool), "mine")
    return ServerClient(FailoverClient(url, lambda to: PooledClient.to(to, pool), random.Random(1)), "mine")


async def test_joining_shows_the_token_and_later_calls_the_credential(
    server: Server, client: ServerClient
) -> None:
    answer = {"id": 7, "name": "w", "credential": "its-own", "forward_key": "k", "state": "ready"}
    server.answer = 200, orjson.dumps(answer)
    request = JoinRequest(name="w", worker_uuid="u", labels={"os": "linux"})
    joined = await client.join(request, token="of the cluster")
    assert (joined.id, joined.heartbeat_interval) == (7, 15.0)
    assert "its-own" not in repr(joined) and "its-own" not in repr(client)
    server.answer = 200, b'{"interval": 3.5, "revision": 9}'
    assert (await client.heartbeat(7)).interval == 3.5
    (method, path, shown, body), beat = server.asked
    assert (method, path, shown) == ("POST", "/v1/workers", b"Bearer of the cluster")
    assert decode(body, JoinRequest) == request
    assert beat == ("POST", "/v1/workers/7/heartbeat", b"Bearer its-own", b"{}")


async def test_reports_arrive_as_they_were_said(server: Server, client: ServerClient) -> None:
    report = InstanceReport(
        state=InstanceState.ERROR, next_retry_at=datetime(2026, 1, 2, 3, 4, 5, 678, UTC), ports=(1, 2)
    )
    await client.report_instance(3, report)
    said = FileReport(resolved_paths=("/a", "/b"), gone=True)
    await client.report_file(4, said)
    status = WorkerStatus(cpu=Cpu(total=4))
    await client.put_status(7, status, ip="192.0.2.1")
    assert [(method, path) for method, path, _, _ in server.asked] == [
        ("PUT", "/v1/model-instances/3/report"),
        ("PUT", "/v1/model-files/4/report"),
        ("PUT", "/v1/workers/7/status"),
    ]
    bodies = [body for _, _, _, body in server.asked]
    assert decode(bodies[0], InstanceReport) == report
    assert decode(bodies[1], FileReport) == said
    assert decode(bodies[2], StatusReport) == StatusReport(status=status, ip="192.0.2.1")


async def test_the_record_of_a_source_is_asked_for(server: Server, client: ServerClient) -> None:
    server.answer = 200, b'{"id": 5}'
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")
    assert (await client.ensure_file(7, source, "/dir")).id == 5
    asked = orjson.loads(server.asked[0][3])
    assert (asked["source"]["local_path"], asked["local_dir"]) == ("/m.gguf", "/dir")


REFUSALS: list[tuple[int, dict[str, Any], type[errors.GpustackError]]] = [
    (400, {"reason": "BadRequest", "message": "why"}, errors.BadRequest),
    (401, {"reason": "Unauthorized", "message": "why"}, errors.Unauthorized),
    (403, {"reason": "Forbidden", "message": "why"}, errors.Forbidden),
    (404, {"reason": "NotFound", "message": "why"}, errors.NotFound),
    (409, {"reason": "Conflict", "message": "why"}, errors.Conflict),
    (409, {"reason": "AlreadyExists", "message": "why"}, errors.AlreadyExists),
    (410, {"error": {"type": "Gone", "message": "why"}}, errors.RevisionExpired),
    (422, {"reason": "Invalid", "message": "why"}, errors.Invalid),
    (429, {"error": {"message": "why"}}, errors.TooManyRequests),
    (500, {"message": "why"}, errors.Unavailable),
    (503, {"message": "why"}, errors.Unavailable),
    (302, {"message": "why"}, errors.Unavailable),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS)
async def test_a_refusal_is_the_error_it_was_there(
    server: Server, client: ServerClient, status: int, body: Any, kind: type[errors.GpustackError]
) -> None:
    server.answer = status, orjson.dumps(body)
    with pytest.raises(kind, match="why") as caught:
        await client.heartbeat(1)
    assert type(caught.value) is kind
    with pytest.raises(kind, match="why"):
        async with aclosing(client.assignments(1, quiet_for=20.0)) as lines:
            await anext(lines)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"message": 7}', b'{"error": "no"}', b"[" * 5000])
def test_a_refusal_without_a_sentence_gets_one(body: bytes) -> None:
    assert str(fault_of(502, body)) == "The server answered with status 502"


def test_a_refusal_knows_when_to_ask_again() -> None:
    for header, seconds in (("40", 40.0), (None, None), ("soon", None), ("-1", None)):
        for status in (429, 503):
            error = fault_of(status, b"{}", header)
            assert isinstance(error, errors.TooManyRequests | errors.Unavailable)
            assert error.retry_after == seconds


def test_the_faults_of_a_document_are_one_sentence() -> None:
    told = "2 validation errors:\nname: is missing\nreplicas: must be a whole number"
    said = fault_of(422, orjson.dumps({"message": told}))
    assert str(said) == "name: is missing; replicas: must be a whole number"


def test_a_refusal_is_not_a_book() -> None:
    assert len(str(fault_of(400, orjson.dumps({"message": "x" * 100_000})))) <= 1000


async def test_an_answer_that_is_none_of_ours_is_invalid(server: Server, client: ServerClient) -> None:
    server.answer = 200, b"<html>"
    with pytest.raises(errors.Invalid):
        await client.heartbeat(1)


async def test_a_server_that_is_not_there_is_unreachable(nursery: trio.Nursery, free_port: int) -> None:
    pool = ConnectionPool()
    await nursery.start(pool.run)
    client = ServerClient(PooledClient.to(f"http://127.0.0.1:{free_port}", pool))
    with pytest.raises(RemoteConnectionError):
        await client.heartbeat(1)
    with pytest.raises(RemoteError):
        async with aclosing(client.assignments(1, quiet_for=1.0)) as lines:
            await anext(lines)


# --- the stream of assignments


def line(word: AssignmentEvent, **fields: Any) -> bytes:
    return encode(AssignmentLine(word=word, **fields)) + b"\n"


async def words_of(client: ServerClient, quiet_for: float = 20.0) -> list[AssignmentEvent]:
    with trio.fail_after(PATIENCE):
        async with aclosing(client.assignments(7, quiet_for=quiet_for)) as lines:
            return [one.word async for one in lines]


WHOLE = (
    line(AssignmentEvent.PUT, kind="models", id=1)
    + line(AssignmentEvent.SYNCED)
    + b"\n"
    + line(AssignmentEvent.STILL)
)


@pytest.mark.parametrize(
    "cut",
    [
        lambda text: [text],
        lambda text: [text[:7], text[7:]],
        lambda text: [text[at : at + 40] for at in range(0, len(text), 40)],
    ],
)
async def test_lines_come_whole_however_they_were_cut(
    server: Server, client: ServerClient, cut: Callable[[bytes], list[bytes]]
) -> None:
    server.pieces = cut(WHOLE)
    assert await words_of(client) == [AssignmentEvent.PUT, AssignmentEvent.SYNCED, AssignmentEvent.STILL]
    assert server.asked[0][:3] == ("GET", "/v1/workers/7/assignments", b"Bearer mine")


@pytest.mark.attack("flood")
async def test_a_stream_that_falls_silent_is_given_up(server: Server, client: ServerClient) -> None:
    server.pieces, server.hang = [line(AssignmentEvent.SYNCED)], True
    with pytest.raises(RemoteTimeout):
        await words_of(client, quiet_for=0.2)


@pytest.mark.attack("flood")
async def test_a_line_without_end_is_refused(server: Server, client: ServerClient) -> None:
    server.pieces = [b"x" * (1 << 20)] * 5
    with pytest.raises(errors.Unavailable, match="too long"):
        await words_of(client)


async def test_a_line_that_makes_no_sense_is_invalid(server: Server, client: ServerClient) -> None:
    server.pieces = [b'{"word": "perhaps"}\n']
    with pytest.raises(errors.Invalid):
        await words_of(client)


async def test_leaving_a_stream_early_leaves_nothing_behind(server: Server, client: ServerClient) -> None:
    server.pieces, server.hang = [WHOLE], True
    with trio.fail_after(PATIENCE):
        async with aclosing(client.assignments(7, quiet_for=20.0)) as lines:
            assert (await anext(lines)).word is AssignmentEvent.PUT
