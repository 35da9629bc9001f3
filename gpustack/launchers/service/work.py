"""Bounded work: how many requests are worked on at a time, how many wait, and what is told of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from .call import ServiceFault

T = TypeVar("T")


class WorkQueue:
    """Requests being worked on and waiting. Counters are named after what they count."""

    def __init__(self, most_running: int, most_waiting: int) -> None:
        self.running = 0
        self.waiting = 0
        self.counters: dict[str, float] = {}
        self._room = trio.Semaphore(most_running)
        self._most_waiting = most_waiting
        self._threads = trio.CapacityLimiter(most_running + 1)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One request's turn. Raises ``ServiceFault`` (503) where too many wait already. Cancellable while it waits."""
        if self.waiting >= self._most_waiting:
            raise ServiceFault(f"{self.waiting} requests wait already; try again later", 503)
        self.waiting += 1
        try:
            await self._room.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._room.release()

    def count(self, name: str, amount: float = 1.0) -> None:
        self.counters[name] = self.counters.get(name, 0.0) + amount

    async def run(self, function: Callable[[], T]) -> T:
        """Run a blocking step in a thread. A cancellation takes effect after it: what is worked on holds its turn."""
        return await trio.to_thread.run_sync(function, limiter=self._threads)

    async def items(self, made: Iterator[T]) -> AsyncIterator[T]:
        """The items of a blocking iterator, each made in a thread; none is made once nobody takes them."""
        while True:
            found = await self.run(lambda: next(made, _END))
            if isinstance(found, _End):
                return
            yield found

    def metrics(self, prefix: str) -> str:
        """The text of ``/metrics``."""
        lines = []
        for name, value in (("requests_running", self.running), ("requests_waiting", self.waiting)):
            lines += [f"# TYPE {prefix}{name} gauge", f"{prefix}{name} {value}"]
        for name, total in self.counters.items():
            lines += [f"# TYPE {prefix}{name} counter", f"{prefix}{name}_total {total:g}"]
        return "\n".join(lines) + "\n"


class _End:
    """The end of an iterator, told apart from its items."""


_END = _End()
