"""Who of this machine manages a server without a key: in numbers for the API, in words for people."""

from __future__ import annotations

import os


def local_admins() -> frozenset[int]:
    """The users whose programs are an administrator's without a key: root, and the one this process runs as.

    Both can do what they like with the daemon anyway.
    """
    return frozenset({0, os.geteuid()})


def local_rule(force_auth: bool) -> str:
    """The same as a sentence of whoever runs as this process does."""
    if force_auth:
        return "every request needs a key or login, from this machine too"
    return f"without a key {_admins()} manage it from this machine, and its other users use models"


def _admins() -> str:
    uid = os.geteuid()
    return "programs of root" if uid == 0 else f"programs of {_name(uid)} and root"


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
