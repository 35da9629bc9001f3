"""URLs as people write them: which are usable, how they are shown without passwords, and their short forms."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

MASK = "***"

_LOGIN = re.compile(r"[^:/]*(?::[^@]*)?@")
"""A user and perhaps a password, up to the first @: the way database drivers read such URLs."""
_SQLITE_HOME = "sqlite:///~/"


def mask_url(url: Any) -> str:
    """``url`` with any passwords in it replaced by ``***``."""
    # Greedy up to the last @: a password that was not percent-encoded may itself hold @ and slashes.
    shown = re.sub(r"(://[^:/@]*):.*@", rf"\1:{MASK}@", str(url))
    return re.sub(r"(?i)(passw(?:or)?d)=[^&]*", rf"\1={MASK}", shown)


def is_http_url(url: str) -> bool:
    """Whether ``url`` has the scheme http or https, a host, and no impossible port."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def http_parts(url: str) -> SplitResult | None:
    """The parts of an http or https URL; ``None`` for anything else."""
    try:
        parts = urlsplit(url)
        return parts if parts.scheme in ("http", "https") and parts.hostname else None
    except ValueError:
        return None


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` always means this machine: ``localhost`` or a loopback address, without a DNS lookup."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def login_fault(url: str) -> str | None:
    """What is wrong with user and password in a database URL; the sentence shows neither. ``None`` if nothing is.

    A password with an @, or a / after a user without one, would make the rest a part of host and database.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme.startswith("sqlite") or "@" not in rest:
        return None
    login = _LOGIN.match(rest)
    place, _, query = rest[login.end() if login else 0 :].partition("?")
    if "@" not in place and ("@" not in query or "=" in query.partition("@")[0]):
        return None
    return (
        "has an @, /, # or ? in its user or password that ends it too early: write special characters there "
        "percent-encoded, %40 for @, %2F for /, %23 for #, %3F for ?, %25 for %"
    )


def plain_database_url(url: str, home: Path) -> str:
    """``url`` with the short forms ``postgres://`` and ``sqlite:///~/`` written out."""
    if url.startswith(_SQLITE_HOME):
        return f"sqlite:///{home / url.removeprefix(_SQLITE_HOME)}"
    return re.sub(r"^postgres(?=\+|://)", "postgresql", url)
