"""A real card is seen as NVIDIA's own tool shows it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from gpustack.domain.unit import MIB
from tests.gpu.card import Card, cards
from tests.gpu.conftest import Look

pytestmark = pytest.mark.gpu


async def test_name_driver_capability_and_size_are_those_of_the_tool(card: Card, look: Look) -> None:
    device = await look()
    assert (device.index, device.name, device.uuid) == (card.index, card.name, card.uuid)
    assert (device.driver_version, device.compute_capability) == (card.driver, card.capability)
    assert (device.vendor, device.type, device.fault) == ("NVIDIA", "cuda", None)
    assert device.memory.total is not None and device.memory.total // MIB == card.total // MIB
    assert not device.memory.is_unified_memory


async def test_used_memory_and_temperature_are_those_of_the_tool(card: Card, look: Look) -> None:
    """Others may use the card meanwhile: figures taken one after the other agree at some time."""
    with trio.fail_after(30):
        while True:
            device, told = await look(), cards()[card.index]
            assert device.memory.used is not None and device.temperature is not None
            near = abs(device.memory.used - told.used) <= 2 * MIB
            if near and abs(device.temperature - told.temperature) <= 2:
                return


async def test_a_card_at_work_is_seen_at_work(look: Look, stranger: Callable[[str, int], int]) -> None:
    stranger("work", 1 << 30)
    with trio.fail_after(30):
        while True:
            core = (await look()).core
            assert core is not None and core.utilization_rate is not None
            if core.utilization_rate > 50:
                return
