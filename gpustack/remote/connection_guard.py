"""Checks a connection by the IP address it was made to, before anything is sent on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

Connected = Callable[[str], None]
"""Gets the IP address of a connection that has just been made; what it raises ends the request."""

DIRECT = "gpustack.direct"
"""Key in the extensions of an httpx answer: whether it came without a proxy."""


def answered_from(response: Any) -> str | None:
    """The IP address that an httpx answer came from; ``None`` where a proxy was asked, or it is not known."""
    stream = response.extensions.get("network_stream")
    if stream is None or not response.extensions.get(DIRECT, False):
        return None
    try:
        address = stream.get_extra_info("server_addr")
    except OSError:  # the other side is gone
        return None
    return str(address[0]) if address else None


@attrs.define(eq=False)
class ConnectionGuard:
    """Calls ``connected`` with the address of a connection that httpcore makes for a request to ``host``.

    ``saw`` and ``saw_async`` are given to httpcore as the request's extension ``trace``. A connection to another host
    is one to a proxy and is not checked.
    """

    host: str
    connected: Connected
    _direct: bool = False

    def made(self, event: str, about: Mapping[str, Any]) -> Any:
        """The stream of a direct connection, if ``event`` says that one was just made."""
        if event == "connection.connect_tcp.started":
            self._direct = about["host"] == self.host
        if event == "connection.connect_tcp.complete" and self._direct:
            return about["return_value"]
        return None

    def judge(self, stream: Any) -> None:
        """Check the address of ``stream``; raises what ``connected`` raises: then close the stream."""
        address = stream.get_extra_info("server_addr")
        if address:
            self.connected(str(address[0]))

    def saw(self, event: str, about: Mapping[str, Any]) -> None:
        """The trace of a blocking client."""
        stream = self.made(event, about)
        if stream is not None:
            try:
                self.judge(stream)
            except BaseException:
                stream.close()
                raise

    async def saw_async(self, event: str, about: Mapping[str, Any]) -> None:
        """The trace of an async client."""
        stream = self.made(event, about)
        if stream is not None:
            try:
                self.judge(stream)
            except BaseException:
                await stream.aclose()
                raise
