"""What an account may be called."""

from __future__ import annotations

import unicodedata

LONGEST = 128
RULE = "must be printable, without ':', and not begin with 'system/'"


def is_username(name: str) -> bool:
    """Whether an account may have this name; its length is looked at elsewhere where a form has its own limit.

    A colon ends the name in Basic credentials, and ``system/`` is how workers call themselves there.
    """
    return (
        0 < len(name) <= LONGEST
        and name == name.strip()
        and name.isprintable()
        and ":" not in name
        and not name.startswith("system/")
    )


def looks_like(name: str) -> str:
    """What two names have in common that a person would take for each other: ``Admin`` and ``admin``."""
    return unicodedata.normalize("NFKC", name).casefold()
