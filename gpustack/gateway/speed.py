"""Adds to the usage of an answer how fast it came, in the fields that web UIs of GPUStack 0.7 read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import attrs
import orjson

from gpustack.gateway.sse import document_of, events_of
from gpustack.gateway.token_usage import TokenUsage, usage_of

_USAGE: Final = re.compile(rb'"usage"[ \t]*:[ \t]*\{(?=[ \t]*")')
_TIMINGS: Final = re.compile(rb'"timings"[ \t]*:[ \t]*(\{[^{}]{0,2000}\})')
_OURS: Final = b'"tokens_per_second"'
_LEAST: Final = 1e-6


@attrs.define
class Stopwatch:
    """Measures a stream, from its request to its first piece and to the event that has its usage."""

    _began: float
    _now: Callable[[], float]
    _first: float | None = None

    def begin(self) -> None:
        """A piece has come."""
        if self._first is None:
            self._first = self._now()

    def with_speed(self, events: bytes) -> bytes:
        """The events, with the speed added to the one that has the usage of a finished answer."""
        return b"".join([self._with_speed(event) for event in events_of(events)])

    def _with_speed(self, event: bytes) -> bytes:
        usage = _usage_at_end(event)
        if usage is None or self._first is None or _OURS in event:
            return event
        each = max(self._now() - self._first, _LEAST) / max(usage.completion, 1)
        return _spliced(event, self._first - self._began, each)


def with_engine_speed(body: bytes) -> bytes:
    """A plain answer with the speed that its engine measured. An answer in one piece cannot be measured here."""
    found = _TIMINGS.search(body)
    if found is None or _OURS in body:
        return body
    try:
        timings: dict[str, Any] = orjson.loads(found[1])
    except orjson.JSONDecodeError:
        return body
    first, each = timings.get("prompt_ms"), timings.get("predicted_per_token_ms")
    if not isinstance(first, int | float) or not isinstance(each, int | float) or each <= 0:
        return body
    return _spliced(body, first / 1000, each / 1000)


def _usage_at_end(event: bytes) -> TokenUsage | None:
    """Its usage, if no choice goes on after it."""
    document = (document_of(event) if b'"usage"' in event else None) or {}
    usage, choices = document.get("usage"), document.get("choices")
    if not isinstance(usage, dict) or not isinstance(choices, list):
        return None
    ended = all(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices)
    return usage_of(usage) if ended else None


def _spliced(text: bytes, first: float, each: float) -> bytes:
    """With seconds to the first token, and for each token after it."""
    fields = b'"time_to_first_token_ms":%.2f,"time_per_output_token_ms":%.2f,"tokens_per_second":%.2f,' % (
        first * 1000,
        each * 1000,
        1 / each,
    )
    # The last one: an earlier one may be part of a text that a model or a tool wrote.
    places = list(_USAGE.finditer(text))
    return text[: places[-1].end()] + fields + text[places[-1].end() :] if places else text
