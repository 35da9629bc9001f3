"""Returns freed memory to the system; the C library alone would keep it."""

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
"""Bytes that must have become free since the last trim, because a trim walks the whole heap."""
_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 128 << 10
"""Allocations from this size on get a mapping of their own, which goes back to the system when it is freed. glibc
starts with this value, but raises it up to 32 MiB when such a block is freed, and keeps blocks below it."""
_threads = threads("heap", 1)


def keep_large_apart() -> None:
    """Fix the size from which allocations get their own mapping. Does nothing where the C library is not glibc."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)


@attrs.define(eq=False, repr=False)
class HeapTrimmer:
    """A service: checks every ten seconds whether much memory has become free, and returns it to the system."""

    _free: Callable[[], int | None] = attrs.field(factory=lambda: free_bytes)
    """Bytes of the heap that are free, returned or not. Called in a thread, as ``_trim``."""
    _trim: Callable[[], object] = attrs.field(factory=lambda: trim)
    name: str = "heap"
    _known: int = 0
    """The least that was free since the last trim."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            await self.look()
            await trio.sleep(_LOOK_EVERY)

    async def look(self) -> None:
        """Trim if much more is free than at the last trim."""
        free = await _threads.run(self._free)
        if free is None:
            return
        if free >= self._known + _WORTH_IT:
            await _threads.run(self._trim)
            self._known = free
        else:
            self._known = min(self._known, free)

    def __repr__(self) -> str:
        return f"<HeapTrimmer: {self._known} bytes were free at the last look>"


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
    """Bytes of the heap that are free; ``None`` where the C library cannot tell."""
    libc = _glibc()
    return None if libc is None else int(libc.mallinfo2().fordblks)


def trim() -> None:
    """Return free memory to the system. Blocks, without holding the GIL."""
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
