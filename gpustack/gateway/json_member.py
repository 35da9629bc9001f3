"""Finds the members of a JSON object in its bytes, without building anything of their values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

import orjson

from gpustack.errors import BadRequest

# Possessive, and an unterminated string reaches to the end of the text. Otherwise each quote in it would be tried as
# the beginning of a string, which takes an hour for a mebibyte of quotes.
STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
"""An escaped letter: with it a key can be written that does not look like itself."""
_OUTER: Final = re.compile(STRING + rb"|[{}\[\],:]", re.DOTALL)
_INNER: Final = re.compile(STRING + rb"|[{}\[\]]", re.DOTALL)
_OPENING: Final = b"{["
_CLOSING: Final = b"}]"
_SPACE: Final = b" \t\r\n"


def may_have(body: bytes, name: bytes) -> bool:
    """A quick test whether the body has a member of that name, even written with escapes. It errs only towards yes."""
    return name in body or ESCAPED_LETTER.search(body) is not None


def members(body: bytes) -> Iterator[tuple[str, int, int]]:
    """Key, start and end of the value of every member of the outermost object, in their order, repeated ones too.

    Right for every JSON object. In a text that is not JSON it stops somewhere, which does no harm: engines refuse it.
    Memory stays flat however deep or long the values are.
    """
    position = len(body) - len(body.lstrip(_SPACE))
    if body[position : position + 1] != b"{":
        return
    position += 1
    depth, start = 1, 0
    key: bytes | None = None
    while depth and (match := (_OUTER if depth == 1 else _INNER).search(body, position)):
        position = match.end()
        first = body[match.start()]
        if first in _OPENING:
            depth += 1
        elif first in _CLOSING:
            depth -= 1
        if depth > 1 or (depth == 1 and first in _CLOSING):
            continue
        if depth and first == 0x22 and not start:
            key = match.group()
        elif depth and first == 0x3A and not start:
            start = position
        elif first == 0x2C or not depth:
            if key is not None and start:
                yield _text(key), *_trimmed(body, start, match.start())
            key, start = None, 0


def raw_members(body: bytes, names: Collection[str]) -> dict[str, bytes]:
    """The values of these members as they are written. Raises ``BadRequest`` for one that is given twice."""
    found: dict[str, bytes] = {}
    for key, start, end in members(body):
        if key in names:
            if key in found:
                raise BadRequest(f"'{key}' is given twice")
            found[key] = body[start:end]
    return found


def whole_number(value: object, name: str) -> int | None:
    """The value, ``None`` for ``null``. Raises ``BadRequest``: some engines read a fraction or a text as a number."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise BadRequest(f"'{name}' must be a whole number")
    return value


def _trimmed(body: bytes, start: int, end: int) -> tuple[int, int]:
    value = body[start:end]
    return start + len(value) - len(value.lstrip(_SPACE)), end - len(value) + len(value.rstrip(_SPACE))


def _text(key: bytes) -> str:
    try:
        return str(orjson.loads(key))
    except orjson.JSONDecodeError:
        return ""
