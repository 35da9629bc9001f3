"""The paths of inference, each under its prefixes, and which kinds of models answer on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import attrs

from gpustack.domain.error_format import ErrorFormat, error_format_of
from gpustack.domain.model import Category
from gpustack.domain.usage import Operation

_TEXTLESS: Final = frozenset(
    {Operation.IMAGE_GENERATION, Operation.AUDIO_SPEECH, Operation.AUDIO_TRANSCRIPTION}
)
"""Answers whose events are pieces of a sound, an image, or sentences."""
_GENERATES: Final = frozenset({Operation.CHAT_COMPLETION, Operation.COMPLETION, Operation.TOKEN_COUNT})


@attrs.frozen(kw_only=True)
class InferencePath:
    """One path whose requests are forwarded to engines."""

    path: str
    engine_path: bytes
    """The path at the engine."""
    operation: Operation
    summary: str
    """For the API's document."""
    completions: bool = True
    """Whether it answers completions: a stream of them is asked for its usage, and edited on its way."""
    usage_in_parts: bool = False
    """Whether a stream tells its usage in several events, the prompt's first: a message, or a response."""
    form: bool = False
    """Whether it takes forms with files."""

    @property
    def in_tokens(self) -> bool:
        """Whether an event of its stream stands for about one token, where the engine tells no usage."""
        return self.operation not in _TEXTLESS

    @property
    def error_format(self) -> ErrorFormat:
        """How the clients of this path read errors."""
        return error_format_of(self.path)

    def mismatch(self, model_name: str, categories: Collection[str]) -> str | None:
        """Why a model of these categories cannot answer here, as a sentence; ``None`` where it may.

        Its engine would answer with an error after which clients try again, or with zeros.
        """
        if not categories or Category.LLM in categories:
            return None
        generates = self.operation in _GENERATES
        embeds, ranks = Category.EMBEDDING in categories, Category.RERANKER in categories
        if generates and embeds:
            return (
                f"'{model_name}' is an embedding model, which does not answer {self.path}: ask /v1/embeddings"
            )
        if ranks and (generates or (self.operation is Operation.EMBEDDING and not embeds)):
            return f"'{model_name}' is a reranker, which does not answer {self.path}: ask /v1/rerank"
        return None


_OPENAI = (
    (
        "chat/completions",
        Operation.CHAT_COMPLETION,
        "Answer a conversation, at once or as a stream of events",
    ),
    ("completions", Operation.COMPLETION, "Continue a text, at once or as a stream of events"),
    ("responses", Operation.CHAT_COMPLETION, "Answer as OpenAI's Responses API does, where the engine can"),
    ("embeddings", Operation.EMBEDDING, "Turn texts into vectors"),
    ("rerank", Operation.RERANK, "Say how well documents fit a query"),
    ("images/generations", Operation.IMAGE_GENERATION, "Draw an image"),
    ("images/edits", Operation.IMAGE_GENERATION, "Draw an image after others; a form with files"),
    ("audio/speech", Operation.AUDIO_SPEECH, "Speak a text"),
    ("audio/transcriptions", Operation.AUDIO_TRANSCRIPTION, "Write down what is spoken; a form with a file"),
    (
        "audio/translations",
        Operation.AUDIO_TRANSCRIPTION,
        "Write down in English what is spoken; a form with a file",
    ),
)
_ANTHROPIC = (
    ("messages", Operation.CHAT_COMPLETION, "Answer as Anthropic's Messages API does, where the engine can"),
    ("messages/count_tokens", Operation.TOKEN_COUNT, "Count the tokens of a message, where the engine can"),
)
_SECOND = tuple(row for row in _OPENAI if row[0] == "rerank")
"""What Cohere's clients, and those of GPUStack 2.x, ask under ``/v2``."""
_COMPLETIONS = ("chat/completions", "completions")
_USAGE_IN_PARTS = ("responses", "messages")
_FORMS = ("images/edits", "audio/transcriptions", "audio/translations")

INFERENCE_PATHS: tuple[InferencePath, ...] = tuple(
    InferencePath(
        path=f"{prefix}/{name}",
        engine_path=f"/v1/{name}".encode(),
        operation=operation,
        summary=summary,
        completions=name in _COMPLETIONS,
        usage_in_parts=name in _USAGE_IN_PARTS,
        form=name in _FORMS,
    )
    for prefix, rows in (("/v1", (*_OPENAI, *_ANTHROPIC)), ("/v1-openai", _OPENAI), ("/v2", _SECOND))
    for name, operation, summary in rows
)

BY_PATH: Mapping[str, InferencePath] = {path.path: path for path in INFERENCE_PATHS}
