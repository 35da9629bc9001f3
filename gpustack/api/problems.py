"""Errors as HTTP answers: status and reason of each, and the body in the form that the path's clients expect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import attrs
import orjson

from gpustack import errors
from gpustack.domain.error_format import ErrorFormat, anthropic_error, error_format_of

REASONS: Mapping[type[errors.GpustackError], tuple[int, str]] = {
    errors.BadRequest: (400, "BadRequest"),
    errors.Invalid: (422, "Invalid"),
    errors.Unauthorized: (401, "Unauthorized"),
    errors.Forbidden: (403, "Forbidden"),
    errors.NotFound: (404, "NotFound"),
    errors.MethodNotAllowed: (405, "MethodNotAllowed"),
    errors.RequestTimeout: (408, "RequestTimeout"),
    errors.AlreadyExists: (409, "AlreadyExists"),
    errors.Conflict: (409, "Conflict"),
    errors.RevisionExpired: (410, "Gone"),
    errors.TooManyRequests: (429, "TooManyRequests"),
    errors.LimitReached: (429, "TooManyRequests"),
    errors.PayloadTooLarge: (413, "PayloadTooLarge"),
    errors.NotOffered: (501, "NotImplemented"),
    errors.Unavailable: (503, "ServiceUnavailable"),
    errors.GatewayTimeout: (504, "GatewayTimeout"),
}
"""Status and reason of each error that reaches HTTP; a subclass without a row has that of its nearest base."""


class MalformedRequest(errors.Invalid):
    """A body or query that does not have the shape of its route: shown as a count and one fault a line."""

    def __str__(self) -> str:
        return f"{len(self.faults)} validation errors:\n" + "\n".join(self.faults)


@attrs.frozen(kw_only=True)
class Problem:
    """An error as it is answered. ``retry_after`` is in seconds."""

    status: int
    reason: str
    message: str
    retry_after: float | None = None
    openai: tuple[str, str] | None = None
    """``type`` and ``code`` of OpenAI's form, where it has values of its own for the error."""

    def body(self, path: str, *, for_anybody: bool = False) -> bytes:
        """The JSON of the answer, in the form of the clients that use ``path``."""
        return orjson.dumps(self.document(path, for_anybody=for_anybody))

    def document(self, path: str, *, for_anybody: bool = False) -> dict[str, Any]:
        """The same as a dict. ``for_anybody``: in a form that OpenAI's clients can read too."""
        error_format = error_format_of(path)
        if for_anybody and error_format is ErrorFormat.MANAGEMENT:
            error_format = ErrorFormat.SHARED
        if error_format is ErrorFormat.ANTHROPIC:
            return anthropic_error(self.status, self.message)
        if error_format is ErrorFormat.OPENAI and self.openai is not None:
            kind, code = self.openai
            return {"error": {"message": self.message, "type": kind, "param": None, "code": code}}
        if error_format is ErrorFormat.OPENAI:
            return {"error": {"message": self.message, "code": self.status, "type": self.reason}}
        ours = {"code": self.status, "reason": self.reason, "message": self.message}
        if error_format is ErrorFormat.SHARED:
            return {**ours, "error": {"message": self.message, "code": self.status, "type": self.reason}}
        return ours

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


def problem_of(error: errors.GpustackError) -> Problem:
    """How an error is answered: by its row of ``REASONS``, else as ``INTERNAL``."""
    for cls in type(error).__mro__:
        if cls in REASONS:
            status, reason = REASONS[cls]
            retry_after = getattr(error, "retry_after", None)
            openai = (error.kind, error.code) if isinstance(error, errors.LimitReached) else None
            return Problem(
                status=status, reason=reason, message=str(error), retry_after=retry_after, openai=openai
            )
    return INTERNAL


def problem_of_status(status: int, message: str | None = None) -> Problem:
    """How a bare HTTP status is answered, for example one that the framework gives."""
    named = dict(REASONS.values())
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    reason = named.get(status, phrase.title().replace(" ", ""))
    return Problem(status=status, reason=reason, message=message or phrase)


INTERNAL = Problem(
    status=500,
    reason="Internal Server Error",
    message="Something went wrong in the server; its log holds the details",
)


@attrs.frozen
class Readiness:
    """What ``/readyz`` answers; ``document`` is JSON."""

    status: int
    document: Any
    headers: tuple[tuple[str, str], ...] = ()


def readiness(ready: bool, checks: Mapping[str, str]) -> Readiness:
    """``"ok"``, or 503 with what each part says. The front answers with it before the API is loaded."""
    if ready:
        return Readiness(200, "ok")
    return Readiness(503, {"status": "not ready", "checks": dict(checks)}, (("Retry-After", "5"),))
