"""Requests reach an engine and answers come back; what fails is tried elsewhere or told in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
import trio

from gpustack.domain.access import ApiKey, User
from gpustack.domain.usage import Operation
from gpustack.http1.server import ServerLimits
from tests.fakes.running import RunningEngine
from tests.http1.wire import Client, Script, eventually

from .conftest import MakeWorld
from .world import CHAT, World, busy, chat, error_of

StartEngine = Callable[..., RunningEngine]
StartScript = Callable[..., Awaitable[Script]]

ANSWER = b'{"choices": [{"text": "hi"}], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}'


def plain(body: bytes = ANSWER, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [
        b"HTTP/1.1 " + status,
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        *fields,
    ]
    return b"\r\n".join([*lines, b"", b""]) + body


async def closed_port() -> int:
    """A port of this machine where nobody listens."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = int(listener.socket.getsockname()[1])
    await listener.aclose()
    return port


# --- through


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/audio/transcriptions", Operation.AUDIO_TRANSCRIPTION),
        ("/v1-openai/audio/translations", Operation.AUDIO_TRANSCRIPTION),
        ("/v1-openai/images/edits", Operation.IMAGE_GENERATION),
    ],
)
async def test_a_form_with_a_file_reaches_the_engine_as_it_came(
    world: World, fake_engine: StartEngine, path: str, operation: Operation
) -> None:
    """Of two megabytes, so that it is read aside."""
    engine = fake_engine()
    await world.deploy("m", engine.port)
    file = bytes(range(256)) * 8192
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + file + b"\r\n"
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'
    )
    raw = world.request(body, path)
    raw = raw.replace(b"content-type: application/json", b"content-type: multipart/form-data; boundary=x")
    client = await world.connect()
    answer = await client.ask(raw)
    await client.close()
    assert answer.status == 200
    (row,) = await world.usage()
    assert (row.operation, row.request_count, row.failed_count) == (operation, 1, 0)
    seen = engine.seen()["last"]
    assert seen["path"] == path.replace("/v1-openai/", "/v1/")
    assert seen["body"]["form"].encode("latin-1") == body


@pytest.mark.parametrize(
    ("path", "ask", "operation", "tokens"),
    [
        ("/v1/chat/completions", {}, Operation.CHAT_COMPLETION, (3, 3)),
        ("/v1-openai/chat/completions", {}, Operation.CHAT_COMPLETION, (3, 3)),
        ("/v1/completions", {"prompt": "a b"}, Operation.COMPLETION, (2, 3)),
        ("/v1-openai/completions", {"prompt": "a b"}, Operation.COMPLETION, (2, 3)),
        ("/v1/responses", {"input": "a b"}, Operation.CHAT_COMPLETION, (5, 3)),
        ("/v1-openai/responses", {"input": "a b"}, Operation.CHAT_COMPLETION, (5, 3)),
        ("/v1/messages", {"max_tokens": 3}, Operation.CHAT_COMPLETION, (5, 3)),
        ("/v1/messages/count_tokens", {}, Operation.TOKEN_COUNT, (0, 0)),
        ("/v1/embeddings", {"input": ["a b", "c"]}, Operation.EMBEDDING, (3, 0)),
        ("/v1-openai/embeddings", {"input": "a b"}, Operation.EMBEDDING, (2, 0)),
        ("/v1/rerank", {"query": "q", "documents": ["a", "b"]}, Operation.RERANK, (7, 0)),
        ("/v1/images/generations", {"prompt": "a b"}, Operation.IMAGE_GENERATION, (0, 0)),
        ("/v1/audio/speech", {"input": "a b"}, Operation.AUDIO_SPEECH, (0, 0)),
    ],
)
async def test_each_path_reaches_the_engine_and_is_counted(
    world: World,
    fake_engine: StartEngine,
    path: str,
    ask: dict[str, object],
    operation: Operation,
    tokens: tuple[int, int],
) -> None:
    engine = fake_engine("--reply", "I am one.")
    model = await world.deploy("tiny", engine.port)
    answer = await world.ask("tiny", path, **ask)
    assert answer.status == 200
    assert answer.headers[b"x-fake-engine"] == b"fake"
    assert engine.seen()["last"]["path"] == path.replace("-openai", "")
    (row,) = await world.usage()
    assert (row.operation, row.model_id, row.model_name, row.username) == (operation, model.id, "tiny", "ada")
    assert (row.prompt_token_count, row.completion_token_count) == tokens
    assert (row.request_count, row.failed_count) == (1, 0)
    assert row.api_key_id > 0


