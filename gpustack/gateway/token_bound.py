"""How many tokens a request may use at most, as its body and the model's context tell."""

from __future__ import annotations

import re
from typing import Final

import attrs
import orjson

from gpustack.domain.usage import Operation
from gpustack.errors import BadRequest
from gpustack.gateway.json_member import raw_members, whole_number

_COUNTED: Final = frozenset(
    {Operation.CHAT_COMPLETION, Operation.COMPLETION, Operation.EMBEDDING, Operation.RERANK}
)
"""What is measured in tokens of text. For images and speech nothing can be reserved; what their engines tell counts."""
_TEMPLATE: Final = 256
"""Tokens that a chat template may add beyond the bytes of JSON around the texts."""
_LONGEST: Final = frozenset(
    {"max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "n_predict"}
)
"""The members that limit the length of an answer. Engines differ in which they obey, so the largest counts."""
_TIMES: Final = frozenset({"n", "best_of", "n_cmpl"})
_OURS: Final = _LONGEST | _TIMES | {"prompt", "query"}
_NOT_TEXT: Final = re.compile(
    rb'"(?:image|image_url|image_embeds|input_image|input_audio|audio_url|video|video_url|file|multimodal_data|'
    rb'chat_template)"'
)
_ESCAPED_LETTER: Final = re.compile(rb"\\u00(?:[4-6]|7[0-9aA])")


@attrs.frozen
class TokenBound:
    """Tokens of the prompt, of all, and of each answer; ``None`` where nothing limits them."""

    prompt: int
    total: int | None
    answer: int | None = None


def bound_of(body: bytes, operation: Operation, context: int | None) -> TokenBound:
    """Raises ``BadRequest`` where the length of the answer is limited twice by one name, or not by a whole number.

    A token stands for at least one byte of text, so a text has no more tokens than bytes. That does not hold for
    images and sound, nor for a template of the client's: they may fill the ``context``, which is the number of tokens
    that a model takes for one answer, its prompt included.
    """
    if operation not in _COUNTED:
        return TokenBound(0, 0)
    given = raw_members(body, _OURS)
    if operation not in (Operation.COMPLETION, Operation.CHAT_COMPLETION):
        texts = max(body.count(b'"') // 2, 1)
        prompt = _prompt(body, texts, context)
        if prompt is not None:
            prompt += texts * len(given.get("query", b""))  # the engine reads it again with each document
        return TokenBound(len(body) if prompt is None else prompt, prompt)
    prompts = prompts_in(given.get("prompt", b"")) if operation is Operation.COMPLETION else 1
    prompt = _prompt(body, prompts, context)
    times = prompts * max([1, *(_number(given, name) or 1 for name in _TIMES if name in given)])
    whole = None if context is None else times * context
    lengths = [_number(given, name) for name in _LONGEST if name in given and given[name] != b"null"]
    known = [length for length in lengths if length is not None and length > 0]
    if prompt is None or not lengths or len(known) < len(lengths):
        total = whole
    else:
        total = prompt + times * max(known)
        total = total if whole is None else min(total, whole)
    answer = max(known) if lengths and len(known) == len(lengths) else None
    if context is not None:
        answer = context if answer is None else min(answer, context)
    return TokenBound(len(body) if prompt is None else prompt, total, answer)


def _prompt(body: bytes, prompts: int, context: int | None) -> int | None:
    if _NOT_TEXT.search(body) or _ESCAPED_LETTER.search(body):
        return None if context is None else prompts * context
    return len(body) + _TEMPLATE if context is None else min(len(body) + _TEMPLATE, prompts * context)


def _number(given: dict[str, bytes], name: str) -> int | None:
    try:
        return whole_number(orjson.loads(given[name]), name)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"'{name}' must be a whole number") from error


def prompts_in(value: bytes) -> int:
    """An upper bound of the prompts in a JSON value: the texts, or the lists of tokens, in a list."""
    if not value.startswith(b"["):
        return 1
    return max(value.count(b'"') // 2 + value.count(b"[") - 1, 1)
