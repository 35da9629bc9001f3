"""What a request body asks for: found by one scan, and sent on as it came but for one splice."""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
import orjson

from gpustack.errors import BadRequest
from gpustack.gateway.member import members

LARGE: Final = 1 << 20
"""Bytes from which a body is no longer parsed as a whole: what its values would take in memory is not bounded by
its size. Reading the ask of a large body may take tens of milliseconds: do it in a thread."""
LONG: Final = 64 << 10
"""Bytes from which going through the members of a body takes so long that others would feel it: do it in a thread."""

_OURS: Final = frozenset({"model", "stream", "stream_options"})
_SPLICE: Final = b'{"stream_options":{"include_usage":true},'
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
_UNREADABLE: Final = "We could not parse the JSON body of your request"
_LONGEST_NAME: Final = 1024


@attrs.frozen(kw_only=True)
class Ask:
    """The model by name, whether a stream is wanted, and the body to send.

    ``hide_usage``: the usage event of the stream was asked for by us and not by the client.
    """

    model: str
    stream: bool
    hide_usage: bool
    body: bytes = attrs.field(repr=False)


def read_ask(body: bytes, *, streams: bool = True) -> Ask:
    """Raises ``BadRequest`` with a sentence when the body is not a JSON object that names a model once.

    A stream that does not ask for its usage is made to; nothing else of the body is touched or encoded again.
    What a gateway and an engine might read differently (``model`` twice, ``"stream": "yes"``) is refused: the
    engine must not answer for another model, or another way, than was counted. Engines take the last of two
    equal keys today, but nothing obliges them to. ``streams`` is false for routes that know no streams.
    """
    found = _fields(body)
    model = model_named(found.get("model"))
    stream = _flag(found, "stream", "stream")
    if not stream or not streams:
        return Ask(model=model, stream=False, hide_usage=False, body=body)
    if "stream_options" not in found:
        spliced = _SPLICE + body[body.index(b"{") + 1 :]
        return Ask(model=model, stream=True, hide_usage=True, body=spliced)
    options = found["stream_options"]
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object")
    if _flag(options, "include_usage", "stream_options.include_usage"):
        return Ask(model=model, stream=True, hide_usage=False, body=body)
    try:
        wanted = orjson.dumps({**options, "include_usage": True})
    except orjson.JSONEncodeError as error:  # it reads deeper than it writes
        raise BadRequest(f"'stream_options' cannot be sent on: {error}") from error
    start, end = next((start, end) for key, start, end in members(body) if key == "stream_options")
    return Ask(model=model, stream=True, hide_usage=True, body=body[:start] + wanted + body[end:])


def is_slow(body: bytes) -> bool:
    """Whether reading the ask of a long body may take so long that it belongs in a thread: rarely so."""
    return len(body) > LARGE or b'"stream_options"' in body or _may_repeat(body)


def model_named(model: object) -> str:
    """The name of the model that was asked for. Raises ``BadRequest``."""
    if model is None or model == "":
        raise BadRequest("Missing 'model' field")
    if not isinstance(model, str):
        raise BadRequest("'model' must be a string")
    if len(model) > _LONGEST_NAME:
        raise BadRequest(f"'model' is longer than {_LONGEST_NAME} characters")
    return model


def _fields(body: bytes) -> dict[str, Any]:
    """Our fields of the body, which no other reader of it can find twice."""
    if len(body) > LARGE:
        return _members(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{_UNREADABLE}: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest(f"{_UNREADABLE}: it is not an object")
    if _may_repeat(body):
        _members(body)
    return document


def _may_repeat(body: bytes) -> bool:
    """Whether one of our keys might stand there more than once: rarely so, and then it is looked at closely."""
    return (
        body.count(b'"model"') > 1
        or body.count(b'"stream"') > 1
        or body.count(b'"stream_options"') > 1
        or (b"\\u00" in body and _ESCAPED_LETTER.search(body) is not None)
    )


def _members(body: bytes) -> dict[str, Any]:
    """Our fields, without parsing the others."""
    found: dict[str, Any] = {}
    for key, start, end in members(body):
        if key not in _OURS:
            continue
        if key in found:
            raise BadRequest(f"'{key}' is given twice")
        try:
            found[key] = orjson.loads(body[start:end])
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"{_UNREADABLE}: '{key}': {error}") from error
    return found


def _flag(fields: dict[str, Any], key: str, name: str) -> bool:
    value = fields.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadRequest(f"'{name}' must be true or false")
    return value
