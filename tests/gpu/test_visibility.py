"""In the environment of an engine CUDA shows exactly the devices that it was given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from gpustack.domain.device import Device
from gpustack.engines.visibility import device_environment, visible_names
from gpustack.hardware.detection import DeviceMonitor
from tests.child import ROOT, environment
from tests.gpu.card import Card

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("card")]


def seen(shown: Mapping[str, str]) -> list[str]:
    """UUIDs that a CUDA program finds in our environment with ``shown``."""
    ours = {name: value for name, value in environment().items() if not name.startswith("CUDA_")}
    asked = subprocess.run(
        [sys.executable, "-m", "tests.gpu.program", "list"],
        env={**ours, **shown},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    found: list[str] = json.loads(asked.stdout)
    return found


@pytest.fixture
async def devices() -> list[Device]:
    return list((await DeviceMonitor(deadline=60.0).look(datetime.now(UTC))).devices)


async def test_a_program_sees_the_one_device_that_its_engine_was_given(devices: list[Device]) -> None:
    for device in devices:
        assert seen(device_environment(device.type, visible_names(devices, (device.index,)))) == [device.uuid]


async def test_a_program_sees_all_its_devices_in_the_order_of_their_indexes(devices: list[Device]) -> None:
    names = visible_names(devices, [device.index for device in devices])
    assert seen(device_environment("cuda", names)) == [one.uuid for one in devices]


async def test_a_program_sees_none_where_none_was_given(card: Card) -> None:
    assert seen(device_environment("cuda", ())) == seen({"CUDA_VISIBLE_DEVICES": ""}) == []


async def test_the_uuid_we_show_is_a_name_that_cuda_takes(devices: list[Device]) -> None:
    for device in devices:
        assert device.uuid is not None
        assert seen({"CUDA_VISIBLE_DEVICES": device.uuid}) == [device.uuid]
