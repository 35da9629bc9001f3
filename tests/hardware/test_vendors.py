"""What vendors' tools print becomes devices; what they leave out is unknown, and costs no device."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gpustack.domain.device import DeviceLink, DeviceNetwork, LinkKind
from gpustack.domain.unit import MIB
from gpustack.hardware.detector import DetectorReport
from gpustack.hardware.figures import json_in
from gpustack.hardware.look import detectors
from gpustack.hardware.recording import ReplayProbe

DATA = Path(__file__).with_name("data")
ROCM = "--showid --showproductname --showuniqueid --showmeminfo vram --showuse --showtemp --json"
IXSMI = "--query-gpu=index,name,uuid,memory.total,memory.used,utilization.gpu,temperature.gpu --format=csv,noheader"
ESSENTIAL = "--query-gpu=index,name,memory.total,memory.used --format=csv,noheader"
PPU = (
    "--query-ppu=index,name,uuid,driver_version,memory.total,memory.used,utilization.ppu,temperature.ppu "
    "--format=csv,noheader"
)
SCENES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "amd-smi": (
        "amd",
        {
            "amd-smi static --json": "amd-smi-static.json",
            "amd-smi metric --json": "amd-smi-metric.json",
            "amd-smi topology --json": "amd-smi-topology.json",
        },
    ),
    "rocm-smi": ("amd", {f"rocm-smi {ROCM}": "rocm-smi.json"}),
    "rocm-smi-apu": ("amd", {f"rocm-smi {ROCM}": "rocm-smi-apu.json"}),
    "hy-smi": ("hygon", {f"hy-smi {ROCM}": "hy-smi.json"}),
    "hy-smi-2504": ("hygon", {f"hy-smi {ROCM}": "hy-smi-2504.json"}),
    "910b": (
        "ascend",
        {
            "npu-smi info": "npu-smi-910b.txt",
            "npu-smi info -m": "npu-smi-910b-m.txt",
            "npu-smi info -t topo": "npu-smi-910b-topo.txt",
        },
    ),
    "910c": ("ascend", {"npu-smi info": "npu-smi-910c.txt"}),
    "910a": ("ascend", {"npu-smi info": "npu-smi-910a.txt"}),
    "310": ("ascend", {"npu-smi info": "npu-smi-310.txt", "npu-smi info -m": "npu-smi-310-m.txt"}),
    "mthreads-gmi": ("moore_threads", {"mthreads-gmi -q": "mthreads-gmi.txt"}),
    "ixsmi": ("iluvatar", {f"ixsmi {IXSMI}": "ixsmi.csv"}),
    "ppu-smi": ("thead", {f"ppu-smi {PPU}": "ppu-smi.csv"}),
    "cnmon": ("cambricon", {"cnmon info -e -m -u -j": "cnmon_info.json"}),
    "mx-smi": (
        "metax",
        {"mx-smi": "mx-smi.txt", "mx-smi -L": "mx-smi-list.txt", "mx-smi topo -n": "mx-smi-topo.txt"},
    ),
    "mx-smi-2.2.4": ("metax", {"mx-smi": "mx-smi-2.2.4.txt"}),
    "xpu-smi": (
        "intel",
        {
            "xpu-smi discovery -j": "xpu-smi-discovery.json",
            "xpu-smi discovery -d 0 -j": "xpu-smi-device.json",
            "xpu-smi stats -d 0 -j": "xpu-smi-stats.json",
        },
    ),
    "apple": ("apple", {"system_profiler SPDisplaysDataType -json": "system_profiler.json"}),
}
"""A machine: the detector, and the file in which each command's output is."""


def asked(scene: str) -> list[dict[str, Any]]:
    return [
        {"run": command.split(), "out": (DATA / file).read_text()}
        for command, file in SCENES[scene][1].items()
    ]


def looked(
    scene: str, *more: Mapping[str, Any], outputs: list[dict[str, Any]] | None = None
) -> DetectorReport:
    """What the detector of a scene makes of its outputs, and of more that it asks for."""
    (detector,) = (one for one in detectors() if one.name == SCENES[scene][0])
    return detector.look(ReplayProbe.of([*(asked(scene) if outputs is None else outputs), *more]))


