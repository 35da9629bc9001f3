"""The errors of the product: each says in one sentence what is wrong and what to change.

A class here may reach HTTP; ``api/problems.py`` gives each its status and reason. Errors of foreign
libraries become one of these in the one package that uses that library.
"""

from __future__ import annotations

from gpustack.text import presentable


class GpustackError(Exception):
    """Something we can name. ``str(error)`` is a sentence for a person.

    Names of files, machines and other parties' words in it are written out so that it can be stored and sent.
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(presentable(part) if isinstance(part, str) else part for part in said))


class BadRequest(GpustackError):
    """The request cannot be understood or asks for something impossible."""


class Invalid(GpustackError):
    """Fields of a document are wrong. ``faults`` holds every one of them, a sentence each."""

    def __init__(self, *faults: str) -> None:
        self.faults = tuple(map(presentable, faults))
        super().__init__("; ".join(faults))


class Unauthorized(GpustackError):
    """No credentials, or wrong ones."""

    def __init__(self, message: str = "Invalid authentication credentials") -> None:
        super().__init__(message)


class Forbidden(GpustackError):
    """Known caller, but not allowed."""

    def __init__(self, message: str = "No permission to access") -> None:
        super().__init__(message)


class NotFound(GpustackError):
    """The thing named does not exist."""


class AlreadyExists(GpustackError):
    """The name is taken."""


class Conflict(GpustackError):
    """The record changed since it was read, is in use, or may not go from its state to the one asked for."""


class RevisionExpired(GpustackError):
    """A revision asked for has left the ring of changes: list again."""


class TooManyRequests(GpustackError):
    """A limit is reached. ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class LimitReached(TooManyRequests):
    """A limit of a key, a user or a model is reached. ``kind`` and ``code`` are OpenAI's words for which."""

    def __init__(self, message: str, retry_after: float | None, *, kind: str, code: str) -> None:
        self.kind = kind
        self.code = code
        super().__init__(message, retry_after)


class MethodNotAllowed(GpustackError):
    """The path exists, but not for this method."""


class RequestTimeout(GpustackError):
    """The client did not finish its request in time."""


class PayloadTooLarge(GpustackError):
    """A body or head exceeds its limit."""


class Unavailable(GpustackError):
    """Right now nobody can answer; trying again may help. ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class GatewayTimeout(GpustackError):
    """The other side did not answer in time."""
