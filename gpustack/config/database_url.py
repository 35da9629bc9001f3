"""URLs of databases as people write them: what cannot be told apart in one, and the short forms."""

from __future__ import annotations

import re
from pathlib import Path

_LOGIN = re.compile(r"[^:/]*(?::[^@]*)?@")
"""A user and perhaps a password, up to the first @: as every reader of such URLs takes it."""
_SQLITE_HOME = "sqlite:///~/"


def login_fault(url: str) -> str | None:
    """What is wrong with user and password in ``url``, in words that hold nothing of them.

    A password with an @, or a / after a user without one, makes the rest a part of host and database.
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
    """``url`` with ``postgres://`` and ``~`` written out."""
    if url.startswith(_SQLITE_HOME):
        return f"sqlite:///{home / url.removeprefix(_SQLITE_HOME)}"
    return re.sub(r"^postgres(?=\+|://)", "postgresql", url)
