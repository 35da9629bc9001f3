"""The estimates against what llama.cpp allocated, for all shapes and settings of the table."""

from __future__ import annotations

import pytest

from gpustack.domain.unit import MIB
from gpustack.policy.estimate.gguf import estimate

from .estimate_table import PAGE, page
from .gguf_table import SETTINGS, Measured, measured

ROUNDED = 1.5
"""MiB: the figures of the table are whole ones, and there are several in a sum."""


@pytest.mark.parametrize("model", measured(), ids=lambda model: model.name)
def test_estimates_are_within_five_percent_of_what_the_engine_allocates(model: Measured) -> None:
    for row in model.rows:
        found = estimate(model.facts, SETTINGS[row.setting]).host.total / MIB
        assert found == pytest.approx(row.total, rel=0.05, abs=ROUNDED), row.setting


@pytest.mark.parametrize("model", measured(), ids=lambda model: model.name)
def test_claims_are_never_below_it_and_at_most_a_tenth_above(model: Measured) -> None:
    """Without the process's own memory, which is none of the engine's buffers."""
    for row in model.rows:
        found = estimate(model.facts, SETTINGS[row.setting]).host.claim(0) / MIB
        assert row.total - ROUNDED <= found <= 1.1 * row.total + ROUNDED, row.setting


@pytest.mark.parametrize("model", measured(), ids=lambda model: model.name)
def test_caches_are_exact(model: Measured) -> None:
    for row in model.rows:
        found = estimate(model.facts, SETTINGS[row.setting]).host.kv / MIB
        # States of what DeepSeek 4 is about to compress are not in the engine's sum.
        least, most = row.cache + row.state, row.cache + row.state
        most += 45 if model.facts.architecture == "deepseek4" else 0
        assert least - ROUNDED <= found <= most + ROUNDED, row.setting


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `make estimates`"
