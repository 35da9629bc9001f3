"""The table of `docs/hardware.md` says of each family what its detector does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gpustack.domain.device import Device
from gpustack.engines.visibility import VARIABLES
from gpustack.hardware.detector import Detector
from gpustack.hardware.dump import load, replay
from gpustack.hardware.look import detectors
from tests.child import ROOT
from tests.hardware.test_vendors import DATA, SCENES, looked

PAGE = (ROOT / "docs/hardware.md").read_text()
MORE: list[dict[str, Any]] = [
    {"read": "/sys/module/hycu/version", "text": "6.2"},
    {"run": ["sysctl", "-n", "hw.memsize"], "out": "68719476736"},
]
"""What detectors ask beside the tool whose output is in a file."""


def rows() -> dict[str, list[str]]:
    """The cells of the table by the vendor."""
    lines = (re.split(r"\s*\|\s*", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| "))
    return {cells[0]: cells[1:] for cells in lines if len(cells) == 6 and cells[0] != "vendor"}


def row_of(detector: Detector) -> list[str]:
    (found,) = (cells for vendor, cells in rows().items() if detector.label in vendor)
    return found


def seen(detector: Detector) -> Iterable[Device]:
    """Devices that it finds in any of the outputs that we have."""
    if detector.name == "nvidia":
        dump = Path(__file__).with_name("dumps") / "nvidia-h200-mig.json"
        return [*replay(load(dump))[0].report.devices, *_two_cards()]
    scenes = (scene for scene, (name, _) in SCENES.items() if name == detector.name)
    return [device for scene in scenes for device in looked(scene, *MORE).devices]


def _two_cards() -> list[Device]:
    """Links need two whole cards; tests/hardware/test_nvidia_links.py has them from the library."""
    from gpustack.domain.device import DeviceLink, LinkKind

    links = (DeviceLink(kind=LinkKind.FABRIC, indexes=(1,)),)
    return [Device(index=0, name="", vendor="NVIDIA", type="cuda", links=links)]


def told(devices: Iterable[Device]) -> set[str]:
    found = set()
    for one in devices:
        fields = {
            "uuid": one.uuid,
            "memory": one.memory.total,
            "used": one.memory.used,
            "load": None if one.core is None else one.core.utilization_rate,
            "temperature": one.temperature,
            "driver": one.driver_version,
            "links": one.links or None,
        }
        found |= {name for name, value in fields.items() if value is not None}
    return found


def test_every_detector_has_its_row() -> None:
    assert len(rows()) == len(detectors())


@pytest.mark.parametrize("detector", detectors(), ids=lambda one: one.name)
def test_a_row_says_what_the_detector_does(detector: Detector) -> None:
    kind, by, fields, variable, _ = row_of(detector)
    assert kind == f"`{detector.type}`"
    for tool in detector.tools:
        assert f"`{tool}`" in by
    assert set(fields.split(", ")) == told(seen(detector))
    assert variable == (f"`{VARIABLES[detector.type]}`" if detector.type in VARIABLES else "none")


@pytest.mark.parametrize("detector", detectors(), ids=lambda one: one.name)
def test_only_what_was_recorded_is_called_so(detector: Detector) -> None:
    *_, sure = row_of(detector)
    if detector.name == "nvidia":
        assert sure.startswith("real cards")
        return
    lines = (DATA / "README.md").read_text().splitlines()
    files = {file for name, outputs in SCENES.values() if name == detector.name for file in outputs.values()}
    is_recorded = any(
        line.endswith("| recorded |") and f"`{file}`" in line for line in lines for file in files
    )
    assert sure == ("recorded" if is_recorded else "documentation")
