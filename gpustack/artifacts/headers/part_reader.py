"""Reads parts of the files of a listing, on this machine or at their source, with retries."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Protocol

import attrs
import trio

from gpustack.artifacts.disk import disk
from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.range_request import (
    SourceChanged,
    TransientError,
    final_error,
    first_byte,
    open_range,
)
from gpustack.errors import Unavailable
from gpustack.remote.http import HttpClient, RemoteConnectionError, RemoteTimeout, shown

_TRIES = 4


class PartReader(Protocol):
    """Where the bytes of a listing's files come from."""

    async def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        """The bytes of ``file`` from ``start`` up to ``end``, which is within it.

        Cancellable. Raises OSError for a local file, else what ``range_request.open_range`` raises, and Unavailable.
        """


@attrs.frozen
class LocalParts:
    """Files below a folder of this machine."""

    folder: Path

    async def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        return await disk.run(_read, self.folder / file.name, start, end, abandon=True)


def _read(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(end - start)
    if len(data) < end - start:
        raise OSError(errno.EIO, "it has become shorter while it was read")
    return data


@attrs.frozen
class RemoteParts:
    """Files that are fetched by ranges. A server without ranges is read from the start as far as needed."""

    client: HttpClient
    rng: random.Random

    async def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        if start == end:
            return b""
        for attempt in range(_TRIES):
            try:
                return await self._read_once(file, start, end)
            except SourceChanged as error:
                raise Unavailable(f"{file.name} has changed on {shown(file.url)}: try again") from error
            except (RemoteConnectionError, RemoteTimeout, TransientError) as error:
                if attempt == _TRIES - 1:
                    raise final_error(error) from error
                told = error.wait if isinstance(error, TransientError) else None
                await trio.sleep(
                    min(told, 10.0) if told is not None else self.rng.uniform(0.2, 0.5) * 2**attempt
                )
        raise AssertionError("unreachable")

    async def _read_once(self, file: RemoteFile, start: int, end: int) -> bytes:
        async with open_range(self.client, file, start, end) as incoming:
            skip = start - first_byte(incoming, file, start, end)
            data = bytearray()
            async for part in incoming.pieces():
                kept = part[skip:] if skip else part
                skip = max(skip - len(part), 0)
                data += kept[: end - start - len(data)]
                if len(data) == end - start:
                    return bytes(data)
        raise Unavailable(f"{shown(file.url)} sent less than announced")
