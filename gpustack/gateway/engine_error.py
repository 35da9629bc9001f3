"""How an engine's error is told to a client: reworded where it would mislead, and in the error format of the path."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from gpustack.domain.error_format import ErrorFormat, anthropic_error
from gpustack.errors import BadRequest, GpustackError, NotFound
from gpustack.gateway.path import InferencePath

LONGEST: Final = 64 << 10
"""Bytes of an error's body that are looked at."""
_NO_SUCH_PATH: Final = re.compile(r"(?:file |404:? )?not found\.?", re.IGNORECASE)
_TOO_LONG: Final = re.compile(
    r"input \(([0-9]+) tokens\) is (?:too large|larger)(?:.{0,200}?size[^0-9]{0,60}?([0-9]+))?", re.DOTALL
)
_NO_LOGITS: Final = "does not support logits computation"
_MISSING: Final = re.compile(r"'[a-z_.]{1,40}' is required")
_BLIND: Final = re.compile(r"(image|audio|video) input is not supported")
_UNREADABLE: Final = ("Failed to parse messages: ", "Failed to parse tools: ", "Unknown reasoning format: ")
"""How llama.cpp begins its message about a request that it cannot read; it answers with 500."""
_NOT_SUPPORTED: Final = 501


def reworded(status: int, body: bytes, path: InferencePath, model_name: str) -> GpustackError | None:
    """The error to answer in its place; ``None`` where the engine's own is right.

    Clients try again after a 5xx, which is useless where the request itself cannot be answered.
    """
    message = _message(body)
    if status in (404, 405) and (message is None or _NO_SUCH_PATH.fullmatch(message.strip())):
        return NotFound(f"The engine of '{model_name}' does not answer {path.path}")
    if status < 500 or message is None:
        return None
    if status == _NOT_SUPPORTED or _NO_LOGITS in message:
        return BadRequest(f"'{model_name}' is not a model that answers {path.path}")
    if (found := _TOO_LONG.search(message)) is not None:
        most = f" at most {found[2]} of them" if found[2] else " fewer of them"
        return BadRequest(f"The input has {found[1]} tokens, and '{model_name}' takes{most} in one text")
    if (found := _BLIND.match(message)) is not None:
        why = "it is not such a model, or its projector is missing"
        return BadRequest(f"'{model_name}' takes no {found[1]} input: {why}")
    if _MISSING.fullmatch(message) or message.startswith(_UNREADABLE):
        return BadRequest(message)
    return None


def in_form(status: int, body: bytes, path: InferencePath) -> bytes:
    """The body in the error format of the path. Engines themselves use OpenAI's."""
    if path.error_format is not ErrorFormat.ANTHROPIC:
        return body
    message = _message(body)
    return body if message is None or _has_form(body) else orjson.dumps(anthropic_error(status, message))


def _has_form(body: bytes) -> bool:
    document: Any = orjson.loads(body)
    return isinstance(document, dict) and document.get("type") == "error"


def _message(body: bytes) -> str | None:
    """The message in it, in any of the formats that engines use."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    for name in ("error", "message", "detail"):
        if isinstance(document, dict) and name in document:
            document = document[name]
    return document if isinstance(document, str) else None
