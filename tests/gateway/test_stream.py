"""Streams: byte for byte, usage hidden unless asked for, errors as events, and nobody works for a client that left."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.fakes.running import RunningEngine
from tests.http1.wire import Client, Script, eventually

from .world import CHAT, World, chat, events

StartEngine = Callable[..., RunningEngine]
StartScript = Callable[..., Awaitable[Script]]

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
WORD = b'data: {"choices": [{"delta": {"content": "hi"}}]}'


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


async def open_stream(world: World, model: str, **more: object) -> Client:
    """A client whose stream has begun, its head read."""
    client = await world.connect()
    await client.send(world.request(chat(model, stream=True, **more)))
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return client


async def test_usage_is_hidden_from_who_did_not_ask_and_counted(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--reply", "one two three four")
    await world.deploy("m", engine.port)
    hidden = [
        await world.ask("m", stream=True),
        await world.ask("m", stream=True, stream_options=None),
        await world.ask("m", stream=True, stream_options={"include_usage": False}),
    ]
    for answer in hidden:
        said = events(answer.body)
        assert said[-1] == "[DONE]"
        assert all(event["choices"] for event in said[:-1])
        assert b"usage" not in answer.body
    assert engine.seen()["last"]["body"]["stream_options"] == {"include_usage": True}
    shown = events((await world.ask("m", stream=True, stream_options={"include_usage": True})).body)
    assert shown[-2]["usage"]["completion_tokens"] == 4
    assert shown[-2]["choices"] == []
    assert await world.sums() == (4, 0, 12, 16)


async def test_a_stream_is_what_the_engine_sent_byte_for_byte(world: World, scripted: StartScript) -> None:
    stream = b": hello\r\n\r\nevent: x\ndata: {\ndata: }\nid: 7\n\n%b\r\n\r\ndata:[DONE]\n\nrest" % WORD
    script = await scripted(HEAD + chunked(stream[:5], stream[5:30], stream[30:]) + b"0\r\n\r\n")
    await world.deploy("m", script.port)
    answer = await world.ask("m", stream=True)
    assert answer.body == stream
    assert answer.headers[b"content-type"] == b"text/event-stream; charset=utf-8"


async def test_events_go_on_as_they_come(world: World) -> None:
    go = trio.Event()

    async def act(client: Client, number: int) -> None:
        await script.request(client)
        await client.send(HEAD + chunked(WORD + b"\n\n" + WORD[:10]))
        await go.wait()
        await client.send(chunked(WORD[10:] + b"\n\n") + b"0\r\n\r\n")

    script = Script(act)
    await world.nursery.start(script.run)
    await world.deploy("m", script.port)
    client = await open_stream(world, "m")
    assert WORD in await client.until(b"\n\n")
    go.set()
    assert WORD in await client.until(b"\n\n")
    assert (await client.until(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("hide", [True, False])
@pytest.mark.parametrize("half", [b"", WORD[:20], b"data: " + b"x" * (3 << 20)])
async def test_an_engine_that_dies_in_a_stream_ends_it_with_a_typed_error(
    world: World, scripted: StartScript, hide: bool, half: bytes
) -> None:
    script = await scripted(HEAD + chunked(WORD + b"\n\n" + half))
    await world.deploy("m", script.port)
    answer = await world.ask("m", stream=True, stream_options={"include_usage": not hide})
    first, *_, last, empty = answer.body.split(b"\n\n")
    assert (first, empty) == (WORD, b"")
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == (503, "ServiceUnavailable")
    assert (await world.sums())[:2] == (1, 1)


async def test_the_reset_of_a_real_engine_ends_its_stream_with_a_typed_error(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--reply", "a b c d e f", "--fail-after-tokens", "3")
    await world.deploy("m", engine.port)
    said = events((await world.ask("m", stream=True)).body)
    assert [event["choices"][0]["delta"]["content"] for event in said[:3]] == ["a", " b", " c"]
    assert said[3]["error"]["type"] == "ServiceUnavailable"
    assert len(said) == 4
    assert await world.sums() == (1, 1, 0, 3)


async def test_a_client_that_leaves_ends_the_work_of_its_engine(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--reply", "word", "--repeat", "100000", "--slow-token", "0.01")
    await world.deploy("m", engine.port)
    client = await open_stream(world, "m")
    await client.until(b"word")
    await client.close()
    seen = await trio.to_thread.run_sync(lambda: engine.seen(aborted=1))
    assert (seen["finished"], seen["active"]) == (0, 0)
    await eventually(lambda: world.gate.inside == 0)
    assert world.endpoints.in_flight == 0
    requests, failed, prompt, completion = await world.sums()
    assert (requests, failed, prompt) == (1, 0, 0)
    assert 1 <= completion <= seen["tokens"], "what went by until then"


async def test_a_client_that_closes_its_sending_half_has_left(world: World, fake_engine: StartEngine) -> None:
    engine = fake_engine("--reply", "word", "--repeat", "100000", "--slow-token", "0.01")
    await world.deploy("m", engine.port)
    client = await open_stream(world, "m")
    assert isinstance(client.stream, trio.SocketStream)
    await client.stream.send_eof()
    seen = await trio.to_thread.run_sync(lambda: engine.seen(aborted=1))
    assert seen["finished"] == 0


async def test_a_client_that_leaves_before_the_first_byte_is_counted_too(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--hang")
    await world.deploy("m", engine.port)
    client = await world.connect()
    await client.send(world.request(chat("m")))
    await trio.to_thread.run_sync(lambda: engine.seen(requests=1))
    assert world.endpoints.in_flight == 1
    await client.close()
    await trio.to_thread.run_sync(lambda: engine.seen(aborted=1))
    await eventually(lambda: world.endpoints.in_flight == 0)
    assert await world.sums() == (1, 0, 0, 0)


@pytest.mark.attack("flood")
async def test_a_client_that_stops_reading_holds_up_its_engine_and_not_our_memory(world: World) -> None:
    sent = 0
    stalled = trio.Event()

    async def act(client: Client, number: int) -> None:
        nonlocal sent
        await script.request(client)
        await client.send(HEAD)
        piece = chunked((WORD + b"\n\n") * 1000)
        stuck = trio.CancelScope()
        while not stuck.cancelled_caught:
            with trio.move_on_after(0.5) as stuck:
                await client.send(piece)
                sent += len(piece)
        stalled.set()
        await client.rest()

    script = Script(act)
    await world.nursery.start(script.run)
    await world.deploy("m", script.port)
    client = await open_stream(world, "m")
    with trio.fail_after(30):
        await stalled.wait()
    assert 0 < sent < 64 << 20
    await client.close()
    await eventually(lambda: world.gate.inside == 0)


async def test_an_old_client_gets_its_stream_until_the_connection_ends(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--reply", "one two")
    await world.deploy("m", engine.port)
    client = await world.connect()
    await client.send(world.request(chat("m", stream=True), CHAT).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    rest = await client.rest()
    assert b"transfer-encoding" not in rest
    assert rest.endswith(b"data: [DONE]\n\n")
