"""Addresses in a request that an engine would fetch by itself: from inside our network, and from its own disk."""

from __future__ import annotations

import re
from typing import Final

import orjson

from gpustack.errors import BadRequest
from gpustack.gateway.member import ESCAPED_LETTER, STRING

ADDRESSES: Final = frozenset(
    {"image_url", "audio_url", "video_url", "file_url", "document_url", "media_url", "server_url"}
    | {"mask_url", "reference_url", "mcp_servers"}
)
"""Members whose text engines take for an address: only one that begins with ``data:`` passes."""
CONTENTS: Final = frozenset(
    {"image", "audio", "video", "images", "input_image", "ref_audio", "reference_audio"}
    | {"image_data", "audio_data", "video_data", "file_data"}
    | {"mask", "mask_image", "init_image", "input_reference"}
)
"""Members whose text is content to some engines and an address to others: what begins as an address does not pass."""
_SOURCE: Final = "source"
"""Of pictures and documents in Anthropic's API; it matters what its ``url`` is."""
_NAMES: Final = ADDRESSES | CONTENTS | {_SOURCE}
_MEMBER: Final = re.compile(
    rb'"(' + b"|".join(sorted(name.encode() for name in _NAMES)) + rb')"[ \t\r\n]*+:[ \t\r\n]*+(["\[{])'
)
_TOKEN: Final = re.compile(STRING + rb"|[{}\[\]]", re.DOTALL)
_COLON: Final = re.compile(rb"[ \t\r\n]*+:")
_VALUE: Final = re.compile(rb'[ \t\r\n]*+:[ \t\r\n]*+"')
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,31}:")
_BEGINNING: Final = 64


def refuse_addresses(body: bytes) -> None:
    """Raises ``BadRequest`` when a JSON body names something to be fetched. ``data:`` addresses pass.

    Within a string of JSON no quote stands without a backslash, so what looks like a member is one. It takes time in
    proportion to the body, and almost none where there is nothing of the kind.
    """
    if ESCAPED_LETTER.search(body) is not None:
        _refuse_escaped_names(body)
    seen = 0
    for found in _MEMBER.finditer(body):
        name, opening, start = found[1].decode(), found[2], found.start(2)
        if opening == b'"':
            _check(name, body, start + 1)
        elif start >= seen:  # what lies inside another has been looked at with it
            seen = _check_within(name, body, start)


def refuse_address(name: str, value: bytes) -> None:
    """The same for a field of a form. Raises ``BadRequest``."""
    name = name.partition("[")[0].lower()
    if name in CONTENTS or name in ADDRESSES or name == "url":
        _check("image", value + b'"', 0, shown=name)


def _check_within(name: str, body: bytes, start: int) -> int:
    """Look at a list or an object: at the texts in lists, and at what is called ``url``. Returns where it ends."""
    open_ones = bytearray()
    position = start
    while found := _TOKEN.search(body, position):
        position = found.end()
        token = body[found.start()]
        if token in b"[{":
            open_ones.append(token)
        elif token in b"]}":
            open_ones.pop()
            if not open_ones:
                break
        elif open_ones[-1:] == b"[":
            _check(name, body, found.start() + 1)
        elif found.group() == b'"url"' and (value := _VALUE.match(body, position)):
            _check("image_url", body, value.end(), shown="url")
            position = _end_of_data(body, value.end())
    return position


def _end_of_data(body: bytes, start: int) -> int:
    """Where to go on behind the text that starts there: megabytes as a rule, and without a backslash."""
    end = body.find(b'"', start)
    return end + 1 if end >= 0 and body[end - 1 : end] != b"\\" else start - 1


def _check(name: str, body: bytes, start: int, shown: str = "") -> None:
    if name == _SOURCE:
        return
    text = body[start : start + _BEGINNING].partition(b'"')[0].replace(b"\\/", b"/").lstrip()
    if text[:5].lower() == b"data:":
        return
    if name in ADDRESSES or b"\\" in text or _SCHEME.match(text) is not None:
        raise BadRequest(
            f"'{shown or name}' holds an address, and nothing is fetched for a request: send the content itself, "
            "as a data: URL"
        )


def _refuse_escaped_names(body: bytes) -> None:
    """Nobody writes them so, but engines would read them."""
    for found in _TOKEN.finditer(body):
        token = found.group()
        if ESCAPED_LETTER.search(token) is None or _COLON.match(body, found.end()) is None:
            continue
        try:
            name = orjson.loads(token)
        except orjson.JSONDecodeError:
            continue  # then the body is no JSON either
        if name in _NAMES or name == "url":
            raise BadRequest(f"The name of the field '{name}' is written with escapes")
