"""Sets aside rows whose handling raised an unexpected exception, so that the loop serves the other rows."""

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
"""Characters of an exception that are compared to find out whether it is the same again."""
MOST = 1000
"""Rows remembered by each loop. Beyond that the oldest are forgotten, and tried again too early."""


@attrs.frozen(kw_only=True)
class RowFault:
    """The last fault of a row. ``sentence`` may be shown to users: it does not contain the text of the exception,
    which may hold a secret. The log has that, redacted."""

    sentence: str
    again_at: float
    """When it is tried again, by the clock of the loop."""
    streak: int
    """How many times in a row it failed."""
    seen: str


@attrs.define(eq=False)
class RowAttempt:
    """A context manager around the handling of one row; ``fault`` is set when the block failed."""

    _quarantine: Quarantine
    _row: Hashable
    _whole: bool = True
    fault: RowFault | None = None

    def __enter__(self) -> RowAttempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        # Unexpected exceptions, exception groups included. Cancellation, also in a group with failures, is not an
        # Exception and passes.
        if isinstance(error, Exception) and not isinstance(error, self._quarantine.passing):
            self.fault = self._quarantine._set_aside(self._row, error)
            return True
        if error is None and self._whole:
            self._quarantine.forget(self._row)
        return False


@attrs.define(eq=False, repr=False)
class Quarantine:
    """Handles the unexpected exceptions of the rows of one loop.

    Such an exception is logged with its traceback (again only when it differs), its row is left out for a time that
    grows with each failure in a row, and the loop goes on. Exceptions of the classes in ``passing`` concern all rows
    and are raised, and so is everything outside the blocks.
    """

    loop: str
    """What the log calls the loop."""
    passing: tuple[type[Exception], ...] = ()
    clock: Callable[[], float] = trio.current_time
    back_off: RestartPolicy = BACK_OFF
    most: int = MOST
    _aside: dict[Hashable, RowFault] = attrs.field(factory=dict)

    def row(self, row: Hashable) -> RowAttempt:
        """A block whose exception is the fault of ``row``. A block that succeeds resets the row's pause."""
        return RowAttempt(self, row)

    def step(self, row: Hashable) -> RowAttempt:
        """The same for a part of the handling of ``row``: its success resets nothing yet."""
        return RowAttempt(self, row, whole=False)

    def holds(self, row: Hashable) -> bool:
        """Whether the row has to be left out now."""
        fault = self._aside.get(row)
        return fault is not None and self.clock() < fault.again_at

    def fault_of(self, row: Hashable) -> RowFault | None:
        """The last fault of the row, if it has not succeeded since."""
        return self._aside.get(row)

    def due_in(self) -> float:
        """Seconds until a row that is set aside has to be tried again; infinite when there is none.

        At least 0.1, so that a loop that does not reach the row does not spin.
        """
        if not self._aside:
            return math.inf
        return max(min(fault.again_at for fault in self._aside.values()) - self.clock(), _REST)

    def is_due(self) -> bool:
        """Whether the pause of some row that was set aside is over."""
        return any(self.clock() >= fault.again_at for fault in self._aside.values())

    def keep_only(self, rows: Collection[Hashable]) -> None:
        """Forget all rows but these; the others do not exist any more."""
        if self._aside:
            self._aside = {row: fault for row, fault in self._aside.items() if row in rows}

    def forget(self, row: Hashable) -> None:
        """Forget the row, because it was deleted, or changed so that it should be tried at once."""
        self._aside.pop(row, None)

    async def together(
        self, rows: Mapping[K, V], act: Callable[[Mapping[K, V]], Awaitable[T]]
    ) -> list[tuple[Mapping[K, V], T]]:
        """Call ``act`` with all rows, or, if that fails, with each row alone. Returns rows and result of each call
        that succeeded.

        Rows that are set aside are left out. ``act`` must have no effect when it raises.
        """
        due = {row: value for row, value in rows.items() if not self.holds(row)}
        if len(due) > 1:
            try:
                answer = await act(due)
            except self.passing:
                raise
            except Exception as error:  # which row it is, is found out below
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
