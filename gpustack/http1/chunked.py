"""The chunked coding, strictly: decoded from pieces cut anywhere, encoded a chunk at a time."""

from __future__ import annotations

from typing import Final

from gpustack.http1.fields import HeadError, split_head

LAST_CHUNK: Final = b"0\r\n\r\n"
_HEX: Final = b"0123456789abcdefABCDEF"
_LINE_LIMIT: Final = 256
_TRAILER_LIMIT: Final = 16 * 1024


class ChunkError(Exception):
    """The chunked coding is broken: where the body ends cannot be known."""


def encode_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkDecoder:
    """Takes the bytes of a chunked body piece by piece; ``done`` once the last chunk and trailers are read.

    Trailers are read and dropped. ``rest`` holds what came after the body.
    """

    __slots__ = ("_buffer", "_left", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # bytes of the current chunk still to come, its final CRLF included
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``, possibly none yet. Raises ChunkError."""
        buffer = self._buffer + data if self._buffer else data
        position = 0
        pieces: list[bytes] = []
        while not self.done:
            if not self._left:
                position = _take_whole_chunks(buffer, position, pieces)
                if position == len(buffer):
                    break
            after = self._payload(buffer, position, pieces) if self._left else self._size(buffer, position)
            if after == position:
                break
            position = after
        if self.done:
            self.rest, self._buffer = buffer[position:], b""
        else:
            self._buffer = buffer[position:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _payload(self, buffer: bytes, position: int, pieces: list[bytes]) -> int:
        """Takes what has come of the current chunk; the position after it."""
        if self._left > 2:
            piece = buffer[position : position + self._left - 2]
            if piece:
                pieces.append(piece)
            self._left -= len(piece)
            return position + len(piece)
        ending = buffer[position : position + 2]
        if ending != b"\r\n"[: len(ending)]:
            raise ChunkError("a chunk is longer than it says")
        if len(ending) < 2:
            return position
        self._left = 0
        return position + 2

    def _size(self, buffer: bytes, position: int) -> int:
        """Takes the next chunk's size line, or the end of the body; the position after it."""
        end = _end_of_line(buffer, position)
        if end < 0:
            return position
        size = _chunk_size(buffer[position:end])
        if size:
            self._left = size + 2
            return end + 2
        after = _end_of_trailers(buffer, end)
        if after < 0:
            return position
        self.done = True
        return after


def _take_whole_chunks(buffer: bytes, position: int, pieces: list[bytes]) -> int:
    """Takes the chunks that are whole and written plainly, as engines send events; the position after them.

    All else (a part of a chunk, extensions, the last chunk, faults) is left to ``ChunkDecoder``.
    """
    while True:
        end = buffer.find(b"\r\n", position, position + 9)
        if end <= position:
            return position
        digits = buffer[position:end]
        if digits.translate(None, _HEX):
            return position
        after = end + 2 + int(digits, 16)
        if after == end + 2 or buffer[after : after + 2] != b"\r\n":
            return position
        pieces.append(buffer[end + 2 : after])
        position = after + 2


def _end_of_line(buffer: bytes, position: int) -> int:
    end = buffer.find(b"\r\n", position, position + _LINE_LIMIT)
    line = buffer[position:end] if end >= 0 else buffer[position : position + _LINE_LIMIT]
    if b"\n" in line:
        raise ChunkError("a chunk's size line ends in LF without CR")
    if end < 0 and len(buffer) - position >= _LINE_LIMIT:
        raise ChunkError("a chunk's size line is too long")
    return end


def _chunk_size(line: bytes) -> int:
    digits, _, extension = line.partition(b";")
    if extension:
        digits = digits.rstrip(b" \t")  # "bad whitespace" that RFC 9112, 7.1.1 asks to accept
    if not digits or len(digits) > 15 or digits.translate(None, _HEX) or b"\r" in extension:
        raise ChunkError("a chunk's size is not a hexadecimal number")
    return int(digits, 16)


def _end_of_trailers(buffer: bytes, end: int) -> int:
    """The position after the body, given where the last chunk's line ends; -1 when not all has come."""
    if buffer[end + 2 : end + 4] == b"\r\n":
        return end + 4
    stop = buffer.find(b"\r\n\r\n", end)
    if stop < 0:
        if len(buffer) - end > _TRAILER_LIMIT:
            raise ChunkError("the trailers are too long")
        return -1
    try:
        split_head(b"trailers" + buffer[end:stop])
    except HeadError as error:
        raise ChunkError("the trailers are malformed") from error
    return stop + 4
