"""Runs what would run in threads in the Trio thread, so that a test has the same order every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio


async def run_inline(
    fn: Callable[[], Any], /, *, abandon_on_cancel: bool, limiter: trio.CapacityLimiter | None
) -> Any:
    """A ``ThreadRunner`` for ``use_thread_runner``."""
    await trio.lowlevel.checkpoint()
    return fn()
