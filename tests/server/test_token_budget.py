"""Budgets are drawn before they are spent: no crash, no other server and no lowered limit lets more through."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from gpustack.domain.usage import BudgetDraw
from gpustack.errors import Unavailable
from gpustack.policy.usage_limit import LimitKind
from gpustack.server.token_budget import TokenBudgets
from gpustack.store import Store
from tests.databases import Server
from tests.documents import DOCS
from tests.store.conftest import Clock, opening
from tests.store.test_servers import heard

pytestmark = pytest.mark.attack("limits")

DAY = LimitKind.DAY


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def budgets_of(store: Store, clock: Clock, *, crash: bool = False) -> AsyncIterator[TokenBudgets]:
    """Budgets that run; at the end they stop in order, or as those of a process that was killed."""
    made = TokenBudgets(store, clock, trio.current_time)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        if crash:
            store.close()  # a killed process writes nothing any more
        nursery.cancel_scope.cancel()


def file(folder: Path, clock: Clock) -> AbstractAsyncContextManager[Store]:
    return opening(f"sqlite:///{folder}/database.db", clock)


async def spend(budgets: TokenBudgets, limit: int, need: int, used: int, subject: str = "key:1") -> bool:
    """As the gateway does: promise, then settle. Whether there was enough."""
    while True:
        block = budgets.block(subject, DAY, limit)
        if budgets.remaining(block) < need:
            return False
        if budgets.spendable(block) >= need:
            budgets.take(block, need)
            await trio.lowlevel.checkpoint()
            budgets.settle(block, need, used)
            return True
        await budgets.draw([(block, need)])


def drawn(store: Store) -> int:
    return sum(row.drawn for row in store.snapshot.all(BudgetDraw).values())


async def test_a_stop_in_order_gives_back_what_is_left(tmp_path: Path, clock: Clock) -> None:
    async with file(tmp_path, clock) as store:
        async with budgets_of(store, clock) as budgets:
            for _ in range(10):
                assert await spend(budgets, 16_000, 100, 30)
            assert drawn(store) == 1000, "a sixteenth at once"
            assert budgets.draws == 1
        assert drawn(store) == 300


async def test_a_crash_forfeits_the_rest_of_a_block_and_no_more(tmp_path: Path, clock: Clock) -> None:
    limit, used = 20_000, 0
    for _ in range(8):
        async with file(tmp_path, clock) as store, budgets_of(store, clock, crash=True) as budgets:
            while await spend(budgets, limit, 100, 90) and (used := used + 90) % 1980:
                pass
    assert used <= limit
    assert used > limit // 2


def steps_of_the_example() -> list[tuple[int, int, int]]:
    """What is drawn, left and promised after each step of the example in docs/limits.md."""
    found = re.findall(
        r"^\| [^|]+ \| (\d+) \| (-?\d+) \| (\d+) \|$", (DOCS / "limits.md").read_text(), re.MULTILINE
    )
    return [(int(drawn), int(left), int(promised)) for drawn, left, promised in found]


@pytest.mark.parametrize("crash", [False, True])
async def test_the_example_in_the_documents_is_what_happens(
    tmp_path: Path, clock: Clock, crash: bool
) -> None:
    seen: list[tuple[int, int, int]] = []
    async with file(tmp_path, clock) as store:
        async with budgets_of(store, clock, crash=crash) as budgets:
            block = budgets.block("key:1", DAY, 16_000)

            def look() -> None:
                seen.append((drawn(store), block.left, block.promised))

            look()
            await budgets.draw([(block, 100)])
            budgets.take(block, 100)
            look()
            budgets.settle(block, 100, 30)
            look()
            budgets.take(block, 900)
            look()
            budgets.settle(block, 900, 1000)
            look()
            await budgets.draw([(block, 900)])
            look()
        look()
    if crash:
        assert seen[:-1] == steps_of_the_example()[:-1]
        assert drawn(store) == 1965
    else:
        assert seen == steps_of_the_example()


async def test_all_that_wait_share_one_draw(tmp_path: Path, clock: Clock) -> None:
    async with file(tmp_path, clock) as store:
        async with budgets_of(store, clock) as budgets:
            got: list[bool] = []

            async def call() -> None:
                got.append(await spend(budgets, 100_000, 150, 150))

            async with trio.open_nursery() as nursery:
                for _ in range(1000):
                    nursery.start_soon(call)
            assert sum(got) == 666
            assert budgets.draws <= 5
        assert drawn(store) == 666 * 150


async def test_rows_of_periods_that_are_over_are_deleted(tmp_path: Path, clock: Clock) -> None:
    async with file(tmp_path, clock) as store, budgets_of(store, clock) as budgets:
        assert await spend(budgets, 1000, 10, 10)
        clock.forward(days=1)
        await budgets.tidy()
        assert len(store.snapshot.all(BudgetDraw)) == 1, "another server's clock may be behind"
        assert await spend(budgets, 1000, 10, 10)
        clock.forward(days=1)
        await budgets.tidy()
        assert [row.period for row in store.snapshot.all(BudgetDraw).values()] == ["2026-01-03"]


async def test_a_block_that_nobody_spends_goes_back(tmp_path: Path, clock: Clock) -> None:
    async with file(tmp_path, clock) as store:
        moments = [0.0]
        made = TokenBudgets(store, clock, lambda: moments[0])
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            assert await spend(made, 16_000, 100, 100)
            await made.tidy()
            assert drawn(store) == 1000
            moments[0] = 61.0
            await made.tidy()
            assert drawn(store) == 100
            assert await spend(made, 16_000, 15_900, 0), "and is there for who needs it"
            nursery.cancel_scope.cancel()


async def test_a_stopped_store_sends_away_who_waits(tmp_path: Path, clock: Clock) -> None:
    async with file(tmp_path, clock) as store, budgets_of(store, clock) as budgets:
        assert await spend(budgets, 16_000, 100, 0)
        store.close()
        assert await spend(budgets, 16_000, 1000, 0), "what is drawn can be used"
        with pytest.raises(Unavailable) as raised:
            await spend(budgets, 16_000, 1001, 0)
        assert raised.value.retry_after
        await budgets.give_up()
        with pytest.raises(Unavailable):
            await spend(budgets, 16_000, 1001, 0)


async def test_servers_together_spend_no_more_than_the_budget(server_url: str, clock: Clock) -> None:
    """Three of them, one killed in the middle; what it held is forfeit, and everything else is used."""
    limit, used = 50_000, 0
    rng = random.Random(4)

    async def work(budgets: TokenBudgets, calls: int) -> None:
        nonlocal used
        for _ in range(calls):
            need = rng.randrange(1, 400)
            took = rng.randrange(need)
            if await spend(budgets, limit, need, took):
                used += took

    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        async with (
            opening(server_url, clock) as three,
            budgets_of(three, clock, crash=True) as third,
            budgets_of(one, clock) as first,
            budgets_of(two, clock) as second,
            trio.open_nursery() as nursery,
        ):
            for budgets in (first, second, third):
                for _ in range(8):
                    nursery.start_soon(work, budgets, 40)
        assert used <= limit
        assert used > limit * 3 // 4
        async with budgets_of(one, clock) as first, budgets_of(two, clock) as second:
            while await spend(first, limit, 50, 50) or await spend(second, limit, 50, 50):
                used += 50
        assert used <= limit
        await heard(two, one.snapshot.revision)
        await heard(one, two.snapshot.revision)
        assert used <= drawn(one) <= limit
        assert drawn(one) == drawn(two)


@pytest.fixture(params=["postgresql", "mysql"])
def server_url(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Iterator[str]:
    server = servers(request.param)
    made = server.create()
    yield made
    server.drop(made)
