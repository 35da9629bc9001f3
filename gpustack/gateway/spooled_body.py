"""A long form on its way, in a temporary file: memory stays flat, and another replica can be sent it again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

import attrs

from gpustack.errors import PayloadTooLarge, Unavailable
from gpustack.gateway.form import FormScanner
from gpustack.gateway.request import InferenceRequest
from gpustack.http1.exchange import Exchange
from gpustack.nursery.limiter import ThreadLimiter
from gpustack.server.memory_budget import MemoryReservation

IN_MEMORY: Final = 1 << 20
"""Bytes of a form that are kept in memory; a longer one goes to the disk."""
_WRITTEN: Final = 256 << 10
_READ: Final = 256 << 10
_SPARE: Final = 256 << 20
"""Bytes of the disk that forms leave free: the database and the logs may lie on it too."""


def free_bytes(folder: Path) -> int:
    """The bytes that are free on the disk of ``folder``. Blocking. Raises ``OSError``."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@attrs.frozen
class SpooledBody:
    """The bytes of a body in an unnamed file, which only we can read and which is gone when it is closed."""

    size: int
    _file: IO[bytes] = attrs.field(repr=False)
    _threads: ThreadLimiter = attrs.field(repr=False)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, from the beginning; as often as it is asked for."""
        position = 0
        while position < self.size:
            piece = await self._threads.run(os.pread, self._file.fileno(), _READ, position)
            position += len(piece)
            yield piece


@attrs.frozen
class HeldBody:
    """What one request holds: bytes in memory, bytes on the disk (``room``), and files that are closed at its end."""

    memory: MemoryReservation
    room: MemoryReservation
    opened: ExitStack


@attrs.frozen(kw_only=True)
class FormReader:
    """Reads forms as they come. ``folder`` is where long ones are kept, ``free`` tells the free bytes of its disk."""

    folder: Path | None
    threads: ThreadLimiter
    free: Callable[[Path], int] = free_bytes

    async def read(self, exchange: Exchange, limit: int, held: HeldBody) -> InferenceRequest:
        """What a form asks for, with its body: in memory, or in a file.

        Raises ``BadRequest``, ``PayloadTooLarge``, ``Unavailable`` when the disk
        has no room, and what reading raises.
        """
        length = exchange.head.content_length
        if length is not None and length > limit:
            raise _too_large(limit)
        scanner = FormScanner(exchange.head.headers)
        unwritten, size = bytearray(), 0
        file: IO[bytes] | None = None
        while piece := await exchange.next_chunk():
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            scanner.feed(piece)
            unwritten += piece
            if file is None and size <= IN_MEMORY:
                held.memory.take(len(piece))
            elif file is None:
                file = held.opened.enter_context(await self._open())
            if file is not None and len(unwritten) >= _WRITTEN:
                await self._write(file, unwritten, held.room)
        if file is None:
            return attrs.evolve(scanner.request(), body=bytes(unwritten))
        await self._write(file, unwritten, held.room)
        return attrs.evolve(scanner.request(), file=SpooledBody(size, file, self.threads))

    async def _open(self) -> IO[bytes]:
        try:
            return await self.threads.run(self._opened)
        except OSError as error:
            raise _no_room(error) from error

    async def _write(self, file: IO[bytes], unwritten: bytearray, room: MemoryReservation) -> None:
        room.take(len(unwritten))
        try:
            await self.threads.run(self._write_all, file, bytes(unwritten))
        except OSError as error:
            raise _no_room(error) from error
        unwritten.clear()

    def _opened(self) -> IO[bytes]:
        self._require_room(0)
        return tempfile.TemporaryFile(dir=self.folder, buffering=0)

    def _write_all(self, file: IO[bytes], content: bytes) -> None:
        self._require_room(len(content))
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]

    def _require_room(self, size: int) -> None:
        """Raises ``Unavailable`` where ``size`` bytes more would leave too little. Asked at each write: it costs
        microseconds, and others fill the disk as well."""
        if self.free(self.folder or Path(tempfile.gettempdir())) < _SPARE + size:
            raise Unavailable("The disk of the server has no room for the file", retry_after=30.0)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {limit} bytes.")


def _no_room(error: OSError) -> Unavailable:
    return Unavailable(f"The file cannot be kept while it is passed on: {error.strerror}", retry_after=30.0)