@pytest.mark.attack("engine")
async def test_an_engine_of_this_machine_is_asked_with_its_own_key_and_not_with_the_clients(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine()
    await world.deploy("m", engine.port)
    fields = ("x-api-key: mine", "api_key: mine")
    with world.keys.of(engine.port, {"api_key": "the-engine's"}):
        assert (await world.send(chat("m"), CHAT, *fields)).status == 200
    got = {name.lower(): value for name, value in engine.seen()["last"]["headers"].items()}
    assert got["authorization"] == "Bearer the-engine's"
    assert not {"x-api-key", "api_key", "cookie"} & got.keys()
    assert (await world.send(chat("m"), CHAT, *fields)).status == 200
    assert "authorization" not in {name.lower() for name in engine.seen()["last"]["headers"]}


async def test_both_sides_keep_their_connections(world: World, scripted: StartScript) -> None:
    async def act(client: Client, number: int) -> None:
        while True:
            await script.request(client)
            await client.send(plain())

    script = Script(act)
    await world.nursery.start(script.run)
    await world.deploy("m", script.port)
    client = await world.connect()
    for _ in range(5):
        answer = await client.ask(world.request(chat("m")))
        assert (answer.status, answer.body) == (200, ANSWER)
    assert (script.connections, script.requests) == (1, 5)
    assert await world.sums() == (5, 0, 15, 25)


async def test_an_engines_refusal_is_passed_on_as_it_is(world: World, scripted: StartScript) -> None:
    said = b'{"error": {"message": "too long", "n_ctx": 4096}}'
    for status in (
        b"400 Bad Request",
        b"401 Unauthorized",
        b"422 Unprocessable",
        b"429 Slow",
        b"500 Oh",
        b"503 Busy",
    ):
        script = await scripted(plain(said, b"retry-after: 7", status=status))
        await world.deploy(f"m{status[:3].decode()}", script.port)
        answer = await world.ask(f"m{status[:3].decode()}", stream=True)
        assert (answer.status, answer.body) == (int(status[:3]), said)
        assert answer.headers[b"retry-after"] == b"7"
        assert answer.headers[b"content-length"] == b"%d" % len(said)
    assert await world.sums() == (6, 6, 0, 0)


async def test_the_query_goes_along(world: World, scripted: StartScript) -> None:
    script = await scripted(plain())
    await world.deploy("m", script.port)
    assert (await world.ask("m", f"{CHAT}?api-version=2&x=%20")).status == 200
    assert script.seen[0].startswith(b"POST /v1/chat/completions?api-version=2&x=%20 HTTP/1.1\r\n")  # type: ignore[attr-defined]


@pytest.mark.attack("smuggling")
async def test_what_is_between_us_and_one_side_is_nothing_to_the_other(
    world: World, scripted: StartScript
) -> None:
    script = await scripted(
        plain(
            ANSWER,
            b"connection: x-of-this-hop",
            b"x-of-this-hop: 1",
            b"keep-alive: timeout=5",
            b"server: engine",
            b"set-cookie: gpustack_session=stolen",
            b"access-control-allow-origin: *",
            b"access-control-allow-credentials: true",
            b"strict-transport-security: max-age=1",
            b"location: http://elsewhere.example/",
            b"refresh: 0; url=http://elsewhere.example/",
            b"x-request-id: 7",
        )
    )
    await world.deploy("m", script.port)
    fields = [
        "connection: x-secret, content-type",
        "x-secret: 1",
        "x-target-port: 22",
        "X-TARGET-PORT: 23",
        "cookie: gpustack_session=mine",
        "proxy-authorization: Basic eA==",
        "accept-encoding: gzip",
        "te: trailers",
        "upgrade: h2c",
        "expect: 100-continue",
        "x-user: ada",
    ]
    client = await world.connect()
    await client.send(world.request(chat("m"), CHAT, *fields))
    answer = await client.answer()
    if answer.status == 100:
        answer = await client.answer()
    head = script.seen[0].partition(b"\r\n\r\n")[0].lower()  # type: ignore[attr-defined]
    names = sorted(line.partition(b":")[0] for line in head.split(b"\r\n")[1:])
    assert names == [b"content-length", b"host", b"x-user"]
    assert answer.headers.keys() == {b"content-type", b"content-length", b"date", b"server"}
    assert answer.headers[b"server"] == b"gpustack"


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_however_a_body_comes_an_engine_gets_it_in_one_framing(
    world: World, scripted: StartScript, framing: str
) -> None:
    script = await scripted(plain())
    await world.deploy("m", script.port)
    body = chat("m", padding="x" * 3000)
    client = await world.connect()
    if framing == "length":
        answer = await client.ask(world.request(body))
    else:
        head = world.request(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        pieces = [b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:2000], body[2000:])]
        answer = await client.ask(head + b"".join(pieces) + b"0\r\nx-trailer: 1\r\n\r\n")
    assert answer.status == 200
    head, _, sent = script.seen[0].partition(b"\r\n\r\n")  # type: ignore[attr-defined]
    assert sent == body
    assert head.lower().count(b"content-length: %d" % len(body)) == 1
    assert b"transfer-encoding" not in head.lower()
    assert b"x-trailer" not in head.lower()


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize(
    "fields",
    [
        "content-length: 5\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding : chunked\r\n",
        " folded: x\r\n",
        "x: a\rcontent-length: 3\r\n",
        "x: a\ncontent-length: 3\r\n",
    ],
)
async def test_what_could_smuggle_a_second_request_reaches_no_engine(
    world: World, scripted: StartScript, fields: str
) -> None:
    script = await scripted(plain())
    await world.deploy("m", script.port)
    request = world.request(chat("m")).replace(b"content-type:", fields.encode() + b"content-type:")
    client = await world.connect()
    assert (await client.ask(request)).status == 400
    assert await client.rest() == b""
    assert script.connections == 0


