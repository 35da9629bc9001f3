"""What a request body asks for: found by one scan, and sent on as it came but for one splice."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import attrs
import orjson

from gpustack.errors import BadRequest
from gpustack.gateway.choices import RequestedChoices
from gpustack.gateway.json_member import ESCAPED_LETTER, members
from gpustack.gateway.media import takes_long
from gpustack.gateway.token_bound import prompts_in

LARGE: Final = 1 << 20
"""Bytes from which a body is no longer parsed as a whole: what its values would take in memory is not bounded by
its size. Reading the ask of a large body may take tens of milliseconds: do it in a thread."""
LONG: Final = 64 << 10
"""Bytes from which going through the members of a body takes so long that others would feel it: do it in a thread."""

_TIMES: Final = ("n", "n_cmpl")
_SEVERAL: Final = (*_TIMES, "best_of", "prompt")
_KEYS: Final = (b'"model"', b'"stream"', b'"stream_options"')
_ALL_KEYS: Final = (*_KEYS, b'"n"', b'"n_cmpl"', b'"best_of"')
_OURS: Final = frozenset({"model", "stream", "stream_options", "stop", *_SEVERAL})
_SPLICE: Final = b'{"stream_options":{"include_usage":true},'
_STEERING: Final = (b'"logit_bias"', b'"grammar"')
_UNREADABLE: Final = "We could not parse the JSON body of your request"
_LONGEST_NAME: Final = 1024


@attrs.frozen(kw_only=True)
class InferenceRequest:
    """The model by name, whether a stream is wanted, and the body to send.

    ``hide_usage``: the usage event of the stream was asked for by us and not by the client. ``several``: how many
    answers are asked for, where it is more than one.
    """

    model: str
    stream: bool
    hide_usage: bool
    body: bytes = attrs.field(repr=False)
    several: RequestedChoices | None = None


def read_inference_request(body: bytes, *, splices: bool = True, single: bool = False) -> InferenceRequest:
    """Raises ``BadRequest`` with a sentence when the body is not a JSON object that names a model once.

    A stream that does not ask for its usage is made to; nothing else of the body is touched or encoded again.
    What a gateway and an engine might read differently (``model`` twice, ``"stream": "yes"``) is refused: the
    engine must not answer for another model, or another way, than was counted. Engines take the last of two
    equal keys today, but nothing obliges them to. ``splices`` is false for routes that know no
    ``stream_options``, ``single`` true for those that know no ``n``.
    """
    found = _fields(body)
    model = model_named(found.get("model"))
    stream = _flag(found, "stream", "stream")
    if single and _several(found, body) is not None:
        raise BadRequest("This API gives one answer to a request: 'n' must be 1")
    if not splices:
        return InferenceRequest(model=model, stream=False, hide_usage=False, body=body)
    several = _several(found, body)
    if not stream:
        return InferenceRequest(model=model, stream=False, hide_usage=False, body=body, several=several)
    if "stream_options" not in found:
        spliced = _SPLICE + body[body.index(b"{") + 1 :]
        return InferenceRequest(model=model, stream=True, hide_usage=True, body=spliced, several=several)
    options = found["stream_options"]
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object")
    if _flag(options, "include_usage", "stream_options.include_usage"):
        return InferenceRequest(model=model, stream=True, hide_usage=False, body=body, several=several)
    try:
        wanted = orjson.dumps({**options, "include_usage": True})
    except orjson.JSONEncodeError as error:  # it reads deeper than it writes
        raise BadRequest(f"'stream_options' cannot be sent on: {error}") from error
    start, end = next((start, end) for key, start, end in members(body) if key == "stream_options")
    spliced = body[:start] + wanted + body[end:]
    return InferenceRequest(model=model, stream=True, hide_usage=True, body=spliced, several=several)


def is_slow(body: bytes) -> bool:
    """Whether reading the ask of a long body may take so long that it belongs in a thread: rarely so."""
    return (
        len(body) > LARGE or b'"stream_options"' in body or takes_long(body) or _may_repeat(body, _ALL_KEYS)
    )


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
        if b"\0" in body:
            # No JSON in UTF-8 has one. Some engines read UTF-16 too, in which other members stand than those seen here.
            raise BadRequest(f"{_UNREADABLE}: it is not UTF-8")
        return _members(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{_UNREADABLE}: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest(f"{_UNREADABLE}: it is not an object")
    several = not document.keys().isdisjoint(_SEVERAL)
    if _may_repeat(body, _ALL_KEYS if several else _KEYS):
        _members(body)
    return document


def _may_repeat(body: bytes, keys: Collection[bytes]) -> bool:
    """Whether one of our keys might stand there more than once: rarely so, and then it is looked at closely."""
    for key in keys:  # as a loop: this is on the way of every request
        if body.count(key) > 1:
            return True
    return b"\\u00" in body and ESCAPED_LETTER.search(body) is not None


def _members(body: bytes) -> dict[str, Any]:
    """Our fields, without parsing the others."""
    found: dict[str, Any] = {}
    for key, start, end in members(body):
        if key not in _OURS:
            continue
        if key in found:
            raise BadRequest(f"'{key}' is given twice")
        try:
            # Lists in it may take a multiple of its size once they are parsed.
            found[key] = body[start:end] if key == "prompt" else orjson.loads(body[start:end])
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"{_UNREADABLE}: '{key}': {error}") from error
    return found


def _several(found: dict[str, Any], body: bytes) -> RequestedChoices | None:
    if found.keys().isdisjoint(_SEVERAL):
        return None
    times = max(1, *[_number(found, name) for name in _TIMES])
    best_of, prompts = _number(found, "best_of"), _prompts(found.get("prompt"))
    if times == 1 and prompts == 1 and best_of <= 1:
        return None
    steered = any(name in body for name in _STEERING) or ESCAPED_LETTER.search(body) is not None
    return RequestedChoices(times, prompts, best_of, steered, _longest_stop(found.get("stop")))


def _longest_stop(stop: object) -> int:
    """Bytes of the longest text that ends an answer: engines take it out of the text, and had made it."""
    texts = stop if isinstance(stop, list) else [stop]
    return max((len(text.encode("utf-8", "replace")) for text in texts if isinstance(text, str)), default=0)


def _number(found: dict[str, Any], name: str) -> int:
    """As a whole number: some engines read a fraction, or a text, as one."""
    value = found.get(name)
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"'{name}' must be a whole number")
    return value


def _prompts(prompt: object) -> int:
    """No fewer than there are: texts, and lists of tokens, in a list."""
    if isinstance(prompt, bytes):
        return prompts_in(prompt)
    if not isinstance(prompt, list):
        return 1
    return max(1, sum(not isinstance(one, int) for one in prompt))


def _flag(fields: dict[str, Any], key: str, name: str) -> bool:
    value = fields.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadRequest(f"'{name}' must be true or false")
    return value
