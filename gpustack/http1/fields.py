"""The lines of a message head, read strictly: what two programs could read differently is refused."""

from __future__ import annotations

from enum import Enum
from typing import Final

Headers = list[tuple[bytes, bytes]]

HEAD_LIMIT: Final = 64 * 1024
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TEXT: Final = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])


class Framing(Enum):
    """How the end of a body is found."""

    NONE = "none"
    LENGTH = "content_length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"


class HeadError(Exception):
    """A head that is refused: ``status`` to answer with, ``sentence`` for a person."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        self.sentence = sentence
        super().__init__(sentence)


class NeedMore:
    """The head is not complete yet."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NEED_MORE"


NEED_MORE: Final = NeedMore()


def start_of_head(data: bytes) -> int:
    """Where the start line begins: empty lines before it are passed over (RFC 9112, 2.2)."""
    start = 0
    while data.startswith(b"\r\n", start):
        start += 2
    return start


def end_of_head(data: bytes, start: int, limit: int = HEAD_LIMIT) -> int:
    """Where the blank line begins, or -1 when it has not come yet.

    Raises HeadError: 431 for a head longer than ``limit``, 400 for a line that ends in LF alone (found
    before the end has come, so that such a client gets an answer and not a timeout).
    """
    end = data.find(b"\r\n\r\n", start, limit + 4)
    region = data[start:end] if end >= 0 else data[start:limit]
    if region.count(b"\n") != region.count(b"\r\n"):
        raise HeadError(400, "A line of the request head ends in LF without CR.")
    if end < 0 and len(data) >= limit + 4:
        raise HeadError(431, f"The head of the message is larger than {limit} bytes.")
    return end


def split_head(block: bytes) -> tuple[bytes, Headers]:
    """The start line, and the fields with lower-case names in their order. Raises HeadError 400."""
    if block.translate(None, _TEXT):
        raise HeadError(400, "The message head holds a control character.")
    first, *lines = block.split(b"\r\n")
    if block.count(b"\r") != len(lines) or block.count(b"\n") != len(lines):
        raise HeadError(400, "The message head holds a bare CR or LF.")
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, TOKEN):
            raise HeadError(400, "A header line has no valid name.")
        headers.append((name.lower(), value.strip(b" \t")))
    return first, headers


def parse_length(value: bytes) -> int:
    """A Content-Length. Raises HeadError 400."""
    if not value.isdigit() or len(value) > 18:
        raise HeadError(400, "The Content-Length is not a number.")
    return int(value)


def tokens(value: bytes) -> set[bytes]:
    """The lower-case members of a comma-separated list."""
    return {token.strip(b" \t").lower() for token in value.split(b",")}