@pytest.mark.attack("flood")
async def test_a_huge_body_passes_and_a_larger_one_is_refused(world: World, fake_engine: StartEngine) -> None:
    engine = fake_engine("--reply", "seen")
    await world.deploy("m", engine.port)
    answer = await world.ask("m", image="x" * (20 << 20))
    assert answer.status == 200
    assert len(engine.seen()["last"]["body"]["image"]) == 20 << 20
    client = await world.connect()
    head = world.request(b"").replace(b"content-length: 0", b"content-length: %d" % (65 << 20))
    refused = await client.ask(head + b"{")
    assert (refused.status, error_of(refused)["type"]) == (413, "PayloadTooLarge")


async def test_an_engine_may_answer_before_it_has_read_everything(world: World) -> None:
    said = b'{"error": "too much"}'

    async def act(client: Client, number: int) -> None:
        await client.until(b"\r\n\r\n")
        await client.send(plain(said, status=b"413 Too Large"))
        await client.rest()

    script = Script(act)
    await world.nursery.start(script.run)
    await world.deploy("m", script.port)
    answer = await world.ask("m", image="x" * (20 << 20))
    assert (answer.status, answer.body) == (413, said)


# --- refused


async def test_errors_have_the_form_of_openai(world: World, fake_engine: StartEngine) -> None:
    engine = fake_engine()
    await world.deploy("tiny", engine.port)
    await world.deploy("stopped")
    cases: list[tuple[int, str, bytes, dict[str, str]]] = [
        (
            401,
            "Unauthorized",
            chat("tiny"),
            {"key": "gpustack_0000000000000000_00000000000000000000000000000000"},
        ),
        (400, "BadRequest", b"{", {}),
        (400, "BadRequest", b'{"messages": []}', {}),
        (404, "NotFound", chat("nobody"), {}),
        (503, "ServiceUnavailable", chat("stopped"), {}),
        (405, "MethodNotAllowed", b"", {"method": "GET"}),
        (405, "MethodNotAllowed", b"", {"method": "DELETE"}),
        (405, "MethodNotAllowed", b"", {"method": "OPTIONS"}),
    ]
    for path in ("/v1/chat/completions", "/v1-openai/embeddings"):
        for status, kind, body, more in cases:
            answer = await world.send(body, path, **more)
            assert (answer.status, error_of(answer)["type"]) == (status, kind), (path, answer)
            assert answer.headers[b"content-type"] == b"application/json"
    assert engine.seen()["requests"] == 0


