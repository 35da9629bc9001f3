"""Sets aside the rows with which a loop cannot cope, so that no other row waits for them."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from types import TracebackType
from typing import TypeVar

import attrs
import trio

from .restart import RestartPolicy

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

BACK_OFF = RestartPolicy(first=1.0, factor=2.0, ceiling=300.0, budget=None, window=math.inf)
_REST = 0.1
_SEEN = 1000
"""Characters by which an exception is known again."""
MOST = 1000
"""Rows remembered by each loop. Of more that are faulty at once, those longest known are tried again too early."""


@attrs.frozen(kw_only=True)
class RowFault:
    """What a row met last. ``sentence`` may be shown: it holds nothing of what the exception says, for that may hold
    a secret; the log has it, redacted."""

    sentence: str
    again_at: float
    """By the clock of the loop."""
    streak: int
    """How many times in a row."""
    seen: str


@attrs.define(eq=False)
class RowAttempt:
    """The block of one step for one row; ``fault`` is set after it when the step failed."""

    _quarantine: Quarantine
    _row: Hashable
    fault: RowFault | None = None

    def __enter__(self) -> RowAttempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        # Whatever was not foreseen, groups of it included. Cancellation, also mixed with failures in one group, is no
        # Exception and not ours.
        if isinstance(error, Exception) and not isinstance(error, self._quarantine.passing):
            self.fault = self._quarantine._set_aside(self._row, error)
            return True
        if error is None:
            self._quarantine.forget(self._row)
        return False


@attrs.define(eq=False, repr=False)
class Quarantine:
    """The boundary around each row of one loop.

    An exception that nobody foresaw is the row's: it is logged with its traceback (again only when it is another
    one), the row is left out for a time that grows with each failure in a row, and the loop goes on. Exceptions of
    the classes in ``passing`` concern all rows and rise, and so does everything outside the blocks.
    """

    loop: str
    """What the log calls the loop."""
    passing: tuple[type[Exception], ...] = ()
    clock: Callable[[], float] = trio.current_time
    back_off: RestartPolicy = BACK_OFF
    most: int = MOST
    _aside: dict[Hashable, RowFault] = attrs.field(factory=dict)

    def row(self, row: Hashable) -> RowAttempt:
        """Survive what the block raises, as the fault of ``row``; a block that does well ends its pauses."""
        return RowAttempt(self, row)

    def holds(self, row: Hashable) -> bool:
        """Whether the row is to be left out now."""
        fault = self._aside.get(row)
        return fault is not None and self.clock() < fault.again_at

    def fault_of(self, row: Hashable) -> RowFault | None:
        """What the row met last, if it has not done well since."""
        return self._aside.get(row)

    def due_in(self) -> float:
        """Seconds until a row that is set aside is to be tried again; infinite when there is none.

        Never nothing: a loop that does not get to the row must not turn without rest.
        """
        if not self._aside:
            return math.inf
        return max(min(fault.again_at for fault in self._aside.values()) - self.clock(), _REST)

    def is_due(self) -> bool:
        """Whether the pause of a row that was set aside is over."""
        return any(self.clock() >= fault.again_at for fault in self._aside.values())

    def keep_only(self, rows: Collection[Hashable]) -> None:
        """Forget the rows that are not among these: they are gone."""
        if self._aside:
            self._aside = {row: fault for row, fault in self._aside.items() if row in rows}

    def forget(self, row: Hashable) -> None:
        """The row is gone, or was changed so that it deserves another try at once."""
        self._aside.pop(row, None)

    async def together(
        self, rows: Mapping[K, V], act: Callable[[Mapping[K, V]], Awaitable[T]]
    ) -> list[tuple[Mapping[K, V], T]]:
        """What ``act`` makes of all rows at once, or, where that fails, of each alone.

        Rows that are set aside are left out. ``act`` must leave nothing behind when it raises.
        """
        due = {row: value for row, value in rows.items() if not self.holds(row)}
        if len(due) > 1:
            try:
                answer = await act(due)
            except self.passing:
                raise
            except Exception as error:  # one of them holds what it cannot cope with: found out below
                log.debug("One of many rows cannot be handled: loop=%s", self.loop, exc_info=error)
            else:
                for row in due:
                    self._aside.pop(row, None)
                return [(due, answer)]
        found: list[tuple[Mapping[K, V], T]] = []
        for row, value in due.items():
            with self.row(row):
                found.append(({row: value}, await act({row: value})))
        return found

    def _set_aside(self, row: Hashable, error: Exception) -> RowFault:
        before = self._aside.pop(row, None)
        streak = 1 if before is None else before.streak + 1
        pause = self.back_off.pause(streak)
        seen = f"{type(error).__name__}: {error}"[:_SEEN]
        level = logging.DEBUG if before is not None and before.seen == seen else logging.ERROR
        log.log(
            level,
            "Set a row aside for a fault that nobody foresaw: loop=%s row=%s again in %.0f s",
            self.loop,
            row,
            pause,
            exc_info=error,
        )
        fault = self._aside[row] = RowFault(
            sentence=f"A fault that nobody foresaw ({type(error).__name__}, {self.loop}): its traceback is in the log,"
            " and it is tried again by itself",
            again_at=self.clock() + pause,
            streak=streak,
            seen=seen,
        )
        while len(self._aside) > self.most:
            del self._aside[next(iter(self._aside))]
        return fault

    def __repr__(self) -> str:
        return f"<Quarantine of {self.loop}: {len(self._aside)} rows aside>"
