"""Counts what request bodies take of the memory, so that many large ones at once cannot take all of it."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final

import attrs

from gpustack.domain.access import Principal, Role
from gpustack.errors import Unavailable

_LEAST: Final = 512 << 20
_SHARE: Final = 4
"""One user holds no more than this part of all: several are needed to shut the others out."""
_SHARE_OF_ANYBODY: Final = 8
"""The same of all who show no key, together."""

_Party = tuple[Role, int | None]


def share_of_memory() -> int:
    """A quarter of this machine's memory: bytes."""
    return max(_LEAST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)


@attrs.define(eq=False)
class Held:
    """How many bytes of bodies are held now, and how many may be. What comes in one piece is small and not counted."""

    most: int = attrs.field(factory=share_of_memory)
    now: int = 0
    by_party: dict[_Party, int] = attrs.field(factory=dict)
    """Who holds how much of it; who holds nothing is not in it."""

    def hold(self, principal: Principal) -> Hold:
        """What one request of ``principal`` holds: a context, at whose end it holds nothing any more."""
        return Hold(self, principal)

    def change(self, party: _Party, size: int) -> None:
        """A party holds so many bytes more, or fewer."""
        self.now += size
        left = self.by_party.pop(party, 0) + size
        if left:
            self.by_party[party] = left


class Hold:
    """The part of one request."""

    __slots__ = ("_held", "_principal", "_size")

    def __init__(self, held: Held, principal: Principal) -> None:
        self._held = held
        self._principal = principal
        self._size = 0

    def take(self, size: int) -> None:
        """So many bytes more. Raises ``Unavailable`` when there is no room for them."""
        held, party = self._held, self._party
        share = held.most // (_SHARE_OF_ANYBODY if party[0] is Role.ANYBODY else _SHARE)
        if held.now + size > held.most or held.by_party.get(party, 0) + size > share:
            raise Unavailable("Too many large requests are under way; try again in a moment", retry_after=5.0)
        held.change(party, size)
        self._size += size

    @property
    def _party(self) -> _Party:
        return self._principal.role, self._principal.user_id

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._size:
            self._held.change(self._party, -self._size)
            self._size = 0
