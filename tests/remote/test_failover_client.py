"""What one server does not answer another is asked; and nobody is believed who could be a trap."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor, new_reactor
from gpustack.http1.server import HttpServer
from gpustack.remote import failover_client
from gpustack.remote.failover_client import FailoverClient, believable
from gpustack.remote.http import RemoteError, RemoteTimeout
from gpustack.remote.pooled_client import PooledClient

HOME = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5:8080",
        "http://gpustack-2.example:80/",
        "https://10.0.0.5",
        "http://[2001:db9::5]:80",
        "https://[::ffff:10.0.0.5]:8443",
    ],
)
def test_a_server_may_be_anywhere(url: str) -> None:
    assert believable(url, "http://10.0.0.4") == url.removesuffix("/")


@pytest.mark.attack("worker")
@pytest.mark.parametrize(
    ("url", "home"),
    [
        ("http://10.0.0.5", "https://10.0.0.4"),
        ("ftp://10.0.0.5", "http://10.0.0.4"),
        ("file:///etc/passwd", "http://10.0.0.4"),
        ("10.0.0.5:80", "http://10.0.0.4"),
        ("http://", "http://10.0.0.4"),
        ("http://user@10.0.0.5", "http://10.0.0.4"),
        ("http://user:pw@10.0.0.5", "http://10.0.0.4"),
        ("http://10.0.0.5/path", "http://10.0.0.4"),
        ("http://10.0.0.5?a=b", "http://10.0.0.4"),
        ("http://10.0.0.5/?", "http://10.0.0.4"),
        ("http://10.0.0.5#x", "http://10.0.0.4"),
        ("http://10.0.0.5:0", "http://10.0.0.4"),
        ("http://10.0.0.5:99999", "http://10.0.0.4"),
        ("http://10.0.0.5\r\nx: y", "http://10.0.0.4"),
        ("http://10.0.0.5 .example", "http://10.0.0.4"),
        ("http://[::1", "http://10.0.0.4"),
        ("http://127.0.0.1:10150", "http://10.0.0.4"),
        ("http://[::1]:80", "http://10.0.0.4"),
        ("http://[::ffff:127.0.0.1]:80", "http://10.0.0.4"),
        ("http://localhost:80", "http://gpustack.example"),
        ("http://x.localhost", "http://gpustack.example"),
        ("http://LOCALHOST.:80", "http://gpustack.example"),
        ("http://2130706433", "http://10.0.0.4"),
        ("http://0x7f.1", "http://10.0.0.4"),
        ("http://127.1:10150", "http://10.0.0.4"),
        ("http://0177.0.0.1", "http://10.0.0.4"),
        ("http://[::7f00:1]", "http://10.0.0.4"),
        ("http://[2002:7f00:1::]", "http://10.0.0.4"),
        ("http://[64:ff9b::7f00:1]", "http://10.0.0.4"),
        ("http://0", "http://10.0.0.4"),
        ("http://0xa9fea9fe", "http://10.0.0.4"),
        ("http://169.254.1", "http://10.0.0.4"),
        ("http://255.255.255.255", "http://10.0.0.4"),
        ("http://metadata.google.internal", "http://10.0.0.4"),
        ("http://169.254.169.254", "http://10.0.0.4"),
        ("http://0.0.0.0:80", "http://10.0.0.4"),
        ("http://224.0.0.1", "http://10.0.0.4"),
        ("http://ümlaut.example", "http://10.0.0.4"),
        (f"http://{'a' * 300}", "http://10.0.0.4"),
    ],
)
def test_not_everything_is_believed(url: str, home: str) -> None:
    assert believable(url, home) is None


def test_what_lies_on_this_machine_is_believed_by_who_came_that_way() -> None:
    assert believable("http://127.0.0.1:81", HOME) == "http://127.0.0.1:81"


@attrs.define(eq=False)
class Server:
    """Answers with its name; can be hung, unavailable, or gone. Streams say their server's name for ever."""

    name: str
    port: int = 0
    asked: int = 0
    status: int = 200
    hung: bool = False
    streams_after: float = 0.0
    gone: bool = False
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __call__(self, exchange: Exchange) -> None:
        self.asked += 1
        if self.hung:
            await trio.sleep_forever()
        if exchange.head.path == "/stream" and self.status == 200:
            await trio.sleep(self.streams_after)
            await exchange.start_response(200, [])
            await exchange.send(f"{self.name}\n".encode())
            await trio.sleep_forever()
        await exchange.respond(self.status, [], self.name.encode())

    async def kill(self) -> None:
        self.scope.cancel()
        while not self.gone:  # noqa: ASYNC110
            await trio.sleep(0.01)

    async def run(self, reactor: Reactor, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = open_listeners("127.0.0.1", self.port, option="--port", host_option="--host")
        self.port, self.gone, self.scope = listeners[0].getsockname()[1], False, trio.CancelScope()
        with self.scope:
            server = HttpServer(self.name, listeners, handler=self, reactor=reactor)
            await server.run(task_status=task_status)
        for one in listeners:
            one.close()
        self.gone = True


@attrs.define
class World:
    servers: list[Server]
    client: FailoverClient
    start: Callable[[Server], object]

    async def ask(self, deadline: float = 20.0) -> str:
        reply = await self.client.request("GET", "/", deadline=deadline)
        return reply.body.decode()


@asynccontextmanager
async def running(count: int = 3, seed: int = 1) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        reactor = new_reactor(tick=0.05)
        await nursery.start(reactor.run)
        pool = ConnectionPool(reactor=reactor)
        await nursery.start(pool.run)
        servers = [Server(f"s{number}") for number in range(count)]

        async def start(server: Server) -> None:
            await nursery.start(lambda task_status: server.run(reactor, task_status=task_status))

        for server in servers:
            await start(server)
        client = FailoverClient(servers[0].url, lambda url: PooledClient.to(url, pool), random.Random(seed))
        client.learn(server.url for server in servers)
        with trio.fail_after(60):
            yield World(servers, client, start)
        nursery.cancel_scope.cancel()


async def test_the_one_that_was_named_is_asked_while_it_answers() -> None:
    async with running() as world:
        assert [await world.ask() for _ in range(5)] == ["s0"] * 5
        assert [server.asked for server in world.servers] == [5, 0, 0]
        assert "2 more" in repr(world.client)


async def test_when_it_is_gone_another_answers_and_when_it_is_back_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as world:
        home = world.servers[0]
        await world.ask()
        await home.kill()
        other = await world.ask()
        assert other in ("s1", "s2")
        assert [await world.ask() for _ in range(3)] == [other] * 3
        await world.start(home)
        assert await world.ask() == other, "not at once"
        monkeypatch.setattr(failover_client, "_SHUN_FOR", 0.0)
        assert await world.ask() == "s0"
        monkeypatch.setattr(failover_client, "_SHUN_FOR", 60.0)
        for server in world.servers:
            await server.kill()
        with pytest.raises(RemoteError, match=f":{home.port}/ cannot be reached"):
            await world.ask()


async def test_one_that_hangs_or_cannot_serve_costs_its_share_of_the_time_once() -> None:
    async with running(2) as world:
        world.servers[0].hung = True
        assert await world.ask(1.0) == "s1"
        assert await world.ask(1.0) == "s1"
        assert world.servers[0].asked == 1
        world.servers[1].status = 503
        world.servers[0].hung, world.servers[0].status = False, 503
        reply = await world.client.request("GET", "/")
        assert (reply.status, reply.body) == (503, b"s1"), "all refuse: the first refusal is told"
        world.servers[0].hung = world.servers[1].hung = True
        with pytest.raises(RemoteTimeout):
            await world.ask(0.3)


@pytest.mark.parametrize("what", ["request", "stream"])
async def test_one_that_is_forgotten_while_another_is_asked_is_still_asked(what: str) -> None:
    async with running(2) as world:
        home = world.servers[0]
        home.hung = True
        heard: list[str] = []

        async def ask() -> None:
            if what == "request":
                heard.append(await world.ask(1.0))
                return
            async with world.client.stream("GET", "/stream", timeout=0.5) as arriving:
                heard.append((await anext(arriving.pieces())).decode().strip())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not home.asked:  # noqa: ASYNC110
                await trio.sleep(0.01)
            assert world.client.learn([])
        assert heard == ["s1"]
        home.hung = False
        assert await world.ask() == "s0"


async def test_what_is_forgotten_while_it_is_asked_leaves_nothing_behind() -> None:
    async with running(2) as world:
        home, other = world.servers
        await home.kill()
        other.hung = True
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(RemoteError):
                    await world.ask(0.5)

            nursery.start_soon(ask)
            while not other.asked:  # noqa: ASYNC110
                await trio.sleep(0.01)
            assert world.client.learn([])
        await world.start(home)
        assert await world.ask() == "s0"


async def test_a_stream_comes_from_who_answers_and_is_left_when_another_does() -> None:
    async with running(2) as world:
        client = world.client
        await world.servers[0].kill()
        async with client.stream("GET", "/stream") as arriving:
            assert await anext(arriving.pieces()) == b"s1\n"
        await world.start(world.servers[0])
        client._failed.clear()
        async with client.stream("GET", "/stream") as arriving:
            assert await anext(arriving.pieces()) == b"s0\n"
            await world.ask()
            with trio.move_on_after(0.2) as patience:
                await client.turned()
            assert patience.cancelled_caught, "it is the one that answers"
            world.servers[0].hung = True
            assert await world.ask(1.0) == "s1"
            await client.turned()
        for server in world.servers:
            await server.kill()
        with pytest.raises(RemoteError):
            async with client.stream("GET", "/stream"):
                pass


async def test_a_stream_is_not_taken_from_who_cannot_serve() -> None:
    async with running(2) as world:
        home, other = world.servers
        home.status = 503
        for _ in range(2):
            async with world.client.stream("GET", "/stream") as arriving:
                assert await anext(arriving.pieces()) == b"s1\n"
        assert home.asked == 1, "it is asked after the others from now on"
        other.status = 503
        with pytest.raises(RemoteError, match=f":{other.port}/stream cannot serve now"):
            async with world.client.stream("GET", "/stream"):
                pass
        world.client.learn([])
        async with world.client.stream("GET", "/stream") as arriving:
            assert arriving.status == 503, "there is no other"


async def test_a_stream_is_left_although_another_answered_before_it_began() -> None:
    async with running(2) as world:
        home, client = world.servers[0], world.client
        await world.ask()
        home.streams_after = 0.5
        async with trio.open_nursery() as nursery:
            left = trio.Event()

            async def leave() -> None:
                await client.turned()
                left.set()

            async def fail() -> None:
                while home.asked < 2:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                home.status = 503
                assert await world.ask() == "s1"

            nursery.start_soon(leave)
            nursery.start_soon(fail)
            async with client.stream("GET", "/stream") as arriving:
                assert await anext(arriving.pieces()) == b"s0\n"
                with trio.fail_after(5):
                    await left.wait()
        home.status = 200
        async with client.stream("GET", "/stream") as arriving:
            assert await anext(arriving.pieces()) == b"s1\n"
            with trio.move_on_after(0.2) as patience:
                await client.turned()
            assert patience.cancelled_caught


async def test_a_stream_that_begins_is_an_answer_and_not_left_for_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(2) as world:
        home, client = world.servers[0], world.client
        home.status = 503
        assert await world.ask() == "s1"
        home.status = 200
        monkeypatch.setattr(failover_client, "_SHUN_FOR", 0.0)
        async with client.stream("GET", "/stream") as arriving:
            assert await anext(arriving.pieces()) == b"s0\n"
            with trio.move_on_after(0.2) as patience:
                await client.turned()
            assert patience.cancelled_caught


def test_what_is_known_follows_what_is_told() -> None:
    opened: list[str] = []

    def open_(url: str) -> PooledClient:
        opened.append(url)
        return PooledClient.to(url, ConnectionPool(reactor=None))  # type: ignore[arg-type]  # it is not asked

    client = FailoverClient(HOME, open_, random.Random(7))
    a, b, c = (f"http://127.0.0.1:{port}" for port in (2, 3, 4))
    assert client.learn([HOME, a, b]) and set(client.others) == {a, b}
    order = client.others
    assert not client.learn([b, a, HOME, "ftp://x"]) and client.others == order
    assert client.learn([a, c]) and set(client.others) == {a, c}
    assert opened.count(a) == 1, "kept connections are not given up"
    assert client.learn([]) and client.others == ()
    assert client.learn(f"http://127.0.0.1:{port}" for port in range(100, 200))
    assert len(client.others) == failover_client.MOST


def test_clients_of_a_dead_server_spread_over_the_rest() -> None:
    firsts = set()
    for seed in range(20):
        client = FailoverClient(HOME, lambda url: PooledClient.to(url, None), random.Random(seed))  # type: ignore[arg-type]  # it is not asked
        client.learn(f"http://127.0.0.1:{port}" for port in (2, 3, 4))
        firsts.add(client.others[0])
    assert len(firsts) == 3
