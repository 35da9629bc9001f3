"""Runs functions in threads, each kind of work with a named limiter."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import attrs
import trio

R = TypeVar("R")


class ThreadRunner(Protocol):
    """Runs a plain function, as ``trio.to_thread.run_sync`` does."""

    def __call__(
        self, fn: Callable[[], Any], /, *, abandon_on_cancel: bool, limiter: trio.CapacityLimiter | None
    ) -> Awaitable[Any]: ...


_runner: ContextVar[ThreadRunner | None] = ContextVar("thread runner", default=None)
_all: weakref.WeakSet[ThreadLimiter] = weakref.WeakSet()


@attrs.frozen
class LimiterStatistics:
    """How busy a limiter is."""

    name: str
    total: int
    busy: int
    waiting: int


@attrs.define(eq=False, repr=False)
class ThreadLimiter:
    """At most ``total`` threads for one kind of work, so that no kind of work starves another."""

    name: str
    _limiter: trio.CapacityLimiter

    async def run(self, fn: Callable[..., R], *args: Any, abandon: bool = False) -> R:
        """Run ``fn(*args)`` in a thread and return its result.

        Waits for a free thread (cancellable), then for the function: not cancellable, unless ``abandon`` is set. Then
        the function runs on, and its result is discarded.
        """
        run_sync = _runner.get() or trio.to_thread.run_sync
        return cast(R, await run_sync(partial(fn, *args), abandon_on_cancel=abandon, limiter=self._limiter))

    @property
    def use(self) -> LimiterStatistics:
        now = self._limiter.statistics()
        return LimiterStatistics(self.name, int(now.total_tokens), now.borrowed_tokens, now.tasks_waiting)

    def __repr__(self) -> str:
        use = self.use
        return f"<ThreadLimiter {self.name}: {use.busy} of {use.total} busy, {use.waiting} waiting>"


def threads(name: str, total: int) -> ThreadLimiter:
    """A new limiter of ``total`` threads, listed by ``limiters`` under ``name`` while it is referenced."""
    made = ThreadLimiter(name, trio.CapacityLimiter(total))
    _all.add(made)
    return made


def limiters() -> list[LimiterStatistics]:
    """The statistics of all limiters, sorted by name."""
    return sorted((one.use for one in _all), key=lambda use: use.name)


@contextmanager
def use_thread_runner(runner: ThreadRunner) -> Iterator[None]:
    """Within the block, and in tasks started there, ``runner`` is used instead of threads, as simulations need it."""
    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)
