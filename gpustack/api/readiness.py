"""The one answer to "are you ready?", for the front that gives it from the first moment and for the API behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class Readiness:
    """What ``/readyz`` answers: ``document`` is JSON; headers have plain names."""

    status: int
    document: Any
    headers: tuple[tuple[str, str], ...] = ()


def readiness(ready: bool, checks: Mapping[str, str]) -> Readiness:
    """``"ok"``, or 503 with what each part says while something is missing."""
    if ready:
        return Readiness(200, "ok")
    return Readiness(503, {"status": "not ready", "checks": dict(checks)}, (("Retry-After", "5"),))
