"""No client can hold the server up: every wait has an end, and a client that leaves ends its exchange."""

from __future__ import annotations

import contextlib
import socket

import attrs
import pytest
import trio

from gpustack.http1.exchange import BodyTimeout, ClientDisconnect, Exchange
from gpustack.http1.server import ServerLimits
from tests.http1.conftest import Serve
from tests.http1.wire import PATIENCE, RESET, Client, echo, eventually, get, post


@pytest.mark.attack("flood")
async def test_half_a_head_is_answered_408(serve: Serve, brisk: ServerLimits) -> None:
    served = await serve(echo, limits=brisk)
    client = await served.connect()
    await client.send(b"POST / HTTP/1.1\r\nhost:")
    answer = await client.answer()
    assert (answer.status, answer.headers[b"connection"]) == (408, b"close")
    assert await client.rest() == b""


@pytest.mark.attack("flood")
async def test_a_head_that_drips_in_gets_no_more_time_than_one_that_stops(
    serve: Serve, brisk: ServerLimits
) -> None:
    served = await serve(echo, limits=brisk)
    client = await served.connect()

    async def drip() -> None:
        for _ in range(1000):
            await client.send(b"x")
            await trio.sleep(0.01)

    await client.send(b"POST / HTTP/1.1\r\nx: ")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        assert (await client.answer()).status == 408
        nursery.cancel_scope.cancel()


@pytest.mark.attack("flood")
async def test_a_body_that_drips_in_has_an_end_too(serve: Serve) -> None:
    """Each byte comes in time, and the whole would take days."""

    async def read(exchange: Exchange) -> None:
        await exchange.read_body(1 << 20)

    served = await serve(read, limits=ServerLimits(body_timeout=5.0, whole_body_timeout=0.2))
    client = await served.connect()
    await client.send(post(b"x" * 100_000)[:-99_999])

    async def drip() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await client.send(b"x")
                await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        assert (await client.answer()).status == 408
        nursery.cancel_scope.cancel()


@pytest.mark.attack("flood")
async def test_half_a_body_is_answered_408(serve: Serve, brisk: ServerLimits) -> None:
    faults: list[type[Exception]] = []

    async def read(exchange: Exchange) -> None:
        try:
            await exchange.read_body(1000)
        except BodyTimeout as error:
            faults.append(type(error))
            raise

    served = await serve(read, limits=brisk)
    client = await served.connect()
    await client.send(post(b"the whole body")[:-5])
    assert (await client.answer()).status == 408
    assert faults == [BodyTimeout]


@pytest.mark.attack("flood")
async def test_a_silent_or_idle_connection_is_closed_without_a_word(
    serve: Serve, brisk: ServerLimits
) -> None:
    served = await serve(echo, limits=brisk)
    silent, idle = await served.connect(), await served.connect()
    assert (await idle.ask(get())).status == 200
    assert await silent.rest() == b""
    assert await idle.rest() == b""


async def test_a_long_exchange_is_not_cut_by_any_of_these(serve: Serve, brisk: ServerLimits) -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.start_response(200)
        for _ in range(2):
            await trio.sleep(brisk.write_timeout + 0.2)
            await exchange.send(b"token ")
        await exchange.finish()

    served = await serve(slow, limits=brisk)
    client = await served.connect()
    assert (await client.ask(get())).body == b"token token "


@pytest.mark.attack("flood")
async def test_a_client_that_stops_reading_is_waited_for_and_then_cut(
    serve: Serve, brisk: ServerLimits
) -> None:
    sent, cut = 0, trio.Event()

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.start_response(200)
        try:
            while True:
                await exchange.send(b"x" * 65536)
                sent += 65536
        except ClientDisconnect:
            cut.set()
            raise

    served = await serve(flood, limits=brisk)
    client = await served.connect()
    await client.send(get())
    with trio.fail_after(PATIENCE):
        await cut.wait()
    assert sent < 16 << 20  # what the socket buffers hold, and no more


