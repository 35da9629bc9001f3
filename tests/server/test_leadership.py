"""One leads at a time, whatever happens to whoever leads: a lease in memory, and a clock that jumps."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import attrs
import pytest
import trio
import trio.testing

from gpustack.errors import Unavailable
from gpustack.nursery.restart import NEVER, RestartPolicy
from gpustack.nursery.service import Service, function_service
from gpustack.server.leadership import LOOK_EVERY, TTL, Leadership
from gpustack.store.lease import LeaseLost, LeaseTerm

T = TypeVar("T")


@attrs.define
class Database:
    """The lease as a database keeps it, and what leaders wrote there."""

    holder: str = ""
    term: int = 0
    expires: float = 0.0
    writes: list[tuple[int, str]] = attrs.field(factory=list)

    def take(self, holder: str) -> LeaseTerm | None:
        now = trio.current_time()
        if self.expires > now and self.holder != holder:
            return None
        if self.expires <= now:
            self.term += 1
        self.holder, self.expires = holder, now + TTL
        return LeaseTerm("leader", self.term)

    def end(self, term: LeaseTerm, holder: str) -> None:
        if (self.term, self.holder) == (term.number, holder):
            self.expires = 0.0

    def write(self, term: LeaseTerm, who: str) -> None:
        if term.number != self.term:
            raise LeaseLost("another leads")
        self.writes.append((term.number, who))


@attrs.define(eq=False)
class Node:
    """A server that writes while it leads, and its way to the database: cut, or slow either way."""

    name: str
    database: Database
    ruling: list[str]
    """Who runs its loops now, of all nodes."""
    cut: bool = False
    delay: Callable[[], float] = lambda: 0.0
    reigns: list[int] = attrs.field(factory=list)
    restart: RestartPolicy = NEVER
    crash: bool = False
    leadership: Leadership = attrs.field(init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self.leadership = Leadership(self, self._make_services, self.restart)

    async def take(self) -> LeaseTerm | None:
        return await self._asking(lambda: self.database.take(self.name))

    async def end(self, term: LeaseTerm) -> None:
        await self._asking(lambda: self.database.end(term, self.name))

    async def _asking(self, ask: Callable[[], T]) -> T:
        await trio.sleep(self.delay())
        if self.cut:
            raise Unavailable("no way to the database")
        answer = ask()
        await trio.sleep(self.delay())
        if self.cut:
            raise Unavailable("no way back from the database")
        return answer

    def _make_services(self, term: LeaseTerm | None, lease_lost: Callable[[], None]) -> Sequence[Service]:
        assert term is not None
        self.reigns.append(term.number)

        async def loop(*, task_status: trio.TaskStatus[None]) -> None:
            assert not self.ruling
            self.ruling.append(self.name)
            try:
                task_status.started()
                while True:
                    await trio.sleep(0.5)
                    if self.crash:
                        raise RuntimeError("a fault of a loop")
                    try:
                        await self._asking(lambda: self.database.write(term, self.name))
                    except LeaseLost:
                        lease_lost()
                        await trio.sleep_forever()
                    except Unavailable:
                        continue
            finally:
                self.ruling.remove(self.name)

        return (function_service("loop", loop),)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.scope:
            await self.leadership.run(task_status=task_status)


@attrs.define
class World:
    database: Database = attrs.field(factory=Database)
    nodes: dict[str, Node] = attrs.field(factory=dict)
    ruling: list[str] = attrs.field(factory=list)

    def node(self, name: str) -> Node:
        self.nodes[name] = Node(name, self.database, self.ruling)
        return self.nodes[name]

    @property
    def leaders(self) -> list[str]:
        return [node.name for node in self.nodes.values() if node.leadership.leads]

    async def leader(self, *names: str) -> str:
        """Wait until one of these leads; who, and that it was soon enough."""
        asked = trio.current_time()
        while not set(self.leaders) & set(names):  # noqa: ASYNC110
            await trio.sleep(0.1)
        assert trio.current_time() - asked <= TTL + LOOK_EVERY + 0.2
        return self.leaders[0]


@asynccontextmanager
async def running(*names: str) -> AsyncIterator[World]:
    world = World()
    async with trio.open_nursery() as nursery:
        for name in names:
            await nursery.start(lambda task_status, name=name: world.node(name).run(task_status=task_status))
        yield world
        nursery.cancel_scope.cancel()
    assert not world.ruling and not world.leaders


async def test_one_of_several_leads_and_goes_on_leading(autojump_clock: trio.testing.MockClock) -> None:
    async with running("a", "b", "c") as world:
        for _ in range(300):
            await trio.sleep(1)
            assert world.leaders == world.ruling == ["a"]
        a, b = world.nodes["a"].leadership, world.nodes["b"].leadership
        assert a.term == LeaseTerm("leader", 1)
        assert repr(a) == "<Leadership: leads in term 1>"
        assert repr(b) == "<Leadership: another server leads, or none>"
        assert {who for _, who in world.database.writes} == {"a"}


async def test_one_that_dies_is_followed_and_one_that_stops_is_followed_sooner(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running("a", "b", "c") as world:
        await trio.sleep(10.3)
        world.nodes["a"].cut = True  # dead, it gives nothing up
        world.nodes["a"].scope.cancel()
        second = await world.leader("b", "c")
        assert world.nodes[second].reigns == [2]
        stopped = trio.current_time()
        world.nodes[second].scope.cancel()
        third = await world.leader(*({"b", "c"} - {second}))
        assert trio.current_time() - stopped <= LOOK_EVERY + 0.1
        assert world.nodes[third].reigns == [3]


async def test_one_that_loses_the_database_ends_its_loops_before_another_begins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running("a", "b") as world:
        await trio.sleep(10.3)
        world.nodes["a"].cut = True
        assert await world.leader("b") == "b"
        assert world.ruling == ["b"]
        world.nodes["a"].cut = False
        await trio.sleep(60)
        assert world.leaders == ["b"], "who comes back follows"


async def test_one_that_stood_still_too_long_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    """Its write and its lease were on their way when it was stopped, and arrive when another leads."""
    async with running("a", "b") as world:
        await trio.sleep(10.3)
        a = world.nodes["a"]
        a.delay = lambda: 30.0
        await world.leader("b")
        await trio.sleep(40)
        a.delay = lambda: 0.0
        await trio.sleep(40)
        assert world.leaders == ["b"]
        terms = [term for term, _ in world.database.writes]
        assert terms == sorted(terms)
        assert {who for term, who in world.database.writes if term > 1} == {"b"}


async def test_after_an_outage_for_all_somebody_leads_in_a_new_term(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running("a", "b", "c") as world:
        await trio.sleep(10.3)
        for node in world.nodes.values():
            node.cut = True
        await trio.sleep(TTL)
        assert not world.leaders and not world.ruling
        for node in world.nodes.values():
            node.cut = False
        found = await world.leader("a", "b", "c")
        assert world.nodes[found].reigns[-1] == 2


async def test_a_loop_that_cannot_be_kept_alive_is_the_fault_of_its_server_and_another_leads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        async with running("a") as world, trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: world.node("b").run(task_status=task_status))
            await trio.sleep(10.3)
            world.nodes["a"].crash = True
            await trio.sleep(LOOK_EVERY + 1)
            nursery.cancel_scope.cancel()
    assert world.database.term == 1 and world.database.expires == 0.0, "it gave the lease up"


async def test_on_a_database_of_its_own_a_server_leads_from_the_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    given: list[LeaseTerm | None] = []

    def make_services(term: LeaseTerm | None, lease_lost: Callable[[], None]) -> Sequence[Service]:
        given.append(term)

        async def loop(*, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await trio.sleep_forever()

        return (function_service("loop", loop),)

    alone = Leadership(None, make_services, NEVER)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: alone.run(task_status=task_status))
        assert alone.leads and given == [None]
        await trio.sleep(3600)
        assert alone.leads and given == [None]
        assert repr(alone) == "<Leadership: leads>"
        nursery.cancel_scope.cancel()
    assert not alone.leads


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_breaks_no_two_rule_and_no_old_term_is_written(
    autojump_clock: trio.testing.MockClock, seed: int
) -> None:
    """Ways that are slow and cut at random, for half an hour; then calm, and one leads."""
    rng = random.Random(seed)
    async with running("a", "b", "c") as world:
        for _ in range(150):
            node = world.nodes[rng.choice("abc")]
            node.cut = rng.random() < 0.4
            slowest = rng.choice((0.0, 0.1, 3.0, 15.0))
            node.delay = lambda slowest=slowest: rng.uniform(0, slowest)
            await trio.sleep(rng.uniform(0, 25))
            assert len(world.ruling) <= 1
        for node in world.nodes.values():
            node.cut, node.delay = False, lambda: 0.0
        await trio.sleep(60)
        before = len(world.database.writes)
        await trio.sleep(10)
        assert len(world.leaders) == 1
        assert len(world.database.writes) > before
        terms = [term for term, _ in world.database.writes]
        assert terms == sorted(terms)
        assert len({term for term, _ in set(world.database.writes)}) == len(set(world.database.writes))