def summary(report: DetectorReport) -> list[tuple[Any, ...]]:
    """Index, name, memory (total, used) in MiB, load, temperature of each device."""
    return [
        (
            one.index,
            one.name,
            None if one.memory.total is None else one.memory.total // MIB,
            None if one.memory.used is None else one.memory.used // MIB,
            None if one.core is None else one.core.utilization_rate,
            one.temperature,
        )
        for one in report.devices
    ]


def test_every_detector_has_an_output_to_read_and_every_output_is_accounted_for() -> None:
    tried = {detector for detector, _ in SCENES.values()}
    assert tried == {one.name for one in detectors()} - {"nvidia"}, "NVIDIA's is asked by its library"
    told = set(re.findall(r"`([\w.-]+\.(?:json|txt|csv))`", (DATA / "README.md").read_text()))
    assert told == {path.name for path in DATA.iterdir() if path.name != "README.md" and path.is_file()}


def test_amd_by_amd_smi() -> None:
    report = looked("amd-smi")
    assert report.faults == ()
    assert summary(report) == [
        (0, "AMD Instinct MI350X", 294896, 14569, 42.0, 41.0),
        (1, "AMD", 294896, 0, None, None),
    ]
    first, second = report.devices
    assert (first.vendor, first.type, first.uuid) == ("AMD", "rocm", "GPU-1111111111111100")
    assert (first.driver_version, dict(first.labels)) == ("6.18.3", {"llvm": "gfx950"})
    assert second.links == (DeviceLink(kind=LinkKind.FABRIC, indexes=(0,)),)


def test_amd_by_rocm_smi() -> None:
    (device,) = looked("rocm-smi", {"read": "/sys/module/amdgpu/version", "text": "6.8.5"}).devices
    assert (device.name, device.uuid) == ("Navi 32 [Radeon RX 7700 XT / 7800 XT]", "GPU-1111111111111111")
    assert (device.memory.total, device.memory.used) == (17163091968, 11615076352)
    assert (device.temperature, device.driver_version, device.labels["llvm"]) == (51.0, "6.8.5", "gfx1101")
    apu, instinct = looked("rocm-smi-apu").devices
    assert (apu.name, apu.uuid, apu.memory.total, apu.labels["llvm"]) == ("Phoenix3", None, None, "gfx1103")
    assert (instinct.index, instinct.labels["llvm"]) == (1, "gfx90a")


def test_amd_by_its_kernel_driver_where_no_tool_is_installed() -> None:
    node, card = "/sys/class/kfd/kfd/topology/nodes", "/sys/bus/pci/devices/0000:c4:00.0"
    report = looked(
        "rocm-smi",
        {"names": node, "found": ["0", "1", "10", "2"]},
        {"read": f"{node}/0/properties", "text": "cpu_cores_count 16\ngfx_target_version 0"},
        {
            "read": f"{node}/1/properties",
            "text": "simd_count 120\nsimd_per_cu 2\ngfx_target_version 110001\nlocation_id 50176\ndomain 0\n"
            "unique_id 1229782938247303441",
        },
        {"read": f"{card}/mem_info_vram_total", "text": "17163091968"},
        {"read": f"{card}/mem_info_vram_used", "text": "11615076352"},
        {"read": f"{card}/gpu_busy_percent", "text": "7"},
        {"names": f"{card}/hwmon", "found": ["hwmon3"]},
        {"read": f"{card}/hwmon/hwmon3/temp1_input", "text": "55000"},
        {"read": f"{node}/2/properties", "text": "gfx_target_version 90010"},
        # graphics within a processor: they count, and are not shown
        {"read": f"{node}/10/properties", "text": "gfx_target_version 110003\nlocation_id 768"},
        {"read": "/sys/bus/pci/devices/0000:03:00.0/mem_info_vram_total", "text": "536870912"},
        outputs=[],
    )
    assert report.faults == ()
    first, second = report.devices
    assert (first.index, first.name, first.uuid) == (0, "AMD gfx1101", "GPU-1111111111111111")
    assert (first.core.total, first.core.utilization_rate, first.temperature) == (60, 7.0, 55.0)
    assert first.memory.total == 17163091968
    assert (second.index, second.labels["llvm"], second.memory.total) == (1, "gfx90a", None)


