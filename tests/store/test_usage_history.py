"""Counts add up, whoever adds them, and are asked for by day, user and model."""

from __future__ import annotations

import functools
from datetime import date

import attrs
import trio

from gpustack.domain.usage import ModelUsage, Operation
from gpustack.store import usage_history

from .conftest import Clock, Opened, opening

DAY = date(2026, 1, 2)
CHAT = ModelUsage(
    date=DAY,
    user_id=1,
    api_key_id=-1,
    model_id=1,
    operation=Operation.CHAT_COMPLETION,
    username="ada",
    model_name="qwen",
    prompt_token_count=10,
    completion_token_count=5,
    request_count=1,
)


async def test_a_thousand_counts_at_once_are_all_counted(opened: Opened) -> None:
    async with opened() as store:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(store.write, lambda tx: tx.add_usage([CHAT] * 10))
        (row,) = await store.query(functools.partial(usage_history.rows, start=DAY, end=DAY))
        assert (row.request_count, row.prompt_token_count, row.completion_token_count) == (1000, 10_000, 5000)
        assert row.operation is Operation.CHAT_COMPLETION
        assert store.snapshot.revision == 0


async def test_what_several_servers_count_on_one_day_adds_up(server_url: str, clock: Clock) -> None:
    async with opening(server_url, clock) as one, opening(server_url, clock) as two:
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon((one, two)[number % 2].write, lambda tx: tx.add_usage([CHAT] * 2))
        for store in (one, two):
            (row,) = await store.query(functools.partial(usage_history.rows, start=DAY, end=DAY))
            assert (row.request_count, row.prompt_token_count) == (120, 1200)


async def test_names_are_the_latest_and_each_count_has_its_own_row(opened: Opened) -> None:
    async with opened() as store:
        await store.write(lambda tx: tx.add_usage([CHAT, attrs.evolve(CHAT, api_key_id=3)]))
        await store.write(lambda tx: tx.add_usage([attrs.evolve(CHAT, username="Ada L.", failed_count=1)]))
        await store.write(lambda tx: tx.add_usage([]))
        rows = await store.query(functools.partial(usage_history.rows, start=DAY, end=DAY))
        assert [(r.api_key_id, r.username, r.request_count, r.failed_count) for r in rows] == [
            (-1, "Ada L.", 2, 1),
            (3, "ada", 1, 0),
        ]


async def test_sums_are_asked_for_by_day_user_and_model(opened: Opened) -> None:
    later = attrs.evolve(CHAT, date=date(2026, 1, 4), operation=Operation.EMBEDDING)
    bob = attrs.evolve(CHAT, user_id=2, username="bob", model_id=2, model_name="gemma", prompt_token_count=90)
    nobody = attrs.evolve(CHAT, user_id=-1, username="")
    async with opened() as store:
        await store.write(lambda tx: tx.add_usage([CHAT, later, bob, nobody]))

        async def ask(what: object, end: date = later.date, **wanted: object) -> list[object]:
            return await store.query(lambda conn: what(conn, DAY, end, **wanted))  # type: ignore[operator]  # any question

        days = await ask(usage_history.daily)
        assert [(d.date, d.prompt_token_count, d.request_count) for d in days] == [  # type: ignore[attr-defined]  # any answer
            (DAY, 110, 3),
            (later.date, 10, 1),
        ]
        assert len(await ask(usage_history.daily, end=DAY)) == 1
        assert len(await ask(usage_history.daily, user_ids=(2,))) == 1
        assert len(await ask(usage_history.daily, model_ids=(3,))) == 0
        users = await ask(usage_history.by_user)
        assert [(u.id, u.name, u.request_count) for u in users] == [(2, "bob", 1), (1, "ada", 2)]  # type: ignore[attr-defined]  # any answer
        models = await ask(usage_history.by_model, limit=1)
        assert [(m.id, m.name) for m in models] == [(2, "gemma")]  # type: ignore[attr-defined]  # any answer
        assert await ask(usage_history.by_user, end=date(2025, 1, 1)) == []
