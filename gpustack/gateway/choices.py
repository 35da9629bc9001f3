"""What a request used that has several answers, or several prompts, where an engine counts one of them only.

llama.cpp's ``usage`` is that of the first answer; vLLM's is the sum. A stream of llama.cpp tells the usage of each
answer, and they are summed (``event_usage.py``). A plain answer does not tell: what the other answers used is taken
here from what can be seen of them, and is never less than it was. To ask for one after the other instead would read
the prompt as often, and to count tokens by asking the engine again would miss what it does not show.
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
"""Tokens of an answer that leave no byte in its text: the one that ends it, and those around a tool call."""


@attrs.frozen
class RequestedChoices:
    """How many answers are asked for: ``times`` to each of ``prompts``.

    ``best_of``: so many may be made for each prompt, of which the best are shown. ``steered``: the client has a say
    in which tokens come, and might choose those that leave no text.
    """

    times: int
    prompts: int
    best_of: int = 1
    steered: bool = False
    stop: int = 0
    """Bytes of the longest text that may end an answer, and is then not in it."""

    @property
    def answers(self) -> int:
        return self.times * self.prompts


@attrs.define
class ChoicesMeter:
    """For a plain answer with several choices, which is looked at as a whole when it has come."""

    _several: RequestedChoices
    _bound: TokenBound
    _reserve: Callable[[int], None]
    """Asked for each piece that is kept. Raises ``Unavailable`` when there is no room for it."""
    _scan: UsageScanner = attrs.field(factory=UsageScanner)
    _kept: list[bytes] = attrs.field(factory=list)
    _size: int = 0
    _whole: bool = True

    def take(self, data: bytes) -> bytes:
        self._scan.feed(data)
        self._size += len(data)
        if self._whole:
            self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        try:
            if self._size > _MOST_KEPT:
                raise Unavailable(f"The answer is longer than {_MOST_KEPT} bytes")
            self._reserve(len(data))
        except Unavailable:  # then it goes on all the same, and counts as reserved
            self._whole = False
            self._kept.clear()
        else:
            self._kept.append(data)

    def rest(self) -> bytes:
        return b""

    def usage(self) -> TokenUsage | None:
        said = self._scan.found
        if said is None:
            return None
        try:
            document: Any = orjson.loads(b"".join(self._kept))
        except orjson.JSONDecodeError:
            document = None
        choices = document.get("choices") if isinstance(document, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            return self._reserved(said)
        return self._settled(said, choices, counts_one="timings" in document)

    def _settled(self, said: TokenUsage, choices: list[dict[str, Any]], *, counts_one: bool) -> TokenUsage:
        if not counts_one and said.completion >= sum(_text_bytes(choice) > 0 for choice in choices):
            # What was made and thrown away for the best of them is in no engine's sum.
            unseen = max(self._several.best_of * self._several.prompts - len(choices), 0)
            return TokenUsage(said.prompt, said.completion + unseen * self._longest(said), True)
        limit, steered = self._bound.answer, self._several.steered
        others = sum(
            _most_tokens(choice, limit, self._several.stop, steered=steered) for choice in choices[1:]
        )
        prompt = said.prompt if self._several.prompts == 1 else max(said.prompt, self._bound.prompt)
        return TokenUsage(prompt, said.completion + others, True)

    def _reserved(self, said: TokenUsage) -> TokenUsage:
        """An answer that was not kept or is not whole: what it may have used at most."""
        several = self._several
        answers = max(several.times, several.best_of) * several.prompts
        return TokenUsage(
            max(said.prompt, self._bound.prompt),
            max(said.completion, answers * self._longest(said)),
            True,
        )

    def _longest(self, said: TokenUsage) -> int:
        return max(said.completion, self._size) if self._bound.answer is None else self._bound.answer


def _most_tokens(choice: dict[str, Any], limit: int | None, stop: int, *, steered: bool) -> int:
    """The tokens of an answer, if they are told one by one or it came to its limit; else no fewer than they can be.

    A token stands for at least one byte of text, unless it is one that ends or marks something.
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
    """Bytes of all that an answer says: its text or message, with its reasoning and the tools it calls."""
    message = choice.get("message")
    said = [value for key, value in message.items() if key != "role"] if isinstance(message, dict) else []
    return sum(_bytes(value) for value in [choice.get("text"), *said] if value)


def _bytes(value: object) -> int:
    return len(value.encode("utf-8", "replace")) if isinstance(value, str) else len(json.dumps(value))
