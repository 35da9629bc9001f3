"""The paths of inference, each under both of its prefixes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.usage import Operation


@attrs.frozen(kw_only=True)
class InferenceRoute:
    """One path that is forwarded to engines. ``engine_path`` is what engines call it; ``streams`` says whether it
    knows streams of events."""

    path: str
    engine_path: bytes
    operation: Operation
    summary: str
    streams: bool = True


_WHAT = (
    (
        "chat/completions",
        Operation.CHAT_COMPLETION,
        "Answer a conversation, at once or as a stream of events",
    ),
    ("completions", Operation.COMPLETION, "Continue a text, at once or as a stream of events"),
    ("embeddings", Operation.EMBEDDING, "Turn texts into vectors"),
)

ROUTES: tuple[InferenceRoute, ...] = tuple(
    InferenceRoute(
        path=f"{prefix}/{name}",
        engine_path=f"/v1/{name}".encode(),
        operation=operation,
        summary=summary,
        streams=operation is not Operation.EMBEDDING,
    )
    for prefix in ("/v1", "/v1-openai")
    for name, operation, summary in _WHAT
)

BY_PATH: Mapping[str, InferenceRoute] = {route.path: route for route in ROUTES}
