"""How many worlds a law is tried in."""

from __future__ import annotations

import os

from hypothesis import settings


def law(examples: int) -> settings:
    """Tried in so many worlds, without a deadline; ``make laws EXAMPLES=20`` tries twenty times as many."""
    return settings(max_examples=examples * int(os.environ.get("LAW_EXAMPLES", "1")), deadline=None)