async def test_refusals_say_what_helps(world: World) -> None:
    await world.deploy("stopped")
    answer = await world.ask("stopped")
    assert answer.headers[b"retry-after"] == b"2"
    assert "it is stopped (0 replicas)" in error_of(answer)["message"]
    assert (await world.send(b"", method="PUT")).headers[b"allow"] == b"POST"
    refused = await world.send(chat("stopped"), key="nonsense")
    assert refused.headers[b"www-authenticate"].startswith(b"Bearer")
    packed = await world.send(chat("stopped"), CHAT, "content-encoding: gzip")
    assert "content encoding" in error_of(packed)["message"]


@pytest.mark.attack("flood")
async def test_a_body_that_stops_coming_is_a_408(make_world: MakeWorld) -> None:
    world = await make_world(limits=ServerLimits(body_timeout=0.05))
    await world.deploy("m")
    client = await world.connect()
    answer = await client.ask(world.request(chat("m"))[:-3])
    assert (answer.status, error_of(answer)["type"]) == (408, "RequestTimeout")


@pytest.mark.attack("smuggling")
async def test_a_body_that_breaks_its_framing_is_a_400(world: World) -> None:
    client = await world.connect()
    head = world.request(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    answer = await client.ask(head + b"zz\r\n")
    assert (answer.status, error_of(answer)["type"]) == (400, "BadRequest")


async def test_a_closed_gate_lets_nobody_in_and_those_inside_finish(
    world: World, scripted: StartScript
) -> None:
    go = trio.Event()
    script = await scripted(plain(), after=go)
    await world.deploy("m", script.port)
    client = await world.connect()
    await client.send(world.request(chat("m")))
    await eventually(lambda: script.requests == 1)
    world.gate.close()
    late = await world.ask("m")
    assert late.status == 503
    assert int(late.headers[b"retry-after"]) >= 1
    assert error_of(late)["type"] == "ServiceUnavailable"
    assert world.gate.inside == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.gate.emptied)
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        assert (await client.answer()).status == 200
    assert world.gate.inside == 0


# --- tried elsewhere


async def test_a_replica_that_does_not_listen_is_passed_over(world: World, fake_engine: StartEngine) -> None:
    engine = fake_engine("--reply", "here")
    await world.deploy("m", await closed_port(), engine.port, await closed_port())
    for _ in range(6):
        assert (await world.ask("m")).status == 200
    assert engine.seen()["finished"] == 6
    assert (await world.sums())[:2] == (6, 0)


@pytest.mark.parametrize(
    "bad",
    [
        b"",  # closes without a word
        b"HTTP/1.1 200 OK\r\n",  # dies inside its head
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        b"nonsense\r\n\r\n",
        plain(b'{"busy": true}', status=b"503 Busy"),
        plain(b"", status=b"502 Bad"),
    ],
)
async def test_a_replica_that_fails_before_its_first_byte_is_replaced(
    world: World, fake_engine: StartEngine, scripted: StartScript, bad: bytes
) -> None:
    failing = await scripted(bad)
    engine = fake_engine()
    model = await world.deploy("m", failing.port, engine.port)
    first = world.endpoints.route("m")
    assert first is not None
    with busy(world.endpoints, first.endpoints[1]):  # so that the failing one is asked first
        answer = await world.ask("m", stream=True)
    assert answer.status == 200
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert failing.requests == 1
    assert (await world.sums())[:2] == (1, 0)
    # It is doubted for a while: the next goes to the other one, although both are idle.
    assert (await world.ask("m")).status == 200
    assert failing.requests == 1
    assert model.id


