"""What has to be written with whatever a task writes: in the same transaction, or neither is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import attrs

from .transaction import Tx

T = TypeVar("T")


@attrs.define(eq=False)
class AttachedWrite:
    """A second work, done once: with the first work of the task that is committed."""

    _add: Callable[[Tx, object], None]
    """Given the transaction and what the first work returned, in the writer's thread. What it raises undoes both."""
    written: bool = False

    def beside(self, work: Callable[[Tx], T]) -> Callable[[Tx], T]:
        """Both as one work."""

        def both(tx: Tx) -> T:
            result = work(tx)
            self._add(tx, result)
            return result

        return both


_companion: ContextVar[AttachedWrite | None] = ContextVar("companion", default=None)


def waiting() -> AttachedWrite | None:
    """What the present task's next work has to take along."""
    found = _companion.get()
    return None if found is None or found.written else found


@contextmanager
def alone() -> Iterator[None]:
    """Within the block, works take nothing along: they are steps on the way, and not what is told of."""
    token = _companion.set(None)
    try:
        yield
    finally:
        _companion.reset(token)


@contextmanager
def accompanied(companion: AttachedWrite) -> Iterator[None]:
    """Within the block, the first work that this task has committed takes ``companion`` along."""
    token = _companion.set(companion)
    try:
        yield
    finally:
        _companion.reset(token)
