"""Error answers of our own server, turned back into the errors that were raised there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from json import loads as from_json

from gpustack import errors
from gpustack.remote.http import HttpResponse

_BY_STATUS: Mapping[int, type[errors.GpustackError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.RevisionExpired,
    413: errors.PayloadTooLarge,
    422: errors.Invalid,
    429: errors.TooManyRequests,
    504: errors.GatewayTimeout,
}
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)
_SHOWN = 1000
"""The most characters of a message that are kept: the error page of a proxy can be long."""


def raise_for_status(reply: HttpResponse) -> HttpResponse:
    """``reply`` itself when its status is 2xx; else raises the error that it stands for."""
    if 200 <= reply.status < 300:
        return reply
    raise fault_of(reply.status, reply.body)


def fault_of(status: int, body: bytes, retry_after: str | None = None) -> errors.GpustackError:
    """The error that a status and a body stand for; ``Unavailable`` for a status that we do not know.

    The body may have either of our two forms, OpenAI's or our own. ``retry_after`` is the header of that name.
    """
    message, reason = _message_and_reason(body)
    message = _on_one_line(message)[:_SHOWN] or f"The server answered with status {status}"
    if status == 409 and reason == "AlreadyExists":
        return errors.AlreadyExists(message)
    error = _BY_STATUS.get(status, errors.Unavailable)(message)
    if isinstance(error, errors.TooManyRequests | errors.Unavailable) and _SECONDS.fullmatch(
        retry_after or ""
    ):
        error.retry_after = float(retry_after or 0)
    return error


def _on_one_line(message: str) -> str:
    """The faults of a document on one line, without the line that counts them (a form for other programs)."""
    count, _, faults = message.partition("\n")
    return "; ".join(faults.splitlines()) if faults and count.endswith(" validation errors:") else message


def _message_and_reason(body: bytes) -> tuple[str, str]:
    """The message and the reason in a body; empty where they are missing."""
    try:
        document = from_json(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    inner = document.get("error")
    if isinstance(inner, dict):
        return _text(inner.get("message")), _text(inner.get("type"))
    return _text(document.get("message")), _text(document.get("reason"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
