"""The lines of a message head, read and written strictly: what two programs could read differently is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from itertools import chain
from typing import Final

Headers = list[tuple[bytes, bytes]]
"""Header fields as they were read: names in lower case, in their order."""
Fields = Sequence[tuple[bytes, bytes]]
"""Header fields to be written."""

HEAD_LIMIT: Final = 64 * 1024
"""Bytes of a head."""
FIELDS_LIMIT: Final = 256
"""Header lines of a head: each costs more than its bytes, here and in all who get it."""
REQUEST_ID_FIELD: Final = b"x-request-id"
OWNED: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade"})
"""Headers that only the transport writes."""
HOP_BY_HOP: Final = OWNED | {b"proxy-connection", b"te", b"trailer", b"proxy-authenticate", b"expect"}
"""Headers that are for one connection alone and are never passed on (RFC 9110 7.6.1). This is the only such set; a
``Connection`` header may name more, which ``end_to_end`` leaves out too."""
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The characters of a header's name and of a method."""
_EMPTY_LINES: Final = 4
"""Empty lines that may come before a request: some clients send one too many after a body."""
_TEXT: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_SHORT: Final = 4096
"""Bytes of a head whose lines are remembered, which bounds the memory they take."""
_SHORT_BLOCK: Final = 2048
"""The same for a block of lines that is written."""
_BLOCKS: Final[dict[tuple[tuple[bytes, bytes], ...], bytes]] = {}
_MOST_BLOCKS: Final = 256
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


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

# --- reading


def start_of_head(data: bytes) -> int:
    """The offset of the start line: a few empty lines before it are skipped (RFC 9112, 2.2).

    Raises HeadError 400 for many, which would all be looked at again with each piece that comes.
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


# --- passing on


def end_to_end(headers: Headers, dropped: frozenset[bytes] = HOP_BY_HOP) -> Headers:
    """The headers that go through a proxy: without ``dropped``, and without those that ``Connection`` names.

    ``dropped`` are HOP_BY_HOP and what else must not pass.
    """
    for value in [value for name, value in headers if name == b"connection"]:
        dropped = dropped | tokens(value)
    return [field for field in headers if field[0] not in dropped]


# --- writing


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def reason(status: int) -> str:
    return _STATUS_LINES[status][13:-2].decode() if status in _STATUS_LINES else "Unknown"


def field_lines(headers: Fields, owned: frozenset[bytes] = OWNED) -> bytes:
    """Header lines. Raises ValueError for one that would break the head or that the transport owns."""
    names = [field[0].lower() for field in headers]
    if not owned.isdisjoint(names):
        name = next(name for name in names if name in owned)
        raise ValueError(f"the header {name.decode('latin-1')!r} is set by the transport")
    block = b"%b: %b\r\n" * len(headers) % tuple(chain.from_iterable(headers))
    count = len(headers)
    if block.count(b"\n") != count or block.count(b"\r") != count or b"\0" in block:
        raise ValueError("a header holds CR, LF or NUL")
    return block


def known_lines(headers: Fields) -> bytes:
    """As field_lines, remembered: what goes to upstreams is mostly what has gone there before."""
    key = tuple(headers)
    lines = _BLOCKS.get(key)
    if lines is None:
        lines = field_lines(headers)
        if len(lines) <= _SHORT_BLOCK:
            if len(_BLOCKS) >= _MOST_BLOCKS:
                _BLOCKS.clear()
            _BLOCKS[key] = lines
    return lines


def fault_body(status: int, sentence: str) -> bytes:
    """The JSON body of an error that the transport itself answers."""
    return json.dumps({"code": status, "reason": reason(status), "message": sentence}).encode()
