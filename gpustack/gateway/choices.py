"""The usage of a request for several choices, or with several prompts, where an engine counts one of them only.

The ``usage`` of llama.cpp is that of the first choice; vLLM's is the sum. In a stream llama.cpp tells the usage of each
choice, and they are summed (``sse_usage.py``). In a plain answer it does not: the tokens of the other choices are
estimated here from their texts, never too few. To request the choices one by one would read the prompt each time, and
to have the engine count the tokens of the texts would miss those that it does not show.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import attrs
import orjson

from gpustack.errors import Unavailable
from gpustack.gateway.token_bound import TokenBound
from gpustack.gateway.token_usage import TokenUsage, UsageScanner

_MOST_KEPT: Final = 4 << 20
_BEYOND_TEXT: Final = 8
"""Tokens of a choice that leave no byte in its text: the one that ends it, and those around a tool call."""


@attrs.frozen
class RequestedChoices:
    """How many choices a request asks for: ``times`` for each of ``prompts``.

    ``best_of``: so many may be generated for each prompt, of which the best are shown. ``steered``: the client
    influences which tokens are generated, and might choose some that leave no text.
    """

    times: int
    prompts: int
    best_of: int = 1
    steered: bool = False
    stop: int = 0
    """Bytes of the longest stop text, which ends a choice and is then left out of it."""

    @property
    def answers(self) -> int:
        return self.times * self.prompts


@attrs.define
class ChoicesMeter:
    """For a plain answer with several choices: keeps it, and reads it as a whole when it has come."""

    _requested: RequestedChoices
    _bound: TokenBound
    _reserve: Callable[[int], None]
    """Is called with the size of each piece that is kept. Raises ``Unavailable`` when there is no room for it."""
    _scanner: UsageScanner = attrs.field(factory=UsageScanner)
    _kept: list[bytes] = attrs.field(factory=list)
    _size: int = 0
    _whole: bool = True

    def take(self, data: bytes) -> bytes:
        self._scanner.feed(data)
        self._size += len(data)
        if self._whole:
            self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        try:
            if self._size > _MOST_KEPT:
                raise Unavailable(f"The answer is longer than {_MOST_KEPT} bytes")
            self._reserve(len(data))
        except Unavailable:  # the answer goes on all the same, and counts as much as was reserved
            self._whole = False
            self._kept.clear()
        else:
            self._kept.append(data)

    def rest(self) -> bytes:
        return b""

    def so_far(self) -> int:
        return 0

    def usage(self) -> TokenUsage | None:
        reported = self._scanner.found
        if reported is None:
            return None
        try:
            document: Any = orjson.loads(b"".join(self._kept))
        except orjson.JSONDecodeError:
            document = None
        choices = document.get("choices") if isinstance(document, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            return self._reserved(reported)
        return self._settled(reported, choices, counts_one="timings" in document)

    def _settled(
        self, reported: TokenUsage, choices: list[dict[str, Any]], *, counts_one: bool
    ) -> TokenUsage:
        if not counts_one and reported.completion >= sum(_text_bytes(choice) > 0 for choice in choices):
            # No engine's sum has the choices that were generated and thrown away for the best of them.
            unseen = max(self._requested.best_of * self._requested.prompts - len(choices), 0)
            return TokenUsage(reported.prompt, reported.completion + unseen * self._longest(reported), True)
        limit, steered = self._bound.answer, self._requested.steered
        others = sum(
            _most_tokens(choice, limit, self._requested.stop, steered=steered) for choice in choices[1:]
        )
        prompt = reported.prompt if self._requested.prompts == 1 else max(reported.prompt, self._bound.prompt)
        return TokenUsage(prompt, reported.completion + others, True)

    def _reserved(self, reported: TokenUsage) -> TokenUsage:
        """For an answer that was not kept or is not whole: the most that it may have used."""
        requested = self._requested
        answers = max(requested.times, requested.best_of) * requested.prompts
        return TokenUsage(
            max(reported.prompt, self._bound.prompt),
            max(reported.completion, answers * self._longest(reported)),
            True,
        )

    def _longest(self, reported: TokenUsage) -> int:
        return max(reported.completion, self._size) if self._bound.answer is None else self._bound.answer


def _most_tokens(choice: dict[str, Any], limit: int | None, stop: int, *, steered: bool) -> int:
    """The tokens of a choice: exact if it lists them or reached its limit, else the most that they can be.

    A token stands for at least one byte of text, unless it ends or marks something.
    """
    at_limit = choice.get("finish_reason") == "length"
    unseen = 0 if at_limit else stop
    counted = _counted(choice.get("logprobs"))
    if counted is None and limit is not None and (at_limit or steered):
        return limit
    most = _text_bytes(choice) + _BEYOND_TEXT if counted is None else counted + (not at_limit)
    return most + unseen if limit is None else min(most + unseen, limit)


def _counted(logprobs: object) -> int | None:
    if not isinstance(logprobs, dict):
        return None
    for name in ("content", "tokens"):
        tokens = logprobs.get(name)
        if isinstance(tokens, list) and tokens:
            return len(tokens)
    return None


def _text_bytes(choice: dict[str, Any]) -> int:
    """Bytes of all that a choice says: its text or message, with its reasoning and the tools it calls."""
    message = choice.get("message")
    texts = [value for key, value in message.items() if key != "role"] if isinstance(message, dict) else []
    return sum(_bytes(value) for value in [choice.get("text"), *texts] if value)


def _bytes(value: object) -> int:
    return len(value.encode("utf-8", "replace")) if isinstance(value, str) else len(json.dumps(value))
