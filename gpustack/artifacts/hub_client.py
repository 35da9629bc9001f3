"""The HTTP client of the hub's library, with our routes, our trust and our bounds in place of its own."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from gpustack.artifacts.hub_answer import bound
from gpustack.remote.http import trusted
from gpustack.remote.proxy_transport import (
    BlockingProxyTransport,
    ProxyTransports,
    TimeoutBackend,
    proxies_of_environment,
)


def hub_session() -> Any:
    """The library's session, made anew in our way the first time. Blocks; for any thread."""
    from huggingface_hub import get_session

    _settle()
    session = get_session()
    bound(session)
    return session


def hub_http() -> Any:
    """The HTTP library that this version of the hub's is made with."""
    from huggingface_hub.errors import HfHubHTTPError

    names = (base.__module__.partition(".")[0] for base in HfHubHTTPError.__mro__)
    return importlib.import_module(next(name for name in names if name.startswith("httpx")))


@functools.cache
def _settle() -> None:
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
