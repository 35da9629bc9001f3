"""Whether the daemon's end is a wish of its operator: only then do engines end with it."""

from __future__ import annotations

import attrs


@attrs.define
class ShutdownMode:
    """Engines outlive a crash, a watchdog kill and a hand-over. ``stopping`` is set by a plain stop alone."""

    stopping: bool = False
