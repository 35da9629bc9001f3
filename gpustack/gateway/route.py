"""The paths of inference, each under both of its prefixes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.usage import Operation


@attrs.frozen(kw_only=True)
class InferenceRoute:
    """One path that is forwarded to engines. ``engine_path`` is what engines call it; ``streams`` says whether its
    answers come as streams of events with their usage at the end, and ``form`` whether it takes forms with files."""

    path: str
    engine_path: bytes
    operation: Operation
    summary: str
    streams: bool = True
    form: bool = False


_WHAT = (
    (
        "chat/completions",
        Operation.CHAT_COMPLETION,
        "Answer a conversation, at once or as a stream of events",
    ),
    ("completions", Operation.COMPLETION, "Continue a text, at once or as a stream of events"),
    ("embeddings", Operation.EMBEDDING, "Turn texts into vectors"),
    ("rerank", Operation.RERANK, "Say how well documents fit a query"),
    ("images/generations", Operation.IMAGE_GENERATION, "Draw an image"),
    ("images/edits", Operation.IMAGE_GENERATION, "Draw an image after others; a form with files"),
    ("audio/speech", Operation.AUDIO_SPEECH, "Speak a text"),
    ("audio/transcriptions", Operation.AUDIO_TRANSCRIPTION, "Write down what is spoken; a form with a file"),
)
_STREAMS = (Operation.CHAT_COMPLETION, Operation.COMPLETION)
_FORMS = ("images/edits", "audio/transcriptions")

ROUTES: tuple[InferenceRoute, ...] = tuple(
    InferenceRoute(
        path=f"{prefix}/{name}",
        engine_path=f"/v1/{name}".encode(),
        operation=operation,
        summary=summary,
        streams=operation in _STREAMS,
        form=name in _FORMS,
    )
    for prefix in ("/v1", "/v1-openai")
    for name, operation, summary in _WHAT
)

BY_PATH: Mapping[str, InferenceRoute] = {route.path: route for route in ROUTES}
