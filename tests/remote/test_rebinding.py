"""A name that means another address when it is connected to than when it was looked up leads nowhere inside."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trio
from huggingface_hub.utils import get_session

from gpustack.artifacts.hub_client import bound_answers
from gpustack.remote.http import BadResponse, open_client
from gpustack.remote.redirect import refuse_inner

pytestmark = pytest.mark.attack("ssrf")

HUB = "http://hub.test"
ELSEWHERE = "rebound.test"
PUBLIC, INSIDE = "93.184.216.34", "127.0.0.1"


class Victim(ThreadingHTTPServer):
    """Something inside, which must not be asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Victim)
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "6")
        self.end_headers()
        self.wfile.write(b"secret")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def victim() -> Iterator[Victim]:
    with ExitStack() as stack:
        server = stack.enter_context(Victim())
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        yield server


class Resolver:
    """Says first what pleases, then what is meant: nothing (a lookup that fails), or a public address."""

    def __init__(self, first: str | None, hub: str = PUBLIC) -> None:
        self.first = first
        self.hub = hub
        self.lookups = 0

    def addresses(self, host: str, port: Any) -> list[Any]:
        if host == "hub.test":
            return [self._one(self.hub, port)]
        if host == INSIDE:
            return [self._one(INSIDE, port)]
        assert host == ELSEWHERE
        self.lookups += 1
        if self.lookups > 1:
            return [self._one(INSIDE, port)]
        if self.first is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [self._one(self.first, port)]

    def _one(self, address: str, port: Any) -> Any:
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))


class TrioResolver(trio.abc.HostnameResolver):
    def __init__(self, of: Resolver) -> None:
        self.of = of

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        return self.of.addresses(host.decode() if isinstance(host, bytes) else host, port)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


@pytest.mark.parametrize("first", [PUBLIC, None])
async def test_a_connection_that_ends_up_inside_is_not_used(victim: Victim, first: str | None) -> None:
    trio.socket.set_custom_hostname_resolver(TrioResolver(Resolver(first)))
    url = f"http://{ELSEWHERE}:{victim.server_port}/secret"
    async with open_client(trust_env=False) as client:
        connected = await refuse_inner(url, HUB, PUBLIC)
        with pytest.raises(BadResponse, match="inside this machine"):
            await client.request("GET", url, connected=connected)
    assert victim.asked == []


@pytest.mark.parametrize("first", [PUBLIC, None])
async def test_nor_by_the_library_that_reads_listings(
    victim: Victim, first: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is the hub's, given here without a network: what counts is where it leads."""
    await refused(victim, Resolver(first), ELSEWHERE, monkeypatch)


async def test_nor_does_a_hub_become_one_of_ours_by_its_name(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name means this machine once it has answered."""
    await refused(victim, Resolver(PUBLIC, hub=INSIDE), INSIDE, monkeypatch)


async def refused(victim: Victim, of: Resolver, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *rest, **more: of.addresses(host, port))
    monkeypatch.setenv("NO_PROXY", "*")
    client = get_session()
    bound_answers(client)
    place = f"http://{host}:{victim.server_port}/secret"
    library = type(client).__module__.partition(".")[0]
    hub = Redirecting(pytest.importorskip(library), place)

    def read() -> None:
        with type(client)(
            event_hooks=client.event_hooks, follow_redirects=True, mounts={"http://hub.test": hub}
        ) as one:
            one.get(f"{HUB}/api/models/a/b")

    with pytest.raises(BadResponse, match="inside this machine"):
        await trio.to_thread.run_sync(read)
    assert victim.asked == []


def Redirecting(library: Any, place: str) -> Any:
    return library.MockTransport(lambda request: library.Response(302, headers={"location": place}))
