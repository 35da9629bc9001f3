"""NVIDIA devices and MIG instances, by NVML. Runs in the detection child only: a call into the driver may hang."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import attrs

from gpustack.domain.device import DEVICE_TYPES, Device, DeviceMemory
from gpustack.hardware.detector import Detector, DetectorReport, DeviceUse
from gpustack.hardware.detectors._nvidia_card import Card
from gpustack.hardware.detectors._nvidia_link import join
from gpustack.hardware.detectors._nvidia_process import held_by_process
from gpustack.hardware.detectors._nvml import Nvml
from gpustack.hardware.figures import celsius, cores, entry, memory, percent, text
from gpustack.hardware.probe import CallAnswer, DeviceProbe

VENDOR = "NVIDIA"
_MOST_CARDS = 256
_GPU_SENSOR = 0
SLICES_FROM = 100
"""MIG instance 2 of GPU 3 has the index 402: no other device has that, and it stays when others are divided."""


def look(probe: DeviceProbe) -> DetectorReport:
    """Ask NVML about every card. Blocking, and may hang inside the driver. Failures are sentences in the report."""
    begun = probe.call("Init")
    if begun.error is not None:
        return DetectorReport(faults=(f"NVIDIA GPUs cannot be looked at: {_reason(begun)}",))
    driver = text(probe.call("SystemGetDriverVersion").value)
    count = probe.call("DeviceGetCount")
    if not isinstance(count.value, int):
        return DetectorReport(faults=(f"NVIDIA GPUs cannot be looked at: {_reason(count)}",))
    devices: list[Device] = []
    faults: list[str] = []
    whole: dict[int, Card] = {}
    slices: dict[int, Card] = {}
    for index in range(min(count.value, _MOST_CARDS)):
        got = probe.call("DeviceGetHandleByIndex", index)
        if got.error is not None:
            fault = f"The driver gives no access to this GPU: {got.said}"
            devices.append(_device(index=index, name=VENDOR, driver_version=driver, fault=fault))
            faults.append(f"NVIDIA GPU {index} cannot be used: {got.said}")
            continue
        card = Card(probe, got.value)
        device = read_card(card, index, driver)
        parts = _slices(card, device) if _is_divided(card) else None
        if parts is None:
            whole[index] = card
            devices.append(device)
        else:
            devices += [part for part, _ in parts] or [_undivided(device)]
            slices |= {part.index: asked for part, asked in parts}
    topology = join(whole)
    joined = (attrs.evolve(device, links=topology.links(device.index)) for device in devices)
    held = ((index, held_by_process(card)) for index, card in {**whole, **slices}.items())
    uses = (_use(index=index, by_process=by_process) for index, by_process in held if by_process is not None)
    return DetectorReport(devices=tuple(joined), faults=tuple(faults), uses=tuple(uses))


def read_card(card: Card, index: int, driver: str | None) -> Device:
    """Everything that one card tells about itself."""
    total, rates = card.ask("GetNumGpuCores"), card.ask("GetUtilizationRates")
    capability = card.ask("GetCudaComputeCapability")
    return _device(
        index=index,
        name=text(card.ask("GetName")) or VENDOR,
        uuid=text(card.ask("GetUUID")),
        core=cores(total, percent(entry(rates, "gpu"))),
        memory=_memory(card),
        temperature=celsius(card.ask("GetTemperature", _GPU_SENSOR)),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        driver_version=driver,
        fault=card.fault,
    )


_device = functools.partial(Device, vendor=VENDOR, type=DEVICE_TYPES[VENDOR.lower()])
_use = functools.partial(DeviceUse, type=DEVICE_TYPES[VENDOR.lower()])


def _is_divided(card: Card) -> bool:
    mode = card.ask("GetMigMode")
    return card.fault is None and bool(mode) and mode[0] == 1


def _slices(card: Card, whole: Device) -> list[tuple[Device, Card]]:
    """The MIG instances of a card, each with its own memory. Heat and capability are those of the card."""
    found = []
    for number, part in _instances(card):
        name = text(part.ask("GetName")) or f"{whole.name} MIG"
        profile = re.search(r"MIG (\S+)$", name)
        device = attrs.evolve(
            whole,
            index=(whole.index + 1) * SLICES_FROM + number,
            device_index=whole.index,
            device_chip_index=number,
            name=name,
            uuid=text(part.ask("GetUUID")),
            core=None,
            memory=attrs.evolve(_memory(part), is_unified_memory=False),
            slice_profile="unknown" if profile is None else profile[1],
            fault=part.fault or whole.fault,
        )
        found.append((device, part))
    return found


def _instances(card: Card) -> Iterator[tuple[int, Card]]:
    """The numbers are not without gaps."""
    for number in range(card.ask("GetMaxMigDeviceCount") or 0):
        got = card.probe.call("DeviceGetMigDeviceHandleByIndex", card.handle, number)
        if got.error is None:
            yield number, Card(card.probe, got.value)


def _undivided(device: Device) -> Device:
    why = (
        "MIG is on and this GPU has no instances, so nothing can run on it: make some (nvidia-smi mig -cgi … -C), or "
        "turn MIG off (nvidia-smi -mig 0)"
    )
    return attrs.evolve(device, fault=device.fault or why)


def _memory(card: Card) -> DeviceMemory:
    """Memory that the driver keeps for itself counts as used: nobody else can get it."""
    seen = card.ask("GetMemoryInfo_v2") or card.ask("GetMemoryInfo")
    if not entry(seen, "total"):
        # cards that share the memory of the host (GB10) do not support the question; others fail otherwise
        return DeviceMemory(is_unified_memory="GetMemoryInfo" in card.unsupported)
    return memory(int(seen["total"]), int(seen["total"] - seen["free"]))


def _reason(answer: CallAnswer) -> str:
    return {
        "LibraryNotFound": "libnvidia-ml.so.1 is not installed (install the NVIDIA driver, or give the "
        "container access to it)",
        "DriverNotLoaded": "the NVIDIA kernel driver is not loaded (modprobe nvidia, or reboot after an update)",
        "LibRmVersionMismatch": "driver and library have different versions (reboot after the update)",
        "NoPermission": "this user may not access the NVIDIA devices in /dev",
    }.get(answer.error or "", answer.said)


DETECTOR = Detector(
    name="nvidia",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"10de"}),
    device_files=("dev/nvidiactl", "dev/dxg"),
    library=Nvml,
    look=look,
    rank=0,
)
