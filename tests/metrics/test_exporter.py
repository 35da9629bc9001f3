"""An exporter looks when it is asked, once for everybody, on a real port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import httpx
import trio
import trio.testing
from prometheus_client.metrics_core import Metric as Family

from gpustack.http1.listen import open_listeners
from gpustack.http1.server import HttpServer
from gpustack.metrics.exporter import LIMITS, Exporter
from gpustack.metrics.family import Samples
from gpustack.metrics.registry import TASKS
from gpustack.metrics.render import PageFormat, render


@attrs.define
class State:
    """Counts how often it was looked at; a look waits for ``gate``."""

    looks: int = 0
    gate: trio.Event = attrs.field(factory=trio.Event)

    async def look(self) -> int:
        self.looks += 1
        looks = self.looks
        await self.gate.wait()
        return looks


def families(number: int) -> list[Family]:
    samples = Samples()
    samples.add(TASKS, (), number)
    return samples.families


@asynccontextmanager
async def exporting(state: State, *, lifetime: float = 60.0) -> AsyncIterator[tuple[Exporter[int], str]]:
    exporter = Exporter(
        "test", state.look, {"/metrics": families}, {"/metrics/targets": lambda: ["a:1"]}, lifetime=lifetime
    )
    listeners = open_listeners("127.0.0.1", 0)
    server = HttpServer("test", listeners, handler=exporter, limits=LIMITS)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            await nursery.start(lambda task_status: exporter.run(task_status=task_status))
            await nursery.start(lambda task_status: server.run(task_status=task_status))
            yield exporter, f"http://127.0.0.1:{listeners[0].getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_page_is_served_with_its_type_and_others_are_not() -> None:
    state = State()
    state.gate.set()
    async with exporting(state) as (_, url), httpx.AsyncClient(base_url=url) as client:
        page = await client.get("/metrics")
        assert (page.status_code, page.text.splitlines()[-1]) == (200, "gpustack:tasks 1.0")
        assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        strict = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        assert strict.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert strict.text.endswith("# EOF\n")
        assert (await client.get("/metrics/targets")).json() == ["a:1"]
        assert (await client.head("/metrics")).content == b""
        assert (await client.get("/metrics/")).content == page.content
        assert (await client.get("/metrics/targets/")).json() == ["a:1"]
        assert (await client.post("/metrics", content=b"x")).status_code == 405
        assert "/metrics/targets" in (await client.get("/")).text


async def test_nothing_is_looked_at_while_nobody_asks_and_once_for_all_who_do() -> None:
    state = State()
    async with exporting(state) as (exporter, _):
        pages: list[bytes] = []

        async def ask() -> None:
            pages.append(await exporter.page("/metrics", PageFormat()))

        await trio.testing.wait_all_tasks_blocked()
        assert state.looks == 0
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            state.gate.set()
        assert state.looks == 1
        assert set(pages) == {families_page(1)}
        await exporter.page("/metrics", PageFormat(openmetrics=True))
        assert state.looks == 1


async def test_after_its_lifetime_a_look_is_taken_anew() -> None:
    state = State()
    state.gate.set()
    async with exporting(state, lifetime=0.0) as (exporter, _):
        assert await exporter.page("/metrics", PageFormat()) == families_page(1)
        assert await exporter.page("/metrics", PageFormat()) == families_page(2)


async def test_one_who_leaves_takes_nothing_from_those_who_wait() -> None:
    state = State()
    async with exporting(state) as (exporter, _):
        pages: list[bytes] = []

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                pages.append(await exporter.page("/metrics", PageFormat()))

        leaving, staying = trio.CancelScope(), trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, leaving)
            nursery.start_soon(ask, staying)
            await trio.testing.wait_all_tasks_blocked()
            leaving.cancel()
            await trio.testing.wait_all_tasks_blocked()
            state.gate.set()
        assert pages == [families_page(1)]


def families_page(number: int) -> bytes:
    return render(families(number), PageFormat())
