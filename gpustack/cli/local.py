"""What counts as this machine: addresses that lead back to it, and its users who need no key."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

ANYWHERE = ("0.0.0.0", "::")
"""Hosts that stand for all addresses of this machine."""


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    return is_local(urlsplit(url).hostname or "")


def is_local(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def local_admins() -> frozenset[int]:
    """The numbers of the users whose programs manage the server without a key: root, and the user of this process.

    Both can do anything with the daemon anyway.
    """
    return frozenset({0, os.geteuid()})


def local_rule(force_auth: bool, host: str) -> str:
    """The rule of ``local_admins`` as a sentence for people.

    ``force_auth`` is ``--force-auth-localhost``; ``host`` is the address that the server listens on, from where alone
    the programs of this machine reach it unless it is one of the loopback, or stands for all.
    """
    if force_auth:
        return "every request needs a key or login, from this machine too"
    if not is_local(host) and host not in ("", *ANYWHERE):
        return (
            f"every request needs a key or login, from this machine too: the server listens on {host} alone (--host), "
            "and a request there cannot be told from one of another machine"
        )
    uid = os.geteuid()
    admins = "programs of root" if uid == 0 else f"programs of {_name(uid)} and root"
    return f"without a key {admins} manage it from this machine, and its other users use models"


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
