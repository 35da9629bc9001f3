"""Level-triggered signals between tasks (several missed ones become one, none is lost); the first of several waits."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import attrs
import trio

T = TypeVar("T")


@attrs.define(eq=False)
class Wake:
    """Asks a loop to run once more. Several calls before it runs count as one."""

    _event: trio.Event = attrs.field(factory=trio.Event, repr=lambda event: str(event.is_set()))

    def wake(self) -> None:
        """Make the present or next ``wait`` return. Never waits. Only from the Trio thread."""
        self._event.set()

    async def wait(self, at_most: float = math.inf) -> bool:
        """Return True once woken since the last return, or False after ``at_most`` seconds.

        Cancelling loses no wake. Meant for one waiting loop; of several, all waiting ones are woken.
        """
        event = self._event
        with trio.move_on_after(at_most):
            await event.wait()
        if not event.is_set():
            return False
        if self._event is event:  # else another waiter renewed it, and it may hold a newer wake
            self._event = trio.Event()
        return True


@attrs.define(eq=False)
class AsyncValue(Generic[T]):
    """Holds the newest value of a series; a waiting task may miss values in between."""

    value: T
    revision: int = 0
    _news: trio.Event = attrs.field(factory=trio.Event, repr=False)

    def set(self, value: T) -> None:
        """Replace the value. Never waits. Only from the Trio thread."""
        self.value = value
        self.revision += 1
        self._news.set()
        self._news = trio.Event()

    async def changed(self, since: int) -> tuple[int, T]:
        """Wait for a revision newer than ``since``; return it with its value."""
        while self.revision <= since:
            await self._news.wait()
        await trio.lowlevel.checkpoint()
        return self.revision, self.value


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
