"""`gpustack hardware` shows this machine's GPUs, and writes down what is seen of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpustack.cli.commands import hardware
from gpustack.cli.main import main
from gpustack.cli.terminal import stdout
from gpustack.domain.device import Device, DeviceCore, DeviceLink, DeviceMemory, LinkKind
from gpustack.hardware.dump import load, replay


def test_a_row_for_each_device_says_what_is_known_of_it_and_what_is_wrong() -> None:
    card = Device(
        index=0,
        name="NVIDIA H200",
        vendor="NVIDIA",
        type="cuda",
        memory=DeviceMemory(total=141 << 30, used=1 << 30),
        core=DeviceCore(utilization_rate=42.0),
        temperature=30.0,
        driver_version="570.1",
        links=(DeviceLink(kind=LinkKind.FABRIC, indexes=(1,), count=18),),
    )
    lost = Device(index=1, name="NVIDIA", vendor="NVIDIA", type="cuda", fault="The GPU is lost")
    lines = hardware._table([card, lost], stdout({})).splitlines()
    assert lines[0].split()[:3] == ["INDEX", "TYPE", "NAME"]
    assert (
        "141.0 GiB" in lines[1] and "42 %" in lines[1] and "30 °C" in lines[1] and "fabric x18: 1" in lines[1]
    )
    assert lines[2].split() == ["1", "cuda", "NVIDIA", *("-" * 6)]
    assert lines[3].strip() == "The GPU is lost"


def test_the_devices_are_listed_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "-o", "json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)


def test_a_dump_is_a_file_that_can_be_played_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "dump.json"
    assert main(["hardware", "dump", "-o", str(place)]) == 0
    assert str(place) in capsys.readouterr().err
    assert all(look.is_as_recorded for look in replay(load(place)) if look.recorded is not None)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "dump", "-o", str(tmp_path / "missing" / "dump.json")]) == 1
    assert "cannot be written" in capsys.readouterr().err
