"""What a request body asks for: found by one scan, and sent on as it came but for one splice."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from gpustack.errors import BadRequest

_SPLICE = b'{"stream_options":{"include_usage":true},'


@attrs.frozen(kw_only=True)
class Ask:
    """The model by name, whether a stream is wanted, and the body to send.

    ``hide_usage``: the usage event of the stream was asked for by us and not by the client.
    """

    model: str
    stream: bool
    hide_usage: bool
    body: bytes = attrs.field(repr=False)


def read_ask(body: bytes) -> Ask:
    """Raises ``BadRequest`` with a sentence when the body is not a JSON object that names a model.

    A stream without ``stream_options`` gets them spliced in, so that its usage is counted; nothing else of the body
    is touched or encoded again.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest("We could not parse the JSON body of your request: it is not an object")
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("Missing 'model' field")
    stream = document.get("stream") is True
    if not stream:
        return Ask(model=model, stream=False, hide_usage=False, body=body)
    options = document.get("stream_options")
    if options is None:
        return Ask(model=model, stream=True, hide_usage=True, body=_with_usage(body, document))
    if not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object")
    if options.get("include_usage") is True:
        return Ask(model=model, stream=True, hide_usage=False, body=body)
    # Rare: options without usage. Then the object is written anew.
    document["stream_options"] = {**options, "include_usage": True}
    return Ask(model=model, stream=True, hide_usage=True, body=orjson.dumps(document))


def _with_usage(body: bytes, document: dict[str, Any]) -> bytes:
    if "stream_options" in document:
        # An explicit null: of two equal keys an engine may take either.
        document["stream_options"] = {"include_usage": True}
        return orjson.dumps(document)
    return _SPLICE + body[body.index(b"{") + 1 :]
