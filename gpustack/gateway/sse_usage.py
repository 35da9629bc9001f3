"""Reads the usage of a stream where several events tell it: one for each choice, or one for each part of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from gpustack.gateway.choices import RequestedChoices
from gpustack.gateway.sse import document_of, events_of
from gpustack.gateway.token_usage import TokenUsage, usage_of

_WITHIN: Final = ("message", "response")
"""The members that hold the usage of Anthropic's ``message_start`` and OpenAI's ``response.completed``."""
_MAX_CHOICES: Final = 4096
_LAST: Final = frozenset({"message_delta", "response.completed", "response.incomplete", "response.failed"})


@attrs.define
class ChoiceUsageReader:
    """For several choices: sums the usage of each, unless the engine sends the sum itself."""

    _requested: RequestedChoices
    _of_choices: dict[int | str, TokenUsage] = attrs.field(factory=dict)
    """By the index of the choice; numbered as they come where they have no index."""
    _of_all: TokenUsage | None = None

    def read(self, events: bytes) -> None:
        for document in _documents_with_usage(events):
            self._note(document)

    def _note(self, document: dict[str, Any]) -> None:
        reported = document.get("usage")
        usage = usage_of(reported) if isinstance(reported, dict) else None
        if usage is None:
            return
        choices = document.get("choices")
        if not choices and "timings" not in document:
            self._of_all = usage
            return
        first = choices[0] if isinstance(choices, list) and choices else None
        index = first.get("index") if isinstance(first, dict) else None
        key = index if isinstance(index, int) else f"alone {len(self._of_choices)}"
        if key in self._of_choices or len(self._of_choices) < min(self._requested.answers, _MAX_CHOICES):
            self._of_choices[key] = usage  # the last one counts

    def found(self, events: int) -> TokenUsage | None:
        """The usage so far. Until it is known for all choices it is no less than one token for each event."""
        known = list(self._of_choices.values())
        if self._of_all is None and not known:
            return None
        # A prompt is counted once, however many choices there are.
        prompt = -(-sum(usage.prompt for usage in known) // self._requested.times)
        completion = sum(usage.completion for usage in known)
        if self._of_all is not None:
            return TokenUsage(self._of_all.prompt, max(self._of_all.completion, completion), True)
        if len(known) >= self._requested.answers:
            return TokenUsage(prompt, completion, True)
        return TokenUsage(max(usage.prompt for usage in known), max(completion, events), False)


@attrs.define
class MessageUsageReader:
    """For a message or a response: keeps the largest numbers, because the first event may tell the prompt's usage and
    the last one the answer's."""

    _prompt: int = 0
    _completion: int = 0
    _known: bool = False
    _ended: bool = False

    def read(self, events: bytes) -> None:
        for document in _documents_with_usage(events):
            self._note(document)

    def _note(self, document: dict[str, Any]) -> None:
        places = [document, *(document[name] for name in _WITHIN if isinstance(document.get(name), dict))]
        for reported in [place.get("usage") for place in places]:
            usage = usage_of(reported) if isinstance(reported, dict) else None
            if usage is not None:
                self._prompt = max(self._prompt, usage.prompt)
                self._completion = max(self._completion, usage.completion)
                self._known = True
                self._ended |= document.get("type") in _LAST

    def found(self, events: int) -> TokenUsage | None:
        """The usage so far. Before the last event it is no less than one token for each event."""
        if not self._known:
            return None
        completion = self._completion if self._ended else max(self._completion, events)
        return TokenUsage(self._prompt, completion, self._ended)


def _documents_with_usage(events: bytes) -> Iterator[dict[str, Any]]:
    """The documents of the events that may have usage."""
    for event in events_of(events):
        if b'"usage"' in event and (document := document_of(event)) is not None:
            yield document
