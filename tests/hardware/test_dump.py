"""What detectors see can be written down, without telling whose machine it is, and played back to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from gpustack.hardware.detection import DeviceMonitor
from gpustack.hardware.dump import FORMAT, KIND, InvalidDump, load, replay, take
from gpustack.hardware.look import detectors, to_json
from gpustack.hardware.recording import RecordingProbe, ReplayProbe
from gpustack.hardware.redaction import Redaction
from tests.child import environment
from tests.fakes.nvml import FakeNvml, cards, instances
from tests.hardware.machine import NOW, plug
from tests.hardware.test_vendors import SCENES, asked

DUMPS = sorted(Path(__file__).with_name("dumps").glob("*.json"))


def redacted(document: Any) -> Any:
    return json.loads(json.dumps(Redaction(names=("build-host", "alice")).document(document)))


def recorded(scene: str) -> dict[str, Any]:
    """A dump of a scene of vendors' tools."""
    (detector,) = (one for one in detectors() if one.name == SCENES[scene][0])
    lines: list[Any] = []
    report = detector.look(RecordingProbe(ReplayProbe.of(asked(scene)), lines.append))
    entry = {
        "name": detector.name,
        "asked": [line["asked"] for line in lines if "asked" in line],
        "report": to_json(report),
    }
    return {"kind": KIND, "format": FORMAT, "detectors": [entry]}


@pytest.mark.parametrize("scene", SCENES)
def test_a_detector_reads_the_same_of_a_dump_from_which_names_were_taken(scene: str) -> None:
    (look,) = replay(redacted(recorded(scene)))
    assert look.is_as_recorded, look.recorded
    assert look.report.devices


async def test_a_machine_with_nvidia_cards_is_dumped_and_replayed(nvml: FakeNvml, tmp_path: Path) -> None:
    whole, divided = cards(2, nvlinks="switch,switch", path="0.0.0.0", processes="4711:1048576")
    nvml.tell([whole, {**divided, "mig": 1}, *instances(1, 0, 2)])
    monitor = DeviceMonitor(root=plug(tmp_path), env=environment(**nvml.env))
    document = redacted(await take(monitor, NOW))
    assert (document["made"], document["bus"]) == (NOW.isoformat(), [["10de", "0x030200"]])
    assert "4711" not in json.dumps(document)
    (look,) = replay(document)
    assert look.is_as_recorded
    assert [device.index for device in look.report.devices] == [0, 200, 202]
    assert look.report.uses[0].by_process == {1: 1048576}


async def test_a_look_that_hangs_tells_what_was_not_answered(tmp_path: Path) -> None:
    root = plug(tmp_path / "root", "0x1e3e", "0x120000")
    said = {"asked": {"read": "/a", "text": "b"}}
    hanging = f"""
import json, time
print(json.dumps({said!r}))
print(json.dumps({{"asking": {{"read": "/a"}}}}))
print(json.dumps({{"asking": {{"run": ["ixsmi"]}}}}), flush=True)
raise SystemExit("the driver broke")
"""
    monitor = DeviceMonitor(root=root, command=("python3", "-c", hanging))
    with trio.fail_after(60):
        (entry,) = (await take(monitor, NOW))["detectors"]
    assert entry["not_answered"] == {"run": ["ixsmi"]}
    assert (entry["asked"], entry["error"]) == ([said["asked"]], "exit code 1: the driver broke")


def test_what_tells_whose_machine_it_is_is_replaced_by_the_same_everywhere() -> None:
    text = """build-host: Serial Number : 0322821030452
"asic_serial": "0x5C88007D760374F3", "uuid": "GPU-5c88007d760374f3"
unique_id 6667579787172869363
GPU 0: (UUID: GPU-e702f06b-bbd6-bc06-5196-90a5554a24ba) mac 3c:ec:ef:12:34:56
address_0=192.168.100.101 of fe80::1ff:fe23:4567:890a, /home/alice/run by alice
| 4       0            | 1234567       | python                   | 41547                   |
|  0                    1234567         python train.py               1024           |
BIOS Version: 1.26.1.0 of build-host at 0000:c1:00.0, 65536 MiB"""
    found = Redaction(names=("build-host", "alice")).text(text)
    secrets = "build-host 0322821030452 5C88007D 5c88007d 6667579787 e702f06b 3c:ec 192.168 890a alice 1234567 python"
    for secret in secrets.split():
        assert secret not in found, secret
    assert found.count("0000000000000001") == 2 and "unique_id 1\n" in found
    assert "BIOS Version: 1.26.1.0" in found and "0000:c1:00.0, 65536 MiB" in found
    assert found.count("name1") == 2
    assert "| 41547                   |" in found and " 1024           |" in found


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"kind": KIND, "format": 99},
        {"kind": KIND, "format": FORMAT, "detectors": 5},
        {"kind": KIND, "format": FORMAT, "detectors": [{}]},
        {"kind": KIND, "format": FORMAT, "detectors": [{"name": "amd", "asked": 7}]},
    ],
)
def test_what_is_no_dump_is_refused(document: object) -> None:
    with pytest.raises(InvalidDump):
        replay(document)


@pytest.mark.parametrize("path", DUMPS, ids=[path.stem for path in DUMPS])
def test_every_dump_that_somebody_sent_is_still_read_as_it_was(path: Path) -> None:
    """``tests/hardware/dumps/README.md`` says how to add one."""
    document = load(path)
    assert redacted(document) == document, "it tells whose machine it is"
    looks = replay(document)
    assert looks
    for look in looks:
        assert look.recorded is None or look.is_as_recorded, look.report


def test_there_are_dumps() -> None:
    assert DUMPS


def test_a_file_that_is_not_json_is_no_dump(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InvalidDump, match="not JSON"):
        load(tmp_path / "x.json")


def test_a_recording_of_a_version_that_knew_fewer_fields_still_agrees_and_another_value_does_not() -> None:
    document = redacted(recorded("ixsmi"))
    report = document["detectors"][0]["report"]
    del report["left"], report["devices"][0]["links"]
    assert replay(document)[0].is_as_recorded
    report["devices"][0]["temperature"] = 31.0
    assert not replay(document)[0].is_as_recorded


def test_processes_are_replaced_wherever_they_are_named_and_a_detector_reads_the_same() -> None:
    folder = "/sys/class/kfd/kfd/proc"
    asked = [
        {"names": folder, "found": ["4711", "815"]},
        {"read": f"{folder}/4711/vram_55", "text": "1024"},
        {"read": f"{folder}/815/vram_55", "text": "2048"},
    ]
    report = {"uses": [{"by_process": {4711: 1024, 815: 2048}}], "left": [[4711, 99]]}
    found = redacted({"asked": asked, "report": report})
    assert "4711" not in str(found) and "815" not in str(found)
    probe = ReplayProbe.of(found["asked"])
    held = {pid: probe.read(f"{folder}/{pid}/vram_55") for pid in probe.names(folder)}
    assert held == {pid: str(size) for pid, size in found["report"]["uses"][0]["by_process"].items()}
    assert found["report"]["left"] == [[1, 0]]
