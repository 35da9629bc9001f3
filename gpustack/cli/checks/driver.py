"""Whether the drivers of the GPUs answer."""

from __future__ import annotations

from datetime import UTC, datetime

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.domain.unit import human_bytes
from gpustack.hardware.detection import DeviceMonitor

_FIX = (
    "Install or repair the driver (the vendor's tool, such as nvidia-smi, must list the devices), then try again; in a "
    "container give it the devices (--gpus all)."
)


async def look(context: CheckContext) -> list[Finding]:
    detection = await DeviceMonitor().look(datetime.now(UTC))
    found = [failed(fault, _FIX) for fault in detection.faults]
    for device in detection.devices:
        total = device.memory.total
        found.append(good(f"{device.type}:{device.index} {device.name}, {human_bytes(total)}"))
    return found or [note("no GPU was found: models run on the CPU")]
