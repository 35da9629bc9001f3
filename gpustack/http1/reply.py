"""Writing a response head: status lines, header lines that cannot be split, the framing we own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from itertools import chain
from typing import Final

Fields = Sequence[tuple[bytes, bytes]]

REQUEST_ID_FIELD: Final = b"x-request-id"
OWNED: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade"})
_KNOWN: Final[dict[tuple[tuple[bytes, bytes], ...], bytes]] = {}
_MOST_KNOWN: Final = 256
_SHORT: Final = 2048
"""Bytes of lines that are remembered."""
_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    return _LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def reason(status: int) -> str:
    return _LINES[status][13:-2].decode() if status in _LINES else "Unknown"


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
    lines = _KNOWN.get(key)
    if lines is None:
        lines = field_lines(headers)
        if len(lines) <= _SHORT:
            if len(_KNOWN) >= _MOST_KNOWN:
                _KNOWN.clear()
            _KNOWN[key] = lines
    return lines


def fault_body(status: int, sentence: str) -> bytes:
    """The JSON body of an error that the transport itself answers."""
    return json.dumps({"code": status, "reason": reason(status), "message": sentence}).encode()