@pytest.mark.attack("flood")
async def test_a_write_under_a_shield_is_cut_as_well(serve: Serve, brisk: ServerLimits) -> None:
    """Frameworks shield their sends: the wait itself must end."""
    cut = trio.Event()

    async def flood(exchange: Exchange) -> None:
        await exchange.start_response(200)
        with trio.CancelScope(shield=True):
            try:
                while True:
                    await exchange.send(b"x" * 65536)
            finally:
                cut.set()

    served = await serve(flood, limits=brisk)
    client = await served.connect()
    await client.send(get())
    with trio.fail_after(PATIENCE):
        await cut.wait()


async def test_a_client_that_closed_its_half_gets_the_answers_that_are_ready(serve: Serve) -> None:
    """As from a script that pipes requests in; it may have asked several things before."""

    async def answer(exchange: Exchange) -> None:
        await trio.sleep(0.01)
        await exchange.respond(200, body=exchange.head.path.encode())

    served = await serve(answer)
    client = await served.connect()
    await client.send(get("/one") + get("/two"))
    await client.stream.send_eof()
    assert [(await client.answer()).body for _ in range(2)] == [b"/one", b"/two"]
    assert await client.rest() == b""
    await eventually(lambda: not served.server.connections)


@pytest.mark.parametrize("path", ["/waiting", "/streaming"])
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_client_that_leaves_cancels_its_handler(serve: Serve, path: str, how: str) -> None:
    inside, cancelled = trio.Event(), trio.Event()

    async def wait(exchange: Exchange) -> None:
        try:
            if exchange.head.path == "/streaming":
                await exchange.start_response(200)
                await exchange.send(b"first")
            inside.set()
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    served = await serve(wait)
    client = await served.connect()
    await client.send(get(path))
    with trio.fail_after(PATIENCE):
        await inside.wait()
        if how == "half-close":
            await client.stream.send_eof()
        else:
            if how == "reset":
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await client.close()
        await cancelled.wait()
        await eventually(lambda: not served.server.connections)
    assert served.server.in_flight == 0


async def test_a_client_that_leaves_inside_its_body_ends_the_reading(serve: Serve) -> None:
    inside, ended = trio.Event(), trio.Event()

    async def read(exchange: Exchange) -> None:
        inside.set()
        try:
            async for _ in exchange.body_chunks():
                pass
        finally:
            ended.set()

    served = await serve(read)
    client = await served.connect()
    await client.send(post(b"the whole body")[:-5])
    with trio.fail_after(PATIENCE):
        await inside.wait()
        await client.close()
        await ended.wait()


@pytest.mark.attack("flood")
async def test_lingering_has_an_end(serve: Serve, brisk: ServerLimits) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.respond(403)

    served = await serve(refuse, limits=attrs.evolve(brisk, linger_timeout=0.2))
    client = await served.connect()
    await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
    assert (await client.answer()).status == 403
    with trio.fail_after(PATIENCE):
        while served.server.connections:
            await client.send(b"x")
            await trio.sleep(0.01)


@pytest.mark.attack("flood")
async def test_one_address_cannot_take_every_connection(serve: Serve) -> None:
    served = await serve(echo, limits=ServerLimits(connections_per_address=2))
    first, second = await served.connect(), await served.connect()
    assert (await first.ask(get())).status == 200
    assert (await second.ask(get())).status == 200
    third = await served.connect()
    assert (await third.answer()).status == 429
    await first.close()
    await second.close()
    await eventually(lambda: not served.server.connections)
    fourth = await served.connect()
    assert (await fourth.ask(get())).status == 200


