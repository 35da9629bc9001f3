"""Counts what request bodies take of the memory, so that many large ones at once cannot take all of it."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final

import attrs

from gpustack.errors import Unavailable

_LEAST: Final = 512 << 20


def share_of_memory() -> int:
    """A quarter of this machine's memory: bytes."""
    return max(_LEAST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)


@attrs.define(eq=False)
class Held:
    """How many bytes of bodies are held now, and how many may be. What comes in one piece is small and not counted."""

    most: int = attrs.field(factory=share_of_memory)
    now: int = 0

    def hold(self) -> Hold:
        """What one request holds: a context, at whose end it holds nothing any more."""
        return Hold(self)


class Hold:
    """The part of one request."""

    __slots__ = ("_held", "_size")

    def __init__(self, held: Held) -> None:
        self._held = held
        self._size = 0

    def take(self, size: int) -> None:
        """So many bytes more. Raises ``Unavailable`` when there is no room for them."""
        held = self._held
        if held.now + size > held.most:
            raise Unavailable("Too many large requests are under way; try again in a moment", retry_after=5.0)
        held.now += size
        self._size += size

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.now -= self._size
        self._size = 0
