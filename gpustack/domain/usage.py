"""Usage: counts per day, user, key, model and operation; and what has been drawn from budgets of tokens."""

from __future__ import annotations

from datetime import date
from enum import StrEnum

import attrs

from .record import Record, stored


class Operation(StrEnum):
    """The kinds of inference (behaviour.md s.3.1; the misspelt word for transcription is read, not written)."""

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
    """Sums of one day. Names are kept beside the ids so that history survives what it counts.

    ``user_id`` and ``api_key_id`` are -1 where a request had none: unique columns cannot be null in all dialects.
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
    """How much all servers together have drawn. What was drawn and not used is forfeit after a crash: too little is
    used then, never too much.

    ``subject`` is ``key:<id>``, ``user:<id>`` or ``model:<id>``; ``period`` a day (``2026-11-28``) or month
    (``2026-11``) of UTC.
    """

    subject: str
    period: str
    drawn: int = 0
