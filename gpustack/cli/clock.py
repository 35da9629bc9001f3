"""The wall clock, handed by the composition to all who need one."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Now, as an aware instant."""
    return datetime.now(UTC)
