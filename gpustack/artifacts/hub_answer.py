"""Keeps answers of a hub within bounds, in whatever client its library uses: their size, time, and where they lead."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from gpustack.remote.connection_guard import Connected, ConnectionGuard, answered_from
from gpustack.remote.http import ANSWER_LIMIT, BadResponse, RemoteTimeout, ResponseTooLarge
from gpustack.remote.redirect import refuse_inner_blocking

_WITHIN = 60.0
"""Seconds one answer may take however steadily it trickles: its thread is waited for by the next listing."""


def bound(client: Any) -> None:
    """See to it that every answer ``client`` reads whole is within bounds; doing so again changes nothing.

    Its requests then raise ``ResponseTooLarge``, ``RemoteTimeout`` and ``BadResponse``: an answer in an encoding that
    nobody asked for (a small one may unpack to any size), or a redirect into this machine or network.
    """
    hooks = client.event_hooks
    if _look not in hooks["response"]:
        client.headers["accept-encoding"] = "identity"
        client.event_hooks = {
            **hooks,
            "request": [*hooks["request"], _watch],
            "response": [*hooks["response"], _look],
        }


class _ThreadRedirect(threading.local):
    """How the connection is to be judged to which this thread's last answer led."""

    connected: Connected | None = None


_led = _ThreadRedirect()


def _watch(request: Any) -> None:
    """Before a request is sent: it may be where a redirect leads."""
    connected, _led.connected = _led.connected, None
    if connected is not None:
        request.extensions["trace"] = ConnectionGuard(request.url.raw_host.decode("ascii"), connected).saw


def _look(response: Any) -> None:
    """Before the body of an answer is read."""
    url = str(response.request.url)
    if response.has_redirect_location:
        answered = answered_from(response)
        try:
            place = urljoin(url, response.headers["location"])
            _led.connected = refuse_inner_blocking(place, url, answered)
        except ValueError as error:
            raise BadResponse(url, "redirects to something that is not an address") from error
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BadResponse(url, "answers in an encoding that nobody asked for")
    response.stream = _within_bounds(response.stream, url)


def _within_bounds(stream: Any, url: str) -> Any:
    # The class of streams of the very library the client is from: it looks at the type.
    library = sys.modules[type(stream).__module__.partition(".")[0]]

    class Bounded(library.SyncByteStream):  # type: ignore[name-defined,misc]  # known at run time only
        def __iter__(self) -> Iterator[bytes]:
            size, until = 0, time.monotonic() + _WITHIN
            for piece in stream:
                size += len(piece)
                if size > ANSWER_LIMIT:
                    raise ResponseTooLarge(url, f"answered with more than {ANSWER_LIMIT} bytes")
                if time.monotonic() > until:
                    raise RemoteTimeout(url, f"did not finish its answer within {_WITHIN:g} s")
                yield piece

        def close(self) -> None:
            stream.close()

    return Bounded()
