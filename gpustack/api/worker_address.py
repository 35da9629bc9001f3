"""The addresses that workers tell of themselves: other machines are sent there."""

from __future__ import annotations

import re

from gpustack.remote.redirect import is_loopback, names_no_machine

from .problems import MalformedRequest

_HOST = re.compile(r"[A-Za-z0-9.:_%-]{1,253}|")


def check_address(ip: str | None, peer: str, *, field: str = "ip") -> None:
    """Raise ``MalformedRequest`` unless ``ip`` can be the address of a worker that sends from ``peer``.

    The server sends requests there: they must not go to what only this machine can reach.
    """
    if ip is None:
        return
    if not _HOST.fullmatch(ip):
        raise MalformedRequest(f"{field}: must be an address or a host name")
    if names_no_machine(ip):
        raise MalformedRequest(f"{field}: is no address of a machine")
    if is_loopback(ip) and not is_loopback(peer):
        raise MalformedRequest(f"{field}: the server would reach itself there: set --worker-ip on the worker")