def test_amds_kernel_driver_tells_which_processes_compute_with_how_much_memory() -> None:
    node, process = "/sys/class/kfd/kfd/topology/nodes", "/sys/class/kfd/kfd/proc"
    kernel: list[dict[str, Any]] = [
        {"names": node, "found": ["0", "1"]},
        {"read": f"{node}/0/properties", "text": "gfx_target_version 0"},
        {"read": f"{node}/1/properties", "text": "gfx_target_version 90500\nunique_id 1229782938247303424"},
        {"read": f"{node}/1/gpu_id", "text": "41213"},
        {"names": process, "found": ["17", "18", "19", "self"]},
        {"read": f"{process}/17/vram_41213", "text": "1048576"},
        {"read": f"{process}/18/vram_41213", "text": "0"},
        {"read": f"{process}/19/vram_7", "text": "5"},
    ]
    [use] = looked("amd-smi", *kernel).uses
    assert (use.type, use.index, use.by_process, use.partial) == ("rocm", 0, {17: 1048576, 18: 0}, True)
    kernel[4]["found"] = []
    assert looked("amd-smi", *kernel).uses == ()


def test_a_uuid_by_which_rocm_would_know_no_card_is_none() -> None:
    node = "/sys/class/kfd/kfd/topology/nodes"
    kernel: list[dict[str, Any]] = [
        {"names": node, "found": ["1"]},
        {"read": f"{node}/1/properties", "text": "gfx_target_version 90500\nunique_id 1229782938247303424"},
    ]
    assert [one.uuid for one in looked("amd-smi", *kernel).devices] == ["GPU-1111111111111100", None]
    kernel[1]["text"] = "gfx_target_version 90500\nunique_id 7"
    assert [one.uuid for one in looked("amd-smi", *kernel).devices] == [None, None]


def test_hygons_own_rocm_smi_is_read_as_hygons() -> None:
    output = {"run": ["rocm-smi", *ROCM.split()], "out": (DATA / "hy-smi.json").read_text()}
    assert [one.type for one in looked("hy-smi", outputs=[output]).devices] == ["dcu"]
    assert looked("rocm-smi", outputs=[output]).devices == ()


def test_hygon() -> None:
    driver = {"read": "/sys/module/hydcu/version", "text": "6.2.11"}
    report = looked("hy-smi", driver)
    assert summary(report) == [(0, "DCU K100_AI", 65520, 2, 0.0, 39.0)]
    (device,) = report.devices
    assert (device.type, device.uuid, device.driver_version) == ("dcu", "1111111111111111", "6.2.11")
    assert [row[2:] for row in sorted(summary(looked("hy-smi-2504")))] == [
        (65520, 20413, 0.0, 50.0),
        (65520, 3, 27.5, None),
    ]


def test_ascend() -> None:
    report = looked("910b", {"read": "/etc/hccn.conf", "text": "address_1=10.0.0.8\nnetmask_1=255.255.0.0"})
    assert summary(report) == [
        (0, "Ascend 910B1", 65536, 3453, 0.0, 50.0),
        (1, "Ascend 910B1", 65536, 45000, 85.0, 49.0),
        (2, "Ascend 910B1", 65536, 3453, 0.0, 51.0),
    ]
    first, second, third = report.devices
    assert (second.device_index, second.device_chip_index, second.driver_version) == (4, 0, "25.3.rc1")
    assert second.network == DeviceNetwork(inet="10.0.0.8", netmask="255.255.0.0")
    assert third.fault is not None and "Critical" in third.fault
    assert first.links == (DeviceLink(kind=LinkKind.FABRIC, indexes=(1, 2)),)
    assert second.ways.get(2) == DeviceLink(kind=LinkKind.SYSTEM, indexes=(2,))


