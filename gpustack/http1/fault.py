"""What can go wrong with an upstream, told apart by what a caller may do about it."""

from __future__ import annotations

from typing import Literal

from gpustack.errors import GatewayTimeout, Unavailable

Stage = Literal["connect", "send", "first_byte", "body"]


class UpstreamError(Unavailable):
    """An upstream did not do its part. ``response_started``: bytes of its response have been read."""

    response_started = False


class ConnectFailed(UpstreamError):
    """No connection came about: nothing was sent, trying elsewhere is safe."""


class UpstreamClosed(UpstreamError):
    """The upstream closed, before its response or inside it (``response_started``)."""

    def __init__(self, message: str, *, response_started: bool) -> None:
        self.response_started = response_started
        super().__init__(message)


class UpstreamProtocolError(UpstreamError):
    """What the upstream sent is not HTTP/1.1, or could be read in two ways."""


class UpstreamTimeout(UpstreamError, GatewayTimeout):
    """The upstream let its time pass; ``stage`` says doing what."""

    def __init__(self, message: str, stage: Stage) -> None:
        self.stage = stage
        self.response_started = stage == "body"
        super().__init__(message)
