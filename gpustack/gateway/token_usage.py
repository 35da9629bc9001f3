"""Finds the usage in an engine's answer, wherever it stands and however the answer is cut into pieces."""

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
"""Places in one piece that are tried, from the last backwards: this bounds the cost of a piece full of false ones."""
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
    some engines in every event. A text cannot be mistaken for it, because quotes inside a string are escaped.
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
        # An object that is not complete yet is read again with the next piece; until then an earlier one counts.
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
    """From a usage object: prompt, else total; completion as given, else total less prompt.

    ``None`` where it has no such number. Prompt tokens read from a cache count: Anthropic lists them separately.
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
    """A plausible number of tokens, else ``None``: a wrong one would spoil the sums of a day."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None
