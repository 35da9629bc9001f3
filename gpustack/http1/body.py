"""Reads the body of one message from a stream, whichever way its end is marked."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from gpustack.http1.chunked import ChunkDecoder
from gpustack.http1.fields import Framing

if TYPE_CHECKING:
    from gpustack.http1.stream import Stream


class TruncatedBody(Exception):
    """The other side closed before the end of a body."""


class ReadBuffer:
    """A stream and the bytes read from it that nobody has consumed yet."""

    __slots__ = ("data", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""

    def pop(self) -> bytes:
        """Takes out what was read ahead, maybe nothing."""
        data, self.data = self.data, b""
        return data


class Body:
    """The body of one message; bytes that follow it stay in the read buffer."""

    __slots__ = ("_decoder", "_framing", "_left", "_read_buffer", "done")

    def __init__(self, read_buffer: ReadBuffer, framing: Framing, length: int | None) -> None:
        self._read_buffer = read_buffer
        self._framing = framing
        self._left = length or 0
        self._decoder = ChunkDecoder() if framing is Framing.CHUNKED else None
        self.done = framing is Framing.NONE

    @property
    def buffered(self) -> bool:
        """Whether the rest of it is in the read buffer already. For a chunked body this is not known, and false."""
        return self.done or (self._framing is Framing.LENGTH and len(self._read_buffer.data) >= self._left)

    def take_whole(self) -> bytes | None:
        """All of it, if its length is known and all of it has come already."""
        buffer, left = self._read_buffer.data, self._left
        if self.done or self._framing is not Framing.LENGTH or len(buffer) < left:
            return None
        self._read_buffer.data = buffer[left:]
        self._left = 0
        self.done = True
        return buffer[:left]

    async def next(self, until: float = inf) -> bytes:
        """The next piece, never empty but at the end. Raises TruncatedBody, ChunkError, StreamTimeout,
        OSError."""
        while not self.done:
            data = self._read_buffer.pop() or await self._read_buffer.stream.recv(until)
            if not data:
                if self._framing is not Framing.UNTIL_CLOSE:
                    raise TruncatedBody
                self.done = True
                return b""
            data = self._decode(data)
            if data:
                return data
        return b""

    def _decode(self, data: bytes) -> bytes:
        if self._decoder is not None:
            data = self._decoder.feed(data)
            if self._decoder.done:
                self.done = True
                self._read_buffer.data = self._decoder.rest
            return data
        if self._framing is Framing.LENGTH:
            if len(data) > self._left:
                self._read_buffer.data = data[self._left :]
                data = data[: self._left]
            self._left -= len(data)
            self.done = not self._left
        return data
