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
_MOST_ANSWERS: Final = 4096
_LAST: Final = frozenset({"message_delta", "response.completed", "response.incomplete", "response.failed"})


@attrs.define
class ChoiceUsageReader:
    """For several choices: sums the usage of each, unless the engine sends the sum itself."""

    _requested: RequestedChoices
    _of_answers: dict[int | str, TokenUsage] = attrs.field(factory=dict)
    """By the index of the choice; numbered as they come where they have no index."""
    _of_all: TokenUsage | None = None

    def read(self, events: bytes) -> None:
        for document in _telling(events):
            self._note(document)

    def _note(self, document: dict[str, Any]) -> None:
        said = document.get("usage")
        usage = usage_of(said) if isinstance(said, dict) else None
        if usage is None:
            return
        choices = document.get("choices")
        if not choices and "timings" not in document:
            self._of_all = usage
            return
        first = choices[0] if isinstance(choices, list) and choices else None
        index = first.get("index") if isinstance(first, dict) else None
        key = index if isinstance(index, int) else f"alone {len(self._of_answers)}"
        if key in self._of_answers or len(self._of_answers) < min(self._requested.answers, _MOST_ANSWERS):
            self._of_answers[key] = usage  # the last one said of it

    def found(self, events: int) -> TokenUsage | None:
        """The usage so far. Until it is known for all choices it is no less than one token for each event."""
        told = list(self._of_answers.values())
        if self._of_all is None and not told:
            return None
        # A prompt is counted once, however many answers there are to it.
        prompt = -(-sum(usage.prompt for usage in told) // self._requested.times)
        completion = sum(usage.completion for usage in told)
        if self._of_all is not None:
            return TokenUsage(self._of_all.prompt, max(self._of_all.completion, completion), True)
        if len(told) >= self._requested.answers:
            return TokenUsage(prompt, completion, True)
        return TokenUsage(max(usage.prompt for usage in told), max(completion, events), False)


@attrs.define
class MessageUsageReader:
    """For a message or a response: keeps the largest numbers, because the first event may tell the prompt's usage and
    the last one the answer's."""

    _prompt: int = 0
    _completion: int = 0
    _told: bool = False
    _ended: bool = False

    def read(self, events: bytes) -> None:
        for document in _telling(events):
            self._note(document)

    def _note(self, document: dict[str, Any]) -> None:
        places = [document, *(document[name] for name in _WITHIN if isinstance(document.get(name), dict))]
        for said in [place.get("usage") for place in places]:
            usage = usage_of(said) if isinstance(said, dict) else None
            if usage is not None:
                self._prompt = max(self._prompt, usage.prompt)
                self._completion = max(self._completion, usage.completion)
                self._told = True
                self._ended |= document.get("type") in _LAST

    def found(self, events: int) -> TokenUsage | None:
        """The usage so far. Before the last event it is no less than one token for each event."""
        if not self._told:
            return None
        completion = self._completion if self._ended else max(self._completion, events)
        return TokenUsage(self._prompt, completion, self._ended)


def _telling(events: bytes) -> Iterator[dict[str, Any]]:
    """The documents of the events that may have usage."""
    for event in events_of(events):
        if b'"usage"' in event and (document := document_of(event)) is not None:
            yield document