def test_ascend_cards_of_other_shapes() -> None:
    assert summary(looked("910a")) == [(0, "Ascend 910A", 32768, 0, 0.0, 39.0)]
    assert [(one.index, one.device_index, one.device_chip_index) for one in looked("910c").devices] == [
        (0, 0, 0),
        (1, 0, 1),
    ]
    assert summary(looked("310")) == [
        (0, "Ascend 310", 8192, 2703, 0.0, 73.0),
        (1, "Ascend 310", 8192, 2867, 0.0, 74.0),
    ]


def test_moore_threads() -> None:
    report = looked("mthreads-gmi")
    assert summary(report) == [
        (0, "MTT S4000", 49152, 3419, 12.0, 59.0),
        (1, "MTT S4000", 49152, 0, None, None),
    ]
    assert [(one.type, one.uuid is None, one.driver_version) for one in report.devices] == [
        ("musa", False, "2.7.0"),
        ("musa", True, "2.7.0"),
    ]


def test_iluvatar() -> None:
    report = looked("ixsmi")
    assert summary(report) == [
        (0, "Iluvatar MR-V50", 16384, 116, 0.0, 30.0),
        (1, "Iluvatar MR-V50", 16384, None, None, None),
    ]
    assert report.devices[0].type == "corex"


def test_a_release_that_knows_fewer_fields_is_asked_for_fewer() -> None:
    refused = {"run": ["ixsmi", *IXSMI.split()], "out": 'Field "uuid" is not a valid field to query.\n'}
    essential = {"run": ["ixsmi", *ESSENTIAL.split()], "out": (DATA / "ixsmi-essential.csv").read_text()}
    report = looked("ixsmi", outputs=[refused, essential])
    assert (report.faults, summary(report)) == ((), [(0, "Iluvatar MR-V50", 16384, 116, None, None)])


def test_thead() -> None:
    report = looked("ppu-smi")
    assert summary(report)[0] == (0, "PPU-ZW810E", 98304, 606, 3.0, 34.0)
    assert (report.devices[1].type, report.devices[1].driver_version) == ("ppu", "1.4.0")


def test_cambricon() -> None:
    assert sorted(summary(looked("cnmon"))) == [
        (0, "MLU370-X4", 23308, None, None, None),
        (1, "MLU370-X4", 23308, 1024, 7.0, 32.0),
    ]


def test_metax() -> None:
    report = looked("mx-smi")
    assert summary(report) == [
        (0, "MetaX N260", 65536, 666, 0.0, 37.0),
        (1, "MetaX N260", 65536, 32000, 42.0, 38.0),
    ]
    first, second = report.devices
    assert (first.type, first.driver_version, first.fault) == ("maca", "3.0.11", None)
    assert (first.uuid, second.uuid) == ("GPU-11111111-1111-1111-1111-111111111100", None)
    assert second.fault == "mx-smi says of the state of this GPU: Not Available"
    assert first.links == (DeviceLink(kind=LinkKind.FABRIC, indexes=(1,)),)
    assert summary(looked("mx-smi-2.2.4")) == [(0, "MetaX C500", 65536, 858, 0.0, 45.0)]


def test_intel() -> None:
    report = looked("xpu-smi")
    assert summary(report) == [
        (0, "Intel(R) Arc(TM) Pro B60 Graphics", 24480, 211, 12.0, 48.0),
        (1, "Intel(R) Graphics [0xe211]", None, None, None, None),
    ]
    assert (report.devices[0].type, report.devices[0].driver_version) == ("xpu", "7B7A46009E666C4D10E1134")


def test_intel_cards_with_memory_are_seen_without_its_tool_and_graphics_of_processors_are_not() -> None:
    drm = "/sys/class/drm"
    report = looked(
        "xpu-smi",
        {"names": drm, "found": ["card0", "card1", "card1-DP-1", "card2", "renderD128"]},
        *({"read": f"{drm}/card{n}/device/vendor", "text": "0x8086"} for n in range(3)),
        {"names": f"{drm}/card1/device", "found": ["tile0", "tile0_x"]},
        {"read": f"{drm}/card1/device/tile0/physical_vram_size_bytes", "text": "25669140480"},
        {"read": f"{drm}/card1/device/device", "text": "0xe211"},
        {"read": f"{drm}/card2/lmem_total_bytes", "text": "17179869184"},
        {"read": f"{drm}/card2/lmem_avail_bytes", "text": "17079869184"},
        outputs=[],
    )
    assert report.faults == ()
    assert [(one.index, one.name, one.memory.total, one.memory.used) for one in report.devices] == [
        (0, "Intel GPU [0xe211]", 25669140480, None),
        (1, "Intel GPU", 17179869184, 100000000),
    ]


