"""The formats of error bodies over HTTP: one for each family of clients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class ErrorFormat(StrEnum):
    """Whose clients read what a path answers."""

    MANAGEMENT = "management"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    SHARED = "shared"
    """The fields of both MANAGEMENT and OPENAI in one body."""


_OPENAI: Final = re.compile(
    r"/v1-openai(/|$)"
    r"|/v1/(chat/completions|completions|embeddings|images/|audio/|rerank|responses|voices)"
    r"|/v2/rerank$"
)
_SHARED: Final = re.compile(r"/v1/models(/|$)")
_ANTHROPIC: Final = re.compile(r"/v1/messages(/|$)")
_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_format_of(path: str) -> ErrorFormat:
    """The format for a path. Only the path decides, so that all errors of a route have the same form."""
    if _ANTHROPIC.match(path) is not None:
        return ErrorFormat.ANTHROPIC
    if _OPENAI.match(path) is not None:
        return ErrorFormat.OPENAI
    return ErrorFormat.SHARED if _SHARED.match(path) is not None else ErrorFormat.MANAGEMENT


def anthropic_error(status: int, message: str) -> dict[str, Any]:
    """The body of an error for clients of Anthropic's API."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}
