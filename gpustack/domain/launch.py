"""What an engine was started with, as people may see it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs


@attrs.frozen(kw_only=True)
class LaunchRecord:
    """The command of one process and what its environment has beyond that of its worker; secrets are masked."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(factory=dict)
    started_at: datetime
    files: tuple[str, ...] = ()
    """Names of files that were written for it alone."""
