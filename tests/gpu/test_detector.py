"""A real card is seen as NVIDIA's own tool shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import trio

from gpustack.domain.unit import MIB
from gpustack.hardware.detection import DeviceMonitor
from gpustack.hardware.dump import replay, take
from gpustack.hardware.redaction import Redaction
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


async def test_links_are_told_of_pairs_of_cards_and_of_both_the_same(look: Look) -> None:
    """A machine with one card has none."""
    found = (await DeviceMonitor(deadline=60.0).look(datetime.now(UTC))).devices
    whole = [device for device in found if device.fault is None and device.slice_profile is None]
    for device in whole:
        for other in whole:
            there, back = device.ways.get(other.index), other.ways.get(device.index)
            assert (there is None) == (back is None)
            if there is not None and back is not None:
                assert (there.kind, there.count) == (back.kind, back.count)
        assert device.ways.get(device.index) is None
        assert len(whole) > 1 or device.links == ()


@pytest.mark.usefixtures("card")
async def test_a_dump_of_this_machine_is_read_as_the_machine_was(card: Card) -> None:
    """The library answers in plain values, and nothing that tells whose card it is stays in them."""
    document = json.loads(json.dumps(Redaction().document(await take(DeviceMonitor(), datetime.now(UTC)))))
    assert card.uuid not in json.dumps(document)
    (nvidia,) = (one for one in replay(document) if one.name == "nvidia")
    assert nvidia.is_as_recorded, nvidia.recorded
    assert card.name in [device.name for device in nvidia.report.devices]
