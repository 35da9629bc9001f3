"""Waiting for the first of several things to happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


async def first_of(*waits: Callable[[], Awaitable[object]]) -> int:
    """Run all of them at the same time; return the index of the first that returns. The others are cancelled.

    They must not raise: an exception of one would come in an exception group.
    """
    winner: list[int] = []

    async with trio.open_nursery() as nursery:

        async def run(index: int, wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            winner.append(index)
            nursery.cancel_scope.cancel()

        for index, wait in enumerate(waits):
            nursery.start_soon(run, index, wait)
    return winner[0]
