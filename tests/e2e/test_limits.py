"""Budgets hold on running servers: under five hundred calls at once, through a kill, and with two servers."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from tests.child import ROOT
from tests.daemon import Daemon, daemon
from tests.databases import Server
from tests.http1.wire import Answer, Client

pytestmark = pytest.mark.attack("limits")

WORDS = 300
PROMPT = 3
ASK = {
    "model": "m",
    "max_tokens": WORDS,
    "messages": [{"role": "user", "content": "one two three"}],
}


def deploy(one: Daemon) -> None:
    """A model on an engine that says ``WORDS`` words."""
    engine = f"{sys.executable} -m tests.fakes.engine --port {{port}} --reply w --repeat {WORDS}"
    model = {
        "name": "m",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": engine,
        "health_path": "/health",
        "env": {"PYTHONPATH": str(ROOT)},
    }
    status, answer = one.call("POST", "/v1/models", model)
    assert status == 200, answer
    one.running("m")


def limited(one: Daemon, name: str, **limits: int) -> str:
    """A key that may use so much."""
    status, answer = one.call("POST", "/v1/api-keys", {"name": name, "limits": limits})
    assert status == 200, answer
    return str(answer["value"])


def ask(one: Daemon, key: str) -> int:
    return one.call("POST", "/v1/chat/completions", ASK, {"authorization": f"Bearer {key}"})[0]


def know_of_each_other(*servers: Daemon) -> bool:
    return all(len(one.call("GET", "/v1/servers")[1]["items"]) == len(servers) for one in servers)


def used(port: int, finished: int = 0) -> int:
    """Tokens that the engine read and wrote for anybody, whether the answer arrived or not; waits until it has
    ``finished`` so many."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/_control?finished={finished}", timeout=40
    ) as answer:
        seen: dict[str, Any] = json.load(answer)
    return PROMPT * int(seen["requests"]) + int(seen["tokens"])


async def answer_of(client: Client, request: bytes) -> Answer | None:
    """``None`` where the server is killed meanwhile."""
    try:
        return await client.ask(request)
    except (AssertionError, trio.BrokenResourceError):  # closed within an answer, or before it
        return None


async def call_until_refused(url: str, key: str, callers: int) -> list[int]:
    """Statuses of so many callers at once, each asking again until it is told that waiting does not help, or until
    its server is gone."""
    statuses: list[int] = []
    address = urlsplit(url)
    body = json.dumps(ASK).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body

    async def call() -> None:
        assert address.hostname and address.port
        async with await trio.open_tcp_stream(address.hostname, address.port) as stream:
            client = Client(stream)
            while (answer := await answer_of(client, request)) is not None:
                statuses.append(answer.status)
                if answer.headers.get(b"x-should-retry") == b"false":
                    assert json.loads(answer.body)["error"]["code"] == "insufficient_quota"
                    return
                if answer.status != 200:
                    await trio.sleep(0.2)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(call)
    return statuses


def drawn(data: Path) -> int:
    with sqlite3.connect(data / "database.db") as connection:
        return int(connection.execute("SELECT SUM(drawn) FROM budget_draws").fetchone()[0])


async def test_a_budget_holds_under_five_hundred_calls_and_a_kill(tmp_path: Path) -> None:
    budget, data = 60_000, tmp_path / "data"
    with daemon(data) as first:
        deploy(first)
        key = limited(first, "budget", tokens_per_day=budget)
        rare = limited(first, "rare", requests_per_minute=1)
        assert [ask(first, rare) for _ in range(2)] == [200, 429]
        others = used(first.instances("m")[0]["port"])
        (instance,) = first.instances("m")
        port = instance["port"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_until_refused, first.url, key, 20)
            await trio.to_thread.run_sync(used, port, 60)
            first.stop(signal.SIGKILL)
    before = used(port) - others
    forfeit = drawn(data) - before
    assert 0 <= forfeit <= budget - before, "what is spent was written down before"
    with daemon(data) as second:
        second.running("m")
        assert ask(second, rare) == 429, "a crash does not begin the minute anew"
        fresh = limited(second, "fresh", requests_per_minute=1)
        assert [ask(second, fresh) for _ in range(2)] == [200, 429]
        others += PROMPT + WORDS
        statuses = await call_until_refused(second.url, key, 500)
        assert set(statuses) == {200, 429}
        assert statuses[-1] == 429
        after = used(port) - others
        assert before + statuses.count(200) * (PROMPT + WORDS) == after
        assert after <= budget
        one_call = len(json.dumps(ASK)) + 256 + WORDS
        assert after > budget - forfeit - one_call, "a kill forfeits what was drawn, not the rest of the day"
        assert second.stop() == 0
    assert drawn(data) <= budget
    assert drawn(data) - after <= forfeit, "a stop in order gives back"


async def test_two_servers_share_a_budget_and_one_is_killed(
    tmp_path: Path, servers: Callable[[str], Server], postgresql: str
) -> None:
    budget = 90_000
    shared = ("--database-url", postgresql)
    with (
        daemon(tmp_path / "one", *shared) as one,
        daemon(tmp_path / "two", "--disable-worker", *shared) as two,
    ):
        deploy(one)
        one.until(lambda: know_of_each_other(one, two), "that both know that there are two")
        two.running("m")
        rare = limited(one, "rare", requests_per_minute=9)
        asked = [ask(server, rare) for server in (one, two) * 10]
        assert sorted({200, 429}) == sorted(set(asked))
        shares = [asked[start::2].count(200) for start in (0, 1)]
        assert sorted(shares) == [4, 5], "each lets in its share, and together they let in no more"
        others = used(one.instances("m")[0]["port"])
        key = limited(one, "shared", tokens_per_day=budget)
        (instance,) = one.instances("m")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_until_refused, one.url, key, 250)
            nursery.start_soon(call_until_refused, two.url, key, 20)
            await trio.to_thread.run_sync(used, instance["port"], 80)
            two.stop(signal.SIGKILL)
        assert await call_until_refused(one.url, key, 5) == [429] * 5
        assert budget // 3 < used(instance["port"]) - others <= budget


@pytest.fixture
def postgresql(servers: Callable[[str], Server]) -> Iterator[str]:
    server = servers("postgresql")
    made = server.create()
    yield made
    server.drop(made)
