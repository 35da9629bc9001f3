"""What of a budget of tokens is drawn at once, and to which day and month of UTC a request belongs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from .usage_limit import LimitKind

_PART: Final = 16
"""A block is this part of what is left: what a crash forfeits is no more, and blocks get smaller towards the end."""


def period(kind: LimitKind, now: datetime) -> str:
    """The day (``2026-11-28``) or month (``2026-11``) it is."""
    today = now.astimezone(UTC).date().isoformat()
    return today if kind is LimitKind.DAY else today[:7]


def ends_in(kind: LimitKind, now: datetime) -> float:
    """Seconds until the next day or month begins."""
    now = now.astimezone(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind is LimitKind.DAY:
        return (midnight + timedelta(days=1) - now).total_seconds()
    first = midnight.replace(day=1)
    return ((first + timedelta(days=32)).replace(day=1) - now).total_seconds()


def is_over(name: str, now: datetime) -> bool:
    """Whether a period ended so long ago that no server can still be in it, however its clock goes."""
    past = (now.astimezone(UTC) - timedelta(days=1)).date().isoformat()
    return name < past[: len(name)]


def block(room: int, wanted: int, least: int) -> int:
    """How much to draw of ``room`` that nobody has drawn, for requests that may use ``wanted`` in all, the smallest
    of them ``least``; nothing where not even that one would find enough."""
    if room < least:
        return 0
    return min(room, max(wanted, room // _PART))
