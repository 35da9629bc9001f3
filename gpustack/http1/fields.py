"""The lines of a message head, read strictly: what two programs could read differently is refused."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Final

Headers = list[tuple[bytes, bytes]]

HEAD_LIMIT: Final = 64 * 1024
FIELDS_LIMIT: Final = 256
"""Header lines of a head: each costs more than its bytes, here and in all who get it."""
_EMPTY_LINES: Final = 4
"""That may come before a request: some clients send one too many after a body."""
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TEXT: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_SHORT: Final = 4096
"""Bytes of a head whose lines are remembered: that bounds what all that is remembered takes."""


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
    """Where the start line begins: a few empty lines before it are passed over (RFC 9112, 2.2).

    Raises HeadError 400 for many: they would all be looked at again with each piece that comes.
    """
    start = 0
    while data.startswith(b"\r\n", start):
        if start == 2 * _EMPTY_LINES:
            raise HeadError(400, "There are too many empty lines before the request.")
        start += 2
    return start


def end_of_head(data: bytes, start: int, limit: int = HEAD_LIMIT) -> int:
    """Where the blank line begins, or -1 when it has not come yet.

    Raises HeadError: 431 for a head longer than ``limit``, 400 for a line that ends in LF alone (found
    before the end has come, so that such a client gets an answer and not a timeout).
    """
    end = data.find(b"\r\n\r\n", start, limit + 4)
    if end >= 0:
        return end  # how its lines end is looked at when they are split
    region = data[start:limit]
    if region.count(b"\n") != region.count(b"\r\n"):
        raise HeadError(400, "A line of the request head ends in LF without CR.")
    if len(data) >= limit + 4:
        raise HeadError(431, f"The head of the message is larger than {limit} bytes.")
    return end


def split_head(block: bytes) -> tuple[bytes, Headers]:
    """The start line, and the fields with lower-case names in their order. Raises HeadError 400, 431."""
    first, *lines = block.split(b"\r\n")
    if len(lines) > FIELDS_LIMIT:
        raise HeadError(431, f"The head of the message has more than {FIELDS_LIMIT} lines.")
    _check_text(first)
    return first, list(map(_known_field if len(block) <= _SHORT else _field, lines))


def _field(line: bytes) -> tuple[bytes, bytes]:
    """The name in lower case, and the value. Raises HeadError 400."""
    _check_text(line)
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, TOKEN):
        raise HeadError(400, "A header line has no valid name.")
    return name.lower(), value.strip(b" \t")


# A program says almost the same with each request. What is refused is never remembered.
_known_field: Final = lru_cache(maxsize=512)(_field)


def _check_text(line: bytes) -> None:
    """Raises HeadError 400 for what no line may hold; a CR or LF in it is not part of a line's end."""
    wrong = line.translate(None, _TEXT)
    if wrong:
        raise HeadError(
            400,
            "The message head holds a bare CR or LF."
            if wrong.strip(b"\r\n") == b""
            else "The message head holds a control character.",
        )


def parse_length(value: bytes) -> int:
    """A Content-Length. Raises HeadError 400."""
    if not value.isdigit() or len(value) > 18:
        raise HeadError(400, "The Content-Length is not a number.")
    return int(value)


def tokens(value: bytes) -> set[bytes]:
    """The lower-case members of a comma-separated list."""
    return {token.strip(b" \t").lower() for token in value.split(b",")}
