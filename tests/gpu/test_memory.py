"""Memory of a card that others took counts as used, and no process takes more beside its model than is assumed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpustack.domain.unit import GIB, MIB
from gpustack.policy.estimate.gguf import DEVICE_FOOTPRINT
from tests.gpu.conftest import Look

pytestmark = pytest.mark.gpu


async def used(look: Look) -> int:
    found = (await look()).memory.used
    assert found is not None
    return found


async def test_what_a_stranger_takes_is_seen_as_used(look: Look, stranger: Callable[[str, int], int]) -> None:
    stranger("hold", 0)
    before = await used(look)
    stranger("hold", 2 * GIB)
    taken = await used(look) - before
    assert 2 * GIB <= taken <= 2 * GIB + DEVICE_FOOTPRINT, f"{taken / MIB:.0f} MiB"


async def test_a_context_takes_no_more_than_is_set_aside_for_it(
    look: Look, stranger: Callable[[str, int], int]
) -> None:
    """Engines come on top of this: the code of their kernels, and workspaces of their libraries."""
    before = await used(look)
    stranger("hold", 0)
    taken = await used(look) - before
    assert 0 < taken <= DEVICE_FOOTPRINT, f"{taken / MIB:.0f} MiB"
