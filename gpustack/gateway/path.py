"""The paths of inference, each under both of its prefixes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.error_format import ErrorFormat, error_format_of
from gpustack.domain.usage import Operation


@attrs.frozen(kw_only=True)
class InferencePath:
    """One path that is forwarded to engines. ``engine_path`` is what engines call it; ``splices`` says whether its
    answers are completions: their streams are asked for usage, and mended. ``parted`` says whether a stream is one of
    a message or a response, which tells its usage in parts, and ``form`` whether it takes forms with files."""

    path: str
    engine_path: bytes
    operation: Operation
    summary: str
    splices: bool = True
    parted: bool = False
    form: bool = False

    @property
    def dialect(self) -> ErrorFormat:
        """Whose clients ask here, and read its errors."""
        return error_format_of(self.path)


_WHAT = (
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
)
_ANTHROPIC = (
    ("messages", Operation.CHAT_COMPLETION, "Answer as Anthropic's Messages API does, where the engine can"),
    ("messages/count_tokens", Operation.TOKEN_COUNT, "Count the tokens of a message, where the engine can"),
)
_SPLICED = ("chat/completions", "completions")
_PARTED = ("responses", "messages")
_FORMS = ("images/edits", "audio/transcriptions")

INFERENCE_PATHS: tuple[InferencePath, ...] = tuple(
    InferencePath(
        path=f"{prefix}/{name}",
        engine_path=f"/v1/{name}".encode(),
        operation=operation,
        summary=summary,
        splices=name in _SPLICED,
        parted=name in _PARTED,
        form=name in _FORMS,
    )
    for prefix, what in (("/v1", (*_WHAT, *_ANTHROPIC)), ("/v1-openai", _WHAT))
    for name, operation, summary in what
)

BY_PATH: Mapping[str, InferencePath] = {route.path: route for route in INFERENCE_PATHS}
