"""The file in which a stopping server leaves what was used within its last minute, for the next server to load."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import attrs

from gpustack import durable_file
from gpustack.domain.document import decode, encode
from gpustack.errors import Invalid
from gpustack.policy.usage_limit import SlidingWindow, WindowSlot

log = logging.getLogger(__name__)


@attrs.frozen
class _SavedWindows:
    at: datetime
    """Wall clock time: the monotonic clock may start again with the machine."""
    windows: Mapping[str, tuple[WindowSlot, ...]]
    """By subject; the seconds count back from ``at``."""


def save_windows(path: Path, windows: Mapping[str, SlidingWindow], now: float, at: datetime) -> None:
    """Write the windows as of ``now`` (monotonic clock), which is ``at`` by the wall clock. A failure is logged."""
    aged = {subject: _shifted(window.at(now), -math.floor(now)) for subject, window in windows.items()}
    left = _SavedWindows(at, {key: seconds for key, seconds in aged.items() if seconds})
    try:
        # Not synced: answers are still streaming in this thread, and what is lost with the machine is a minute.
        durable_file.write(path, encode(left), sync=False)
    except OSError as error:
        log.warning("What was used in the last minute is not written down: reason=%s", error)


def load_windows(path: Path, now: float, at: datetime) -> Mapping[str, SlidingWindow] | None:
    """What the last server left; ``None`` where it did not stop in order. Deletes the file."""
    try:
        document = path.read_bytes()
        path.unlink()
    except OSError:
        return None
    try:
        left = decode(document, _SavedWindows)
        elapsed = max((at - left.at).total_seconds(), 0.0)
    except (Invalid, TypeError) as error:
        log.warning("What the last server used in its last minute cannot be read: reason=%s", error)
        return None
    shift = math.floor(now) - math.floor(elapsed)
    return {
        subject: SlidingWindow(_shifted(SlidingWindow(seconds), shift))
        for subject, seconds in left.windows.items()
    }


def _shifted(window: SlidingWindow, by: int) -> tuple[WindowSlot, ...]:
    return tuple([attrs.evolve(second, at=second.at + by) for second in window.seconds])