async def test_when_every_replica_is_busy_the_last_says_so_itself(
    world: World, scripted: StartScript
) -> None:
    busy = [await scripted(plain(b'{"busy": true}', status=b"503 Busy")) for _ in range(2)]
    await world.deploy("m", *(one.port for one in busy))
    answer = await world.ask("m")
    assert (answer.status, answer.body) == (503, b'{"busy": true}')
    assert [one.requests for one in busy] == [1, 1]
    assert await world.sums() == (1, 1, 0, 0)


async def test_when_nobody_listens_all_were_asked_once(world: World) -> None:
    await world.deploy("m", *[await closed_port() for _ in range(4)])
    answer = await world.ask("m")
    assert answer.status == 503
    assert "4 tried" in error_of(answer)["message"]
    assert b"retry-after" in answer.headers
    assert await world.sums() == (1, 1, 0, 0)


@pytest.mark.attack("engine")
async def test_a_request_that_kills_engines_does_not_go_through_all_of_them(
    world: World, scripted: StartScript
) -> None:
    dying = [await scripted(b"") for _ in range(5)]
    await world.deploy("m", *(one.port for one in dying))
    answer = await world.ask("m")
    assert answer.status == 503
    assert "not tried again" in error_of(answer)["message"]
    assert sum(one.requests for one in dying) == 2


@pytest.mark.attack("engine")
async def test_an_engine_that_takes_too_long_is_a_504_and_nobody_else_is_asked(
    make_world: MakeWorld, fake_engine: StartEngine
) -> None:
    world = await make_world(patience=0.2)
    engines = [fake_engine("--hang"), fake_engine("--hang")]
    await world.deploy("m", *(one.port for one in engines))
    answer = await world.ask("m")
    assert (answer.status, error_of(answer)["type"]) == (504, "GatewayTimeout")
    assert sorted(one.seen()["requests"] for one in engines) == [0, 1]
    assert (await world.sums())[:2] == (1, 1)


@pytest.mark.attack("engine")
async def test_an_answer_that_breaks_off_is_cut_and_not_made_to_look_whole(
    world: World, scripted: StartScript
) -> None:
    script = await scripted(plain(ANSWER)[:-10])
    await world.deploy("m", script.port)
    client = await world.connect()
    await client.send(world.request(chat("m")))
    rest = await client.rest()
    assert b"content-length: %d" % len(ANSWER) in rest
    assert rest.endswith(ANSWER[:-10])
    assert (await world.sums())[:2] == (1, 1)


@pytest.mark.attack("engine")
async def test_a_broken_off_answer_without_a_length_is_cut_too(world: World, scripted: StartScript) -> None:
    script = await scripted(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await world.deploy("m", script.port)
    client = await world.connect()
    await client.send(world.request(chat("m")))
    assert (await client.rest()).endswith(b"5\r\nhello\r\n")


async def test_json_in_answer_to_a_stream_keeps_its_length(world: World, scripted: StartScript) -> None:
    script = await scripted(plain())
    await world.deploy("m", script.port)
    answer = await world.ask("m", stream=True)
    assert answer.headers[b"content-length"] == b"%d" % len(ANSWER)
    assert json.loads(answer.body) == json.loads(ANSWER)
    assert await world.sums() == (1, 0, 3, 5)


# --- let in


@pytest.mark.attack("access")
async def test_a_key_that_was_let_in_a_moment_ago_ends_when_it_is_deleted(
    world: World, fake_engine: StartEngine
) -> None:
    await world.deploy("m", fake_engine().port)
    assert [(await world.ask("m")).status for _ in range(2)] == [200, 200]
    (key,) = world.store.snapshot.api_keys.values()
    await world.store.write(lambda tx: tx.delete(ApiKey, key.id))
    assert (await world.ask("m")).status == 401


@pytest.mark.attack("access")
async def test_who_is_locked_out_is_so_at_once(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine().port)
    assert (await world.ask("m")).status == 200
    (key,) = world.store.snapshot.api_keys.values()
    await world.store.write(lambda tx: tx.change(User, key.user_id, is_active=False))
    assert (await world.ask("m")).status == 401
    await world.store.write(lambda tx: tx.change(User, key.user_id, is_active=True))
    assert (await world.ask("m")).status == 200
