"""Whether the proxies that the environment names can be used."""

from __future__ import annotations

import trio

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.config.proxy import ProxyAddress, read_proxies
from gpustack.remote.proxy_transport import deepest
from gpustack.text import said_by

_WITHIN = 5.0
_FIX = "Change or unset the variable where it is set: a shell profile, a unit's environment, a container's."


async def look(context: CheckContext) -> list[Finding]:
    routes = read_proxies(context.env)
    found = [note(fault, _FIX) for fault in routes.misread]
    for proxy in routes.proxies:
        found.append(failed(proxy.fault, _FIX) if proxy.fault is not None else await _answers(proxy))
    return found or [good("no proxy is set: this machine reaches others directly")]


async def _answers(proxy: ProxyAddress) -> Finding:
    """Whether the proxy accepts connections; other checks go through it."""
    named = f"the proxy {proxy.shown} of {proxy.variable}"
    with trio.move_on_after(_WITHIN):
        try:
            stream = await trio.open_tcp_stream(proxy.host, proxy.port)
        except OSError as error:
            return failed(f"{named} cannot be reached ({said_by(deepest(error))})", _FIX)
        await stream.aclose()
        return good(f"{named} answers")
    return failed(f"{named} does not answer within {_WITHIN:g} s", _FIX)
