"""The errors of GPUStack. Each says in one sentence what is wrong and what to change.

A class here may reach HTTP; ``api/problems.py`` gives each its status and reason. Errors of foreign
libraries become one of these in the one package that uses that library.
"""

from __future__ import annotations

from gpustack.text import presentable


class GpustackError(Exception):
    """A failure with a known cause. ``str(error)`` is a sentence for users.

    Characters in it that cannot be shown (in names of files or texts of other programs) are escaped.
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(presentable(part) if isinstance(part, str) else part for part in said))


class BadRequest(GpustackError):
    """The request cannot be understood or asks for something impossible."""


class Invalid(GpustackError):
    """Fields of a document are wrong. ``faults`` has one sentence for each of them."""

    def __init__(self, *faults: str) -> None:
        self.faults = tuple(map(presentable, faults))
        super().__init__("; ".join(faults))


class Unauthorized(GpustackError):
    """No credentials, or wrong ones."""

    def __init__(self, message: str = "Invalid authentication credentials") -> None:
        super().__init__(message)


class Forbidden(GpustackError):
    """The caller is known but not allowed to do this."""

    def __init__(self, message: str = "No permission to access") -> None:
        super().__init__(message)


class NotFound(GpustackError):
    """The thing named does not exist."""


class AlreadyExists(GpustackError):
    """A value that must be unique is taken."""


class Conflict(GpustackError):
    """The record changed since it was read, is in use, or cannot go from its state to the one asked for."""


class RevisionExpired(GpustackError):
    """Changes since the revision asked for are no longer kept: the client has to list again."""


class TooManyRequests(GpustackError):
    """A limit is reached. ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class LimitReached(TooManyRequests):
    """A limit of a key, a user or a model is reached. ``kind`` and ``code`` are OpenAI's ``type`` and ``code`` for
    it."""

    def __init__(self, message: str, retry_after: float | None, *, kind: str, code: str) -> None:
        self.kind = kind
        self.code = code
        super().__init__(message, retry_after)


class MethodNotAllowed(GpustackError):
    """The path exists, but does not support this method."""


class RequestTimeout(GpustackError):
    """The client did not finish its request in time."""


class PayloadTooLarge(GpustackError):
    """A body or head exceeds its limit."""


class NotOffered(GpustackError):
    """The request is understood, and this product does not do it at all."""


class Unavailable(GpustackError):
    """The request cannot be answered now; a later try may succeed. ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class GatewayTimeout(GpustackError):
    """The other side did not answer in time."""