def test_apple() -> None:
    memory = {"run": ["sysctl", "-n", "hw.memsize"], "out": "68719476736\n"}
    (device,) = looked("apple", memory).devices
    assert (device.name, device.type, device.core.total) == ("Apple M2 Max", "mps", 38)
    assert (device.memory.total, device.memory.is_unified_memory) == (51539607552, True)


@pytest.mark.parametrize("scene", SCENES)
def test_a_tool_that_fails_after_it_told_of_its_cards_loses_none(scene: str) -> None:
    whole = looked(scene)
    failed = [{**one, "fault": "ended with exit code 1"} for one in asked(scene)]
    assert looked(scene, outputs=failed).devices == whole.devices


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(
    "said", ["", "\n", "Segmentation fault", "{", "[1, 2]", '{"card0": 7}', "| a | b | c |\n" * 3]
)
def test_a_tool_that_says_nothing_of_use_is_a_sentence(scene: str, said: str) -> None:
    report = looked(scene, outputs=[{**one, "out": said} for one in asked(scene)])
    assert report.devices == ()
    detector = SCENES[scene][0]
    # a machine of Apple's or with an Intel processor may well have no card
    assert detector in ("apple", "intel") or len(report.faults) == 1


@pytest.mark.parametrize("scene", SCENES)
def test_a_missing_tool_is_named_with_what_to_do(scene: str) -> None:
    report = looked(scene, outputs=[])
    detector = SCENES[scene][0]
    if detector in ("apple", "intel", "amd"):
        assert report == DetectorReport(), "these have another source, or need none"
    else:
        assert "is not installed" in report.faults[0]


def with_one_unknown(output: str) -> Iterator[str]:
    """The output with one value after another replaced by N/A, but for those by which a card is known as one."""
    document = json_in(output)
    if document is not None:
        yield from map(json.dumps, _without_a_leaf(document))
    for line in output.splitlines():
        values = line.split(", ")
        for place in range(1, len(values)) if document is None else ():
            yield output.replace(line, ", ".join([*values[:place], "[N/A]", *values[place + 1 :]]))
        key, colon, value = line.partition(" : ")
        if colon and value and document is None:
            yield output.replace(line, f"{key} : N/A", 1)


_IDENTITIES = {"gpu", "CardNum", "device_id", "spdisplays_vendor"}


def _without_a_leaf(document: Any) -> Iterator[Any]:
    parts = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(parts):
        document[key] = "N/A"
        if key not in _IDENTITIES and not isinstance(value, dict | list):
            yield document
        document[key] = value
        if isinstance(value, dict | list):
            for _ in _without_a_leaf(value):
                yield document


@pytest.mark.parametrize("scene", SCENES)
def test_no_value_that_turns_unknown_costs_a_card(scene: str) -> None:
    before = len(looked(scene).devices)
    for place, one in enumerate(asked(scene)):
        for text in with_one_unknown(one["out"]):
            outputs = asked(scene)
            outputs[place]["out"] = text
            assert len(looked(scene, outputs=outputs).devices) == before, text


@pytest.mark.parametrize("scene", SCENES)
def test_an_output_that_is_cut_anywhere_is_read_as_far_as_it_goes(scene: str) -> None:
    whole = {one.index for one in looked(scene).devices}
    for place, one in enumerate(asked(scene)):
        for end in range(0, len(one["out"]), 31):
            outputs = asked(scene)
            outputs[place]["out"] = one["out"][:end]
            report = looked(scene, outputs=outputs)
            assert {device.index for device in report.devices} <= whole | set(range(len(whole)))
