"""A file of the cache as another machine reads it: whole, or as far as it has come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.partial import PartialFile
from gpustack.nursery.limiter import threads

_reading = threads("files for workers", 2)
"""Few, since engines read their models from the same disk."""


_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


@attrs.define(eq=False)
class ArrivingFile:
    """A file that is being fetched: ``partial`` says which bytes are here, ``moved`` is told of more."""

    partial: PartialFile
    moved: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    ended: bool = False

    def end(self) -> None:
        """No more bytes will come: it is complete, or the fetch was given up."""
        self.ended = True
        self.moved.unpark_all()


@attrs.frozen(kw_only=True)
class SharedFile:
    """A file to read from; ``size`` in bytes is that of the whole. Open it with ``opened``."""

    path: Path
    size: int
    arriving: ArrivingFile | None = None

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the file, which stays good when it gets its final name. Raises OSError."""
        try:
            descriptor = os.open(self.path, _FLAGS)
        except FileNotFoundError:
            if self.arriving is None:
                raise
            descriptor = os.open(self.arriving.partial.target, _FLAGS)  # it has just become complete
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    async def available(self, at: int, *, within: float) -> int:
        """The offset up to which bytes from ``at`` on can be read; waits ``within`` seconds for the first of them.

        ``at`` itself when none came. Cancellable.
        """
        if self.arriving is None:
            return self.size
        with trio.move_on_after(within):
            while self._here(at) == at and not self.arriving.ended:
                await self.arriving.moved.park()
        return self._here(at)

    def _here(self, at: int) -> int:
        assert self.arriving is not None
        return self.arriving.partial.done.reach(at)

    async def read(self, descriptor: int, at: int, limit: int) -> bytes:
        """``limit`` bytes at the offset ``at``, fewer at the end of the file. Raises OSError."""
        return await _reading.run(os.pread, descriptor, limit, at)
