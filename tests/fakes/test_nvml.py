"""The real NVIDIA bindings, in a child process, see the cards we made up."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.child import environment
from tests.fakes.nvml import GB10, H200, FakeNvml, cards

ASK = """
import json, pynvml as n
def ask(question, *arguments):
    try:
        return question(*arguments)
    except n.NVMLError as error:
        return str(error)
if (failed := ask(n.nvmlInit)) is not None:
    print(json.dumps(failed))
    raise SystemExit
found = []
for index in range(n.nvmlDeviceGetCount()):
    card = n.nvmlDeviceGetHandleByIndex(index)
    memory = ask(n.nvmlDeviceGetMemoryInfo, card)
    found.append({
        "name": ask(n.nvmlDeviceGetName, card), "uuid": ask(n.nvmlDeviceGetUUID, card),
        "total": getattr(memory, "total", memory), "cc": ask(n.nvmlDeviceGetCudaComputeCapability, card),
        "watts": ask(n.nvmlDeviceGetPowerUsage, card), "limit": ask(n.nvmlDeviceGetEnforcedPowerLimit, card),
        "processes": [[p.pid, p.usedGpuMemory] for p in ask(n.nvmlDeviceGetComputeRunningProcesses, card)]
        if "lost" not in str(ask(n.nvmlDeviceGetName, card)) else None,
    })
print(json.dumps({"driver": n.nvmlSystemGetDriverVersion(), "cards": found}))
"""


def ask(nvml: FakeNvml, within: float = 30.0) -> Any:
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        env=environment(**nvml.env),
        capture_output=True,
        text=True,
        timeout=within,
        check=True,
    )
    return json.loads(answer.stdout)


def test_several_cards_are_seen(nvml: FakeNvml) -> None:
    nvml.tell(cards(2, processes="17:1024,18:2048"))
    seen = ask(nvml)
    assert seen["driver"] == "570.124.06"
    first, second = seen["cards"]
    assert first["name"] == "NVIDIA H200"
    assert first["total"] == H200["total"]
    assert first["cc"] == [9, 0]
    assert first["processes"] == [[17, 1024], [18, 2048]]
    assert first["uuid"] != second["uuid"]


def test_what_a_card_does_not_say_is_not_supported(nvml: FakeNvml) -> None:
    nvml.tell([GB10])
    (seen,) = ask(nvml)["cards"]
    assert (seen["name"], seen["watts"]) == ("NVIDIA GB10", 4720)
    assert seen["total"] == seen["limit"] == "Not Supported"


def test_a_lost_card_does_not_hide_its_neighbour(nvml: FakeNvml) -> None:
    lost, well = cards(2)
    nvml.tell([{**lost, "state": "lost"}, well])
    first, second = ask(nvml)["cards"]
    assert first["name"] == "GPU is lost"
    assert second["name"] == "NVIDIA H200"


def test_a_driver_that_is_not_loaded_says_so(nvml: FakeNvml) -> None:
    nvml.tell([], library="not_loaded")
    assert ask(nvml) == "Driver Not Loaded"


def test_a_hanging_card_hangs_the_one_who_asks(nvml: FakeNvml) -> None:
    nvml.tell(cards(1, state="hang"))
    with pytest.raises(subprocess.TimeoutExpired):
        ask(nvml, within=1.0)
