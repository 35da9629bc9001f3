"""Usage: counts per day, user, key, model and operation; and what has been drawn from budgets of tokens."""

from __future__ import annotations

from datetime import date
from enum import StrEnum

import attrs

from .record import Record, stored


class Operation(StrEnum):
    """The kinds of inference (the word that GPUStack 0.7 misspells for transcription is accepted, not sent)."""

    COMPLETION = "completion"
    CHAT_COMPLETION = "chat_completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    IMAGE_GENERATION = "image_generation"
    AUDIO_SPEECH = "audio_speech"
    AUDIO_TRANSCRIPTION = "audio_transcription"
    TOKEN_COUNT = "token_count"


@stored(
    "model_usages",
    unique=(("date", "user_id", "api_key_id", "model_id", "operation"),),
    in_memory=False,
)
@attrs.frozen(kw_only=True)
class ModelUsage(Record):
    """Sums of one day. Names are stored beside the ids, so that they are known after the record is deleted.

    ``user_id`` and ``api_key_id`` are -1 where a request had none, because rows with NULL do not count as equal in a
    unique constraint.
    """

    date: date
    user_id: int
    api_key_id: int
    model_id: int
    operation: Operation
    username: str = ""
    model_name: str = ""
    prompt_token_count: int = 0
    completion_token_count: int = 0
    request_count: int = 0
    failed_count: int = 0


@stored("budget_draws", unique=(("subject", "period"),))
@attrs.frozen(kw_only=True)
class BudgetDraw(Record):
    """Tokens that all servers together have drawn from one budget. Tokens that a server drew and did not use are lost
    when it crashes: then less is used than allowed, never more.

    ``subject`` is ``key:<id>``, ``user:<id>`` or ``model:<id>``; ``period`` a day (``2026-11-28``) or month
    (``2026-11``) of UTC.
    """

    subject: str
    period: str
    drawn: int = 0