@pytest.mark.attack("flood")
async def test_when_connections_run_out_idle_ones_give_way_and_busy_ones_do_not(serve: Serve) -> None:
    leave = trio.Event()

    async def wait(exchange: Exchange) -> None:
        if exchange.head.path == "/wait":
            await leave.wait()
        await exchange.respond(200)

    served = await serve(wait, limits=ServerLimits(connections=1))
    idle = await served.connect()
    assert (await idle.ask(get())).status == 200
    busy = await served.connect()
    assert await idle.rest() in (b"", RESET)
    await busy.send(get("/wait"))
    await eventually(lambda: served.server.in_flight)
    turned_away = await served.connect()
    answer = await turned_away.answer()
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"5")
    leave.set()
    assert (await busy.answer()).status == 200


@pytest.mark.attack("flood")
async def test_the_one_that_has_been_idle_for_longest_gives_way(serve: Serve) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.respond(200)

    served = await serve(answer, limits=ServerLimits(connections=3))
    clients = [await served.connect() for _ in range(3)]
    for client in (clients[1], clients[2], clients[0]):
        assert (await client.ask(get())).status == 200
    newcomer = await served.connect()
    assert (await newcomer.ask(get())).status == 200
    assert await clients[1].rest() in (b"", RESET)
    for client in (clients[0], clients[2]):
        assert (await client.ask(get())).status == 200


# --- stopping ---


async def test_draining_finishes_what_is_under_way_and_closes_the_rest(serve: Serve) -> None:
    inside, leave = trio.Event(), trio.Event()

    async def wait(exchange: Exchange) -> None:
        if exchange.head.path == "/wait":
            inside.set()
            await leave.wait()
        await exchange.respond(200, body=b"finished")

    served = await serve(wait)
    idle, busy = await served.connect(), await served.connect()
    assert (await idle.ask(get())).status == 200
    await busy.send(get("/wait"))
    with trio.fail_after(PATIENCE):
        await inside.wait()
        served.server.stop_accepting()
        assert await idle.rest() == b""
        assert "draining" in repr(served.server)
        leave.set()
        answer = await busy.answer()
        assert (answer.body, answer.headers[b"connection"]) == (b"finished", b"close")
        await served.server.drained()
    with pytest.raises(OSError):
        await served.connect()


async def test_listeners_can_be_kept_for_a_successor(serve: Serve) -> None:
    served = await serve(echo)
    served.server.stop_accepting(keep_listening=True)
    with trio.fail_after(PATIENCE):
        await served.server.drained()
    waiting = await served.connect()  # in the queue of the listener
    assert isinstance(waiting, Client)
    for listener in served.server._listeners:
        assert listener.fileno() >= 0
        listener.close()


async def test_who_has_just_come_in_is_heard_before_a_successor_takes_over(serve: Serve) -> None:
    served = await serve(echo)
    regular, newcomer, silent = [await served.connect() for _ in range(3)]
    assert (await regular.ask(get())).status == 200
    with trio.fail_after(PATIENCE):
        while len(served.server.connections) < 3:  # noqa: ASYNC110
            await trio.sleep(0.01)
        served.server.stop_accepting(keep_listening=True)
        assert await regular.rest() == b""
        answer = await newcomer.ask(get())
        assert (answer.status, answer.headers[b"connection"]) == (200, b"close")
        with trio.move_on_after(0.05) as patience:
            await served.server.newcomers_heard()
        assert patience.cancelled_caught, "one has said nothing yet"
        served.server.close_idle()
        assert await silent.rest() == b""
        await served.server.newcomers_heard()
        await served.server.drained()
    for listener in served.server._listeners:
        listener.close()


@pytest.mark.attack("flood")
async def test_a_cancelled_server_is_gone_though_a_client_does_not_read(serve: Serve) -> None:
    inside = trio.Event()

    async def flood(exchange: Exchange) -> None:
        await exchange.start_response(200)
        inside.set()
        while True:
            await exchange.send(b"x" * 65536)

    served = await serve(flood)
    client = await served.connect()
    await client.send(get())
    with trio.fail_after(PATIENCE):
        await inside.wait()
        (connection,) = served.server.connections
        await eventually(lambda: connection.stream.writer.task is not None)
        served.scope.cancel()
        await eventually(lambda: not served.server.connections)
