"""Finds what an engine says it used, wherever in its answer that stands and however the answer is cut."""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import orjson

_KEY: Final = b'"usage"'
_SPACE: Final = b" \t\r\n"
_WINDOW: Final = 8192
_MOST: Final = 1 << 31
_TRIES: Final = 8
"""Places of one piece that are looked at, from the last: a piece full of what looks like it must not cost the more."""
_INPUTS: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_DECODER: Final = json.JSONDecoder()


@attrs.frozen
class TokenUsage:
    """Tokens of one request. ``measured`` is false when the engine did not say and events were counted instead."""

    prompt: int
    completion: int
    measured: bool


@attrs.define
class UsageScanner:
    """Is fed an answer piece by piece and keeps the last usage object in it, in flat memory.

    Looks for the key ``usage`` anywhere: llama.cpp writes it before the vectors of an embedding, vLLM after them,
    some write it in every event. Text cannot be taken for it: inside a string its quotes are escaped.
    """

    found: TokenUsage | None = None
    _carry: bytes = b""

    def feed(self, data: bytes) -> None:
        """Look at the next piece."""
        whole = self._carry + data
        last = at = whole.rfind(_KEY)
        if at < 0:
            self._carry = whole[-len(_KEY) + 1 :]
            return
        usage, complete = _usage_at(whole, at + len(_KEY))
        # What is not whole yet is read when it is; until then one before it counts.
        self._carry = whole[-len(_KEY) + 1 :] if complete else whole[last:]
        tries = 1
        while usage is None and tries < _TRIES and (at := whole.rfind(_KEY, 0, at)) >= 0:
            usage, _ = _usage_at(whole, at + len(_KEY))
            tries += 1
        if usage is not None:
            self.found = usage


def _usage_at(data: bytes, at: int) -> tuple[TokenUsage | None, bool]:
    """The usage whose key ends at ``at``, and whether more bytes could change the answer."""
    rest = data[at : at + _WINDOW]
    value = rest.lstrip(_SPACE)
    if value[:1] == b":":
        value = value[1:].lstrip(_SPACE)
        if value and value[:1] != b"{":
            return None, True
    elif value:
        return None, True
    try:
        document = _object(value)
    except (ValueError, RecursionError):
        return None, len(rest) == _WINDOW
    return usage_of(document), True


def _object(value: bytes) -> dict[str, Any]:
    """The object that ``value`` begins with. Raises ``ValueError``, ``RecursionError``."""
    try:
        simple: dict[str, Any] = orjson.loads(value[: value.find(b"}") + 1])  # mostly there is nothing within
    except orjson.JSONDecodeError:
        whole: dict[str, Any]
        whole, _ = _DECODER.raw_decode(value.decode("utf-8", "replace"))
        return whole
    return simple


def usage_of(usage: dict[str, Any]) -> TokenUsage | None:
    """As the product before us: prompt, else total; completion as given, else the difference.

    Prompt tokens that came out of a cache are in: Anthropic's form tells them apart from the others.
    """
    prompt = _count(usage.get("prompt_tokens"))
    completion = _count(usage.get("completion_tokens"))
    total = _count(usage.get("total_tokens"))
    if prompt is None and completion is None and ("input_tokens" in usage or "output_tokens" in usage):
        completion = _count(usage.get("output_tokens"))
        parts = [part for name in _INPUTS if (part := _count(usage.get(name))) is not None]
        prompt = sum(parts) if parts else None
    first = prompt if prompt is not None else total
    if first is None and completion is None:
        return None
    if completion is None:
        completion = max((total or 0) - (first or 0), 0)
    return TokenUsage(first or 0, completion, True)


def _count(value: object) -> int | None:
    """A number of tokens that can be true; anything else would spoil the sums of a day."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None
