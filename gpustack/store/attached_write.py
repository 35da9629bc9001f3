"""A second write in the transaction of the first one that a task makes: both are committed, or neither is."""

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
    """A work that is done once, in the transaction of the first work of the task that is committed."""

    _add: Callable[[Tx, object], None]
    """Called in the writer's thread with the transaction and the result of the first work. If it raises, both are
    undone."""
    written: bool = False

    def beside(self, work: Callable[[Tx], T]) -> Callable[[Tx], T]:
        """``work`` and then this one, as one work with the result of ``work``."""

        def both(tx: Tx) -> T:
            result = work(tx)
            self._add(tx, result)
            return result

        return both


_attached: ContextVar[AttachedWrite | None] = ContextVar("attached write", default=None)


def pending_write() -> AttachedWrite | None:
    """What is attached to the next work of the present task."""
    found = _attached.get()
    return None if found is None or found.written else found


@contextmanager
def detach() -> Iterator[None]:
    """Within the block nothing is attached: its works are intermediate steps."""
    token = _attached.set(None)
    try:
        yield
    finally:
        _attached.reset(token)


@contextmanager
def attach(write: AttachedWrite) -> Iterator[None]:
    """Within the block, ``write`` is attached to the first work of this task that is committed."""
    token = _attached.set(write)
    try:
        yield
    finally:
        _attached.reset(token)
