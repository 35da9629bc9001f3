"""Judges a connection by the address it was in fact made to, before anything is asked there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

Connected = Callable[[str], None]
"""Is told the IP address of a connection that has just been made; what it raises ends the request."""


DIRECT = "gpustack.direct"
"""In the extensions of an answer: whether no proxy was between."""


def answered_from(response: Any) -> str | None:
    """The IP address that an answer came from.

    None where a proxy was asked, which has an address of its own, or where it cannot be told.
    """
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
    """Is told by httpcore's extension ``trace`` what it does for a request to ``host``.

    A connection to anybody else is one to a proxy, which connects where it may.
    """

    host: str
    connected: Connected
    _direct: bool = False

    def made(self, event: str, about: Mapping[str, Any]) -> Any:
        """The stream of a direct connection that was made just now, else None."""
        if event == "connection.connect_tcp.started":
            self._direct = about["host"] == self.host
        if event == "connection.connect_tcp.complete" and self._direct:
            return about["return_value"]
        return None

    def judge(self, stream: Any) -> None:
        """Raises what ``connected`` raises; close the stream then."""
        address = stream.get_extra_info("server_addr")
        if address:
            self.connected(str(address[0]))

    def saw(self, event: str, about: Mapping[str, Any]) -> None:
        """For a client that blocks."""
        stream = self.made(event, about)
        if stream is not None:
            try:
                self.judge(stream)
            except BaseException:
                stream.close()
                raise

    async def saw_async(self, event: str, about: Mapping[str, Any]) -> None:
        """For one that does not."""
        stream = self.made(event, about)
        if stream is not None:
            try:
                self.judge(stream)
            except BaseException:
                await stream.aclose()
                raise
