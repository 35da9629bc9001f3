"""Answers of our own server that say no, as the errors they were there."""

from __future__ import annotations

from collections.abc import Mapping
from json import loads as from_json

from gpustack import errors
from gpustack.remote.http import Reply

_BY_STATUS: Mapping[int, type[errors.GpustackError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.Gone,
    413: errors.PayloadTooLarge,
    422: errors.Invalid,
    429: errors.TooManyRequests,
    504: errors.GatewayTimeout,
}


def checked(reply: Reply) -> Reply:
    """The reply itself when it is a yes; raises the error it stands for otherwise."""
    if reply.status < 300:
        return reply
    raise fault_of(reply.status, reply.body)


def fault_of(status: int, body: bytes) -> errors.GpustackError:
    """The error behind a status and a body in either of our two forms."""
    message, reason = _told(body)
    if reason == "AlreadyExists":
        return errors.AlreadyExists(message or "It exists already")
    kind = _BY_STATUS.get(status, errors.Unavailable)
    return kind(message or f"The server answered with status {status}")


def _told(body: bytes) -> tuple[str, str]:
    try:
        document = from_json(body)
    except ValueError:
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    inner = document.get("error")
    if isinstance(inner, dict):
        return str(inner.get("message", "")), str(inner.get("type", ""))
    return str(document.get("message", "")), str(document.get("reason", ""))
