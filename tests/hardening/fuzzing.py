"""How hard the fuzz tests try: the same few hundred inputs in every run, and new ones without end for `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Inputs a test; 0 for the usual ones."""


def fuzz(usual: int = 150) -> settings:
    """Decorates a test of ``given``: ``usual`` inputs, the same in each run, unless FUZZ_EXAMPLES says how many."""
    return settings(
        max_examples=EXAMPLES or usual,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
