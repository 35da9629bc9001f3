"""The HTTP client of the hub's library, with our proxies, our trusted certificates, and bounds on every answer."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from gpustack.remote.connection_guard import Connected, ConnectionGuard, answered_from
from gpustack.remote.http import ANSWER_LIMIT, BadResponse, RemoteTimeout, ResponseTooLarge, trusted
from gpustack.remote.proxy_transport import (
    BlockingProxyTransport,
    ProxyTransports,
    TimeoutBackend,
    proxies_of_environment,
)
from gpustack.remote.redirect import refuse_inner_blocking

_WITHIN = 60.0
"""Seconds that one answer may take as a whole: the thread that reads it cannot be cancelled."""


def hub_session() -> Any:
    """The session of huggingface_hub, with our client. Blocking; may be called in any thread."""
    from huggingface_hub import get_session

    _use_our_client()
    session = get_session()
    bound_answers(session)
    return session


def hub_http() -> Any:
    """The HTTP library that the installed huggingface_hub uses: httpx or a successor of it."""
    from huggingface_hub.errors import HfHubHTTPError

    names = (base.__module__.partition(".")[0] for base in HfHubHTTPError.__mro__)
    return importlib.import_module(next(name for name in names if name.startswith("httpx")))


@functools.cache
def _use_our_client() -> None:
    from huggingface_hub import set_client_factory

    set_client_factory(_client)


def _client() -> Any:
    from huggingface_hub.utils._http import hf_request_event_hook

    library = hub_http()
    trust = trusted()

    def make(proxy: Any) -> Any:
        transport = library.HTTPTransport(verify=trust, trust_env=False, proxy=proxy)
        if proxy is not None and proxy.url.scheme.startswith("socks"):
            pool = transport._pool
            pool._network_backend = TimeoutBackend(pool._network_backend)
        return transport

    outlets = ProxyTransports(library=library, make=make, routes=proxies_of_environment, proxy_trust=trust)
    return library.Client(
        transport=BlockingProxyTransport(outlets),
        event_hooks={"request": [hf_request_event_hook]},
        follow_redirects=True,
        timeout=None,
        trust_env=False,
    )


def bound_answers(client: Any) -> None:
    """Bound every answer that ``client`` reads, in size and time, and check its redirects. Idempotent.

    Its requests then raise ResponseTooLarge, RemoteTimeout, and BadResponse for a compressed answer (a small one may
    unpack to any size) or for a redirect into this machine or network.
    """
    hooks = client.event_hooks
    if _check_answer not in hooks["response"]:
        client.headers["accept-encoding"] = "identity"
        client.event_hooks = {
            **hooks,
            "request": [*hooks["request"], _guard_request],
            "response": [*hooks["response"], _check_answer],
        }


class _ThreadRedirect(threading.local):
    """The check of the connection to which the last answer in this thread redirects."""

    connected: Connected | None = None


_redirect = _ThreadRedirect()


def _guard_request(request: Any) -> None:
    """The hook before a request, which may be the one that follows a redirect."""
    connected, _redirect.connected = _redirect.connected, None
    if connected is not None:
        request.extensions["trace"] = ConnectionGuard(request.url.raw_host.decode("ascii"), connected).saw


def _check_answer(response: Any) -> None:
    """The hook before the body of an answer is read."""
    url = str(response.request.url)
    if response.has_redirect_location:
        answered = answered_from(response)
        try:
            place = urljoin(url, response.headers["location"])
            _redirect.connected = refuse_inner_blocking(place, url, answered)
        except ValueError as error:
            raise BadResponse(url, "redirects to something that is not an address") from error
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BadResponse(url, "answers in an encoding that nobody asked for")
    response.stream = _within_bounds(response.stream, url)


def _within_bounds(stream: Any, url: str) -> Any:
    # The stream class of the library that the client is from, since it checks the type.
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
