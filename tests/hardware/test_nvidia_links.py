"""How the cards of a machine are joined, as NVML tells it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gpustack.domain.device import Device, DeviceLink, LinkKind
from gpustack.hardware.detection import DeviceMonitor
from tests.child import environment
from tests.fakes.nvml import FakeNvml, cards
from tests.hardware.machine import NOW, plug

SWITCHED = ",".join(["switch"] * 18)


def bus(index: int) -> str:
    return str(cards(index + 1)[index]["bus"])


@pytest.fixture
def monitor(nvml: FakeNvml, tmp_path: Path) -> DeviceMonitor:
    return DeviceMonitor(root=plug(tmp_path), env=environment(**nvml.env), deadline=20.0)


async def seen(monitor: DeviceMonitor) -> Sequence[Device]:
    found = await monitor.look(NOW)
    assert found.faults == ()
    return found.devices


def fabric(*indexes: int, count: int) -> DeviceLink:
    return DeviceLink(kind=LinkKind.FABRIC, indexes=indexes, count=count)


async def test_cards_on_switches_have_as_many_links_to_each_other_as_the_one_with_fewer(
    monitor: DeviceMonitor, nvml: FakeNvml
) -> None:
    """And of several ways the nearest is shown: these cards also reach each other over PCIe."""
    first, second, third = cards(3, nvlinks=SWITCHED, path="0.0.0.0")
    nvml.tell([first, second, {**third, "nvlinks": "switch,-,switch"}])
    found = await seen(monitor)
    assert found[0].links == (fabric(1, count=18), fabric(2, count=2))
    assert found[2].links == (fabric(0, 1, count=2),)


async def test_cards_that_are_cabled_to_one_another_are_told_from_the_rest(
    monitor: DeviceMonitor, nvml: FakeNvml
) -> None:
    first, second, third, fourth = cards(4)
    ends = [f"{bus(1)},{bus(1)},-", f"{bus(0)},{bus(0)}", "-", None]
    paths = ["0.0.0.0", "0.0.0.1", "0.1.0.0", "1.0.0.0"]
    nvml.tell(
        [
            {**card, "path": path, **({} if end is None else {"nvlinks": end})}
            for card, end, path in zip((first, second, third, fourth), ends, paths, strict=True)
        ]
    )
    found = await seen(monitor)
    assert found[0].links == (
        fabric(1, count=2),
        DeviceLink(kind=LinkKind.NODE, indexes=(2,)),
        DeviceLink(kind=LinkKind.SYSTEM, indexes=(3,)),
    )
    assert found[0].ways.get(1) == fabric(1, count=2)
    assert found[0].ways.get(7) is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("0.0.0.0", LinkKind.SWITCH),
        ("0.0.0.1", LinkKind.SWITCHES),
        ("0.0.1.1", LinkKind.BRIDGE),
        ("0.1.1.1", LinkKind.NODE),
        ("1.1.1.1", LinkKind.SYSTEM),
    ],
)
async def test_without_nvlink_the_way_over_pcie_is_shown(
    monitor: DeviceMonitor, nvml: FakeNvml, path: str, kind: LinkKind
) -> None:
    first, second = cards(2, path="0.0.0.0")
    nvml.tell([first, {**second, "path": path}])
    one, other = await seen(monitor)
    assert one.links == (DeviceLink(kind=kind, indexes=(1,)),)
    assert other.links == (DeviceLink(kind=kind, indexes=(0,)),)


async def test_cards_that_their_switch_keeps_apart_are_not_joined(
    monitor: DeviceMonitor, nvml: FakeNvml
) -> None:
    first, second, third = cards(3, nvlinks=SWITCHED)
    nvml.tell([first, second, {**third, "parted": 1}])
    found = await seen(monitor)
    assert found[0].links == (fabric(1, count=18),)
    assert found[2].links == ()


async def test_a_lost_card_is_joined_to_none_and_costs_the_others_nothing(
    monitor: DeviceMonitor, nvml: FakeNvml
) -> None:
    first, second, third = cards(3, nvlinks=SWITCHED)
    nvml.tell([first, {**second, "state": "lost"}, third])
    found = await seen(monitor)
    assert found[0].links == (fabric(2, count=18),)
    assert found[1].links == ()


async def test_cards_that_tell_nothing_of_it_have_no_links(monitor: DeviceMonitor, nvml: FakeNvml) -> None:
    nvml.tell(cards(2))
    assert [device.links for device in await seen(monitor)] == [(), ()]


def test_the_kinds_are_in_the_order_of_their_distance() -> None:
    assert [kind.distance for kind in LinkKind] == list(range(len(LinkKind)))
