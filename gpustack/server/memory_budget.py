"""Counts the bytes held in memory for callers, so that many large requests cannot take all of it."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final

import attrs

from gpustack.domain.access import NOBODY, Principal, Role
from gpustack.errors import Unavailable

_LEAST: Final = 512 << 20
_SHARE: Final = 4
"""One user holds at most this part of the budget."""
_SHARE_OF_ANYBODY: Final = 8
"""All callers without a key together hold at most this part."""
_FOR_MANAGEMENT: Final = 256 << 20

_Caller = tuple[Role, int | None]


def share_of_memory() -> int:
    """A quarter of this machine's memory, at least ``_LEAST``: bytes."""
    return max(_LEAST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)


@attrs.define(eq=False, repr=False)
class MemoryBudget:
    """Bytes that are held for callers now, and that may be. A body that comes in one piece is not counted."""

    most: int = attrs.field(factory=share_of_memory)
    now: int = 0
    by_caller: dict[_Caller, int] = attrs.field(factory=dict)
    """Bytes by caller; callers that hold nothing are not in it."""

    @classmethod
    def for_management(cls) -> MemoryBudget:
        """The budget of everything but inference: its bodies are small."""
        return cls(_FOR_MANAGEMENT)

    def hold(self, principal: Principal = NOBODY) -> MemoryReservation:
        """The reservation of one request: a context manager that gives back everything at its end."""
        return MemoryReservation(self, principal)

    def change(self, caller: _Caller, size: int) -> None:
        """A caller holds ``size`` bytes more (or fewer)."""
        self.now += size
        left = self.by_caller.pop(caller, 0) + size
        if left:
            self.by_caller[caller] = left

    def __repr__(self) -> str:
        return f"<MemoryBudget: {self.now} of {self.most} bytes held by {len(self.by_caller)} callers>"


class MemoryReservation:
    """What one request holds of the budget."""

    __slots__ = ("_budget", "_principal", "_size")

    def __init__(self, budget: MemoryBudget, principal: Principal) -> None:
        self._budget = budget
        self._principal = principal
        self._size = 0

    def take(self, size: int) -> None:
        """Hold ``size`` bytes more. Raises ``Unavailable`` when the budget or the caller's share has no room."""
        budget, caller = self._budget, self._caller
        share = budget.most // (_SHARE_OF_ANYBODY if caller[0] is Role.ANYBODY else _SHARE)
        if budget.now + size > budget.most or budget.by_caller.get(caller, 0) + size > share:
            raise Unavailable("Too many large requests are under way; try again in a moment", retry_after=5.0)
        budget.change(caller, size)
        self._size += size

    def belongs_to(self, principal: Principal) -> None:
        """The caller is known now: count what the request holds as theirs."""
        if self._size:
            self._budget.change(self._caller, -self._size)
        self._principal = principal
        if self._size:
            self._budget.change(self._caller, self._size)

    @property
    def _caller(self) -> _Caller:
        principal = self._principal
        return principal.role, principal.worker_id if principal.user_id is None else principal.user_id

    def __enter__(self) -> MemoryReservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._size:
            self._budget.change(self._caller, -self._size)
            self._size = 0
