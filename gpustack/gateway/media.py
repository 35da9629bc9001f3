"""Refuses addresses in a request that an engine would fetch: from inside our network, or from its own disk (SSRF)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs
import orjson

from gpustack.errors import BadRequest
from gpustack.gateway.json_member import ESCAPED_LETTER, STRING

ADDRESSES: Final = frozenset(
    {"image_url", "audio_url", "video_url", "file_url", "document_url", "media_url", "server_url"}
    | {"mask_url", "reference_url", "mcp_servers"}
)
"""Members whose text engines read as an address: only ``data:`` addresses pass."""
CONTENTS: Final = frozenset(
    {"image", "audio", "video", "images", "input_image", "ref_audio", "reference_audio"}
    | {"image_data", "audio_data", "video_data", "file_data"}
    | {"mask", "mask_image", "init_image", "input_reference"}
)
"""Members whose text is content to some engines and an address to others: what begins like an address is refused."""
_SOURCE: Final = "source"
"""Of images and documents in Anthropic's API: its ``url`` is an address."""
_NAMES: Final = ADDRESSES | CONTENTS | {_SOURCE}
_BY_BYTES: Final = {name.encode(): name for name in _NAMES}
_FREE: Final = frozenset({b"parameters", b"input_schema", b"schema", b"json_schema", b"arguments"})
"""Objects that describe what a tool takes, or an answer: nothing in them is content."""
_CALLS: Final = frozenset({b'"tool_use"', b'"server_tool_use"', b'"mcp_tool_use"'})
"""Kinds of blocks whose ``input`` is what a model wrote, for a tool of the client's."""
_MEMBER: Final = re.compile(
    # The lookahead halves the time: most quotes begin no such name, and every request is searched.
    rb'"(?=['
    + bytes(sorted({name[0] for name in _BY_BYTES}))
    + rb"])("
    + b"|".join(sorted(_BY_BYTES))
    + rb')"[ \t\r\n]*+:[ \t\r\n]*+(["\[{])'
)
_TOKEN: Final = re.compile(STRING + rb"|[{}\[\]]", re.DOTALL)
_COLON: Final = re.compile(rb"[ \t\r\n]*+:")
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
_FETCHED: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,31}://|file:")
_HALF_ESCAPE: Final = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
_BEGINNING: Final = 64
_FAULT: Final = (
    "'%s' holds an address, and nothing is fetched for a request: send the content itself, as a data: URL"
)


def refuse_addresses(body: bytes) -> None:
    """Raises ``BadRequest`` when a JSON body names something to be fetched. ``data:`` addresses pass.

    Inside a JSON string every quote has a backslash, so what looks like a member is one. The time is proportional to
    the body, and very short where it has no such member.
    """
    if ESCAPED_LETTER.search(body) is not None:
        _refuse_escaped_names(body)
    for found in _MEMBER.finditer(body):
        if found[2] != b'"' or _is_address(_BY_BYTES[found[1]], body, found.end()):
            _look_closely(body)
            return


def takes_long(body: bytes) -> bool:
    """Whether ``refuse_addresses`` may have to go through all of the body: do so in a thread for a long one."""
    return any(found[2] != b'"' for found in _MEMBER.finditer(body))


def refuse_address(name: str, value: bytes) -> None:
    """The same for a field of a form, or the beginning of a file in one. Raises ``BadRequest``."""
    name = name.partition("[")[0].lower()
    value = value.lstrip()
    if value[:5].lower() == b"data:":
        return
    if name in ADDRESSES or name == "url" or (name in CONTENTS and _FETCHED.match(value) is not None):
        raise BadRequest(_FAULT % name)


@attrs.define(eq=False)
class _Container:
    """A list or object that is open. ``name``: the member with content that it is in, if it is in one."""

    is_list: bool
    name: str | None
    free: bool
    caller: _Container | None
    """The object of which it is the ``input``, or lies in that."""
    key: bytes = b""
    calls: bool = False
    fault: str | None = None
    """What is wrong in its ``input``, unless it turns out to be a call of a tool."""


def _look_closely(body: bytes) -> None:
    """Go through all values and the containers they are in."""
    open_ones: list[_Container] = []
    position = 0
    while found := _TOKEN.search(body, position):
        start, position = found.span()
        token = body[start]
        if token in b"[{":
            open_ones.append(_opened(open_ones, is_list=token == 0x5B))
        elif not open_ones:
            return  # no JSON object: nobody reads it
        elif token in b"]}":
            _close(open_ones.pop())
        elif not open_ones[-1].is_list and (colon := _COLON.match(body, position)) is not None:
            open_ones[-1].key = body[start + 1 : position - 1]
            position = colon.end()
        else:
            _judge(open_ones[-1], body, start, position)


def _opened(around: Sequence[_Container], *, is_list: bool) -> _Container:
    if not around:
        return _Container(is_list, None, False, None)
    parent = around[-1]
    key = b"" if parent.is_list else parent.key
    # That of the outermost object is what the Responses API answers.
    caller = parent if key == b"input" and len(around) > 1 else parent.caller
    return _Container(is_list, _BY_BYTES.get(key, parent.name), parent.free or key in _FREE, caller)


def _close(one: _Container) -> None:
    if one.fault is None or one.calls:
        return
    _tell(one.caller, one.fault)


def _judge(one: _Container, body: bytes, start: int, end: int) -> None:
    """Check a text, in a list or of a member."""
    if one.free:
        return
    if not one.is_list and one.key == b"type":
        one.calls = body[start:end] in _CALLS
    if one.is_list:
        name = one.name
    elif one.key == b"url" and one.name is not None:
        name = "image_url"
    else:
        name = _BY_BYTES.get(one.key)
    if name is not None and _is_address(name, body, start + 1):
        _tell(one.caller, name if one.is_list else one.key.decode())


def _tell(caller: _Container | None, name: str) -> None:
    """Raises ``BadRequest``, unless it may be the input of a tool call: that is known when its object ends."""
    if caller is None:
        raise BadRequest(_FAULT % name)
    caller.fault = caller.fault or name


def _is_address(name: str, body: bytes, start: int) -> bool:
    """Whether the text that begins there is an address that an engine would fetch."""
    if name == _SOURCE:
        return False
    space = _SPACE.match(body, start)
    start = start if space is None else space.end()
    text, closed, _ = body[start : start + _BEGINNING].partition(b'"')
    if b"\\" in text:
        try:
            text = orjson.loads(b'"%b"' % _HALF_ESCAPE.sub(b"", text)).lstrip().encode()
        except orjson.JSONDecodeError:
            return True
    if text[:5].lower() == b"data:":
        return False
    return name in ADDRESSES or _FETCHED.match(text) is not None or not (text or closed)


def _refuse_escaped_names(body: bytes) -> None:
    """No client writes names so, but engines would read them."""
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
