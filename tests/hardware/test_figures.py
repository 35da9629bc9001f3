"""Figures of tools are read without trust: what cannot be one is unknown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpustack.domain.device import DeviceLink, DeviceMemory, LinkKind
from gpustack.hardware.figures import celsius, json_in, memory, number, percent, size, text, whole
from gpustack.hardware.look import detectors
from gpustack.hardware.recording import ReplayProbe
from gpustack.hardware.topology import matrix
from tests.hardware.test_vendors import SCENES, asked


@pytest.mark.parametrize(
    ("value", "unit", "bytes_"),
    [
        ("143771 MiB", "B", 143771 << 20),
        ("17163091968", "B", 17163091968),
        (" 858 ", "MiB", 858 << 20),
        ({"value": 16368, "unit": "MB"}, "B", 16368 << 20),
        ({"value": 16368}, "MB", 16368 << 20),
        ("24 GB", "MiB", 24 << 30),
        ("N/A", "MiB", None),
        ("-1 MiB", "MiB", None),
        ("1e308", "GiB", None),
        ("nan", "MiB", None),
        ("12 parsecs", "MiB", None),
        (True, "B", None),
        (None, "B", None),
    ],
)
def test_sizes_are_bytes(value: object, unit: str, bytes_: int | None) -> None:
    assert size(value, unit) == bytes_


def test_a_figure_outside_of_what_can_be_is_unknown() -> None:
    assert (percent("101 %"), percent("-1"), percent("42 %")) == (None, None, 42.0)
    assert (celsius("9999"), celsius("45C"), celsius("[N/A]")) == (None, 45.0, None)
    assert (whole("-3"), whole("7 cards"), number("-2.5e1 W")) == (None, 7, -25.0)


def test_a_memory_of_nothing_or_used_beyond_its_size_is_not_believed() -> None:
    assert memory(0, 5) == DeviceMemory()
    assert memory(10, 11) == DeviceMemory(total=10)
    assert memory(10, 5) == DeviceMemory(total=10, used=5, utilization_rate=50.0)


def test_what_tools_write_where_they_do_not_know_is_no_text() -> None:
    assert [text(one) for one in ("[N/A]", " none ", "-", "", None, {})] == [None] * 6
    assert text("MTT\x1b[0m S80") == "MTT\\x1b[0m S80"


def test_json_is_found_among_warnings() -> None:
    assert json_in('WARNING: {x}\n{"a": 1}\nbye') == {"a": 1}
    assert json_in("[" * 100_000) is None
    assert json_in("nothing") is None


def test_a_matrix_of_links_tells_their_number() -> None:
    table = "        GPU0  GPU1  NIC0  CPU Affinity\nGPU0     X    NV18  PIX   0-7\nGPU1    NV18   X    SYS   0-7\n"
    assert matrix(table, "GPU").links(0) == (DeviceLink(kind=LinkKind.FABRIC, indexes=(1,), count=18),)
    assert matrix(table, "NPU").links(0) == ()


@settings(max_examples=150, deadline=None)
@given(scene=st.sampled_from(sorted(SCENES)), data=st.data())
def test_no_output_however_spoilt_makes_a_detector_fail(scene: str, data: st.DataObject) -> None:
    outputs = asked(scene)
    spoilt = data.draw(st.sampled_from(outputs))
    whole_text = spoilt["out"]
    start = data.draw(st.integers(0, len(whole_text)))
    end = data.draw(st.integers(start, min(len(whole_text), start + 60)))
    inside = st.text(max_size=12) | st.sampled_from(
        ["|", "{}", "[]", "null", "9" * 400, "-1", "GPU0", ":", "\n", "NaN"]
    )
    spoilt["out"] = whole_text[:start] + data.draw(inside) + whole_text[end:]
    (detector,) = (one for one in detectors() if one.name == SCENES[scene][0])
    for device in detector.look(ReplayProbe.of(outputs)).devices:
        assert device.index >= 0 and device.name.isprintable()
        used, total = device.memory.used, device.memory.total
        assert used is None or (total is not None and 0 <= used <= total)
