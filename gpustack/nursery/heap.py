"""Gives memory back to the system when much of it has been let go: the C library alone keeps it for itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Final

import attrs
import trio

from .limiter import threads

_LOOK_EVERY: Final = 10.0
_WORTH_IT: Final = 16 << 20
"""Bytes that must have become free since the last time: trimming walks through all that is."""
_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 128 << 10
"""Bytes of what is large: it gets memory of its own, which goes back with it. glibc begins so, but raises this with
what is let go, up to 32 MiB, and then keeps all of up to that size."""
_threads = threads("heap", 1)


def keep_large_apart() -> None:
    """Let what is large always have memory of its own. Nothing where the C library is not glibc."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)


@attrs.define(eq=False, repr=False)
class HeapTrimmer:
    """A service: looks from time to time whether much has become free, and gives that back."""

    _free: Callable[[], int | None] = attrs.field(factory=lambda: free_bytes)
    """How many bytes of the heap nobody uses, whether or not they have been given back. May block, as the other."""
    _trim: Callable[[], object] = attrs.field(factory=lambda: trim)
    name: str = "heap"
    _known: int = 0
    """The least that has been free since the last time."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            await self.look()
            await trio.sleep(_LOOK_EVERY)

    async def look(self) -> None:
        """Trim if much more is free than was."""
        free = await _threads.run(self._free)
        if free is None:
            return
        if free >= self._known + _WORTH_IT:
            await _threads.run(self._trim)
            self._known = free
        else:
            self._known = min(self._known, free)

    def __repr__(self) -> str:
        return f"<HeapTrim: {self._known} bytes were free at the last look>"


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def free_bytes() -> int | None:
    """Bytes of the heap that are free; ``None`` where the C library does not tell."""
    libc = _glibc()
    return None if libc is None else int(libc.mallinfo2().fordblks)


def trim() -> None:
    """Give back what is free. ctypes lets go of the interpreter meanwhile."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        _ = libc.malloc_trim, libc.mallopt
        libc.mallinfo2.restype = _Mallinfo2  # since glibc 2.33
    except (OSError, AttributeError):
        return None
    return libc
