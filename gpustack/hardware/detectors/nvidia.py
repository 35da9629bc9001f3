"""NVIDIA devices, by NVML. Runs in the detection child only: a call into the driver may hang."""

from __future__ import annotations

import functools

import attrs

from gpustack.domain.device import DEVICE_TYPES, Device, DeviceCore, DeviceMemory
from gpustack.hardware.detector import Detector, DetectorReport, DeviceUse
from gpustack.hardware.detectors._nvidia_card import Card
from gpustack.hardware.detectors._nvidia_link import join
from gpustack.hardware.detectors._nvidia_process import held_by_process
from gpustack.text import printable, said_by

VENDOR = "NVIDIA"


def look() -> DetectorReport:
    """Ask NVML about every card. Blocking, and may hang inside the driver. Failures are sentences in the report."""
    import pynvml as nvml  # type: ignore[import-untyped]  # it comes without types

    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return DetectorReport(faults=(f"NVIDIA GPUs cannot be looked at: {_reason(error)}",))
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        driver = None
    devices, faults, cards = [], [], {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            fault = f"The driver gives no access to this GPU: {said_by(error)}"
            devices.append(_device(index=index, name=VENDOR, driver_version=driver, fault=fault))
            faults.append(f"NVIDIA GPU {index} cannot be used: {said_by(error)}")
            continue
        cards[index] = Card(nvml, handle)
        devices.append(read_card(cards[index], index, driver))
    topology = join(cards)
    joined = [attrs.evolve(device, links=topology.links(device.index)) for device in devices]
    held = ((index, held_by_process(card)) for index, card in cards.items())
    uses = (_use(index=index, by_process=by_process) for index, by_process in held if by_process is not None)
    return DetectorReport(devices=tuple(joined), faults=tuple(faults), uses=tuple(uses))


def read_card(card: Card, index: int, driver: str | None) -> Device:
    """Everything that one card tells about itself."""
    memory = _memory(card)
    cores, rates = card.ask("GetNumGpuCores"), card.ask("GetUtilizationRates")
    rate = None if rates is None else float(rates.gpu)
    capability = card.ask("GetCudaComputeCapability")
    return _device(
        index=index,
        name=_text(card.ask("GetName")) or VENDOR,
        uuid=_text(card.ask("GetUUID")),
        core=None if cores is None and rate is None else DeviceCore(total=cores, utilization_rate=rate),
        memory=memory,
        temperature=_temperature(card),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        driver_version=driver,
        fault=card.fault,
    )


_device = functools.partial(Device, vendor=VENDOR, type=DEVICE_TYPES[VENDOR.lower()])
_use = functools.partial(DeviceUse, type=DEVICE_TYPES[VENDOR.lower()])


def _memory(card: Card) -> DeviceMemory:
    """Memory that the driver keeps for itself counts as used: nobody else can get it."""
    seen = card.ask("GetMemoryInfo", getattr(card.nvml, "nvmlMemory_v2", None)) or card.ask("GetMemoryInfo")
    if seen is None or not seen.total:
        # cards that share the memory of the host (GB10) do not support the question; others fail otherwise
        return DeviceMemory(is_unified_memory="GetMemoryInfo" in card.unsupported)
    used = int(seen.total - seen.free)
    return DeviceMemory(total=int(seen.total), used=used, utilization_rate=round(used / seen.total * 100, 1))


def _temperature(card: Card) -> float | None:
    seen = card.ask("GetTemperature", card.nvml.NVML_TEMPERATURE_GPU)
    return None if seen is None else float(seen)


def _text(value: str | bytes | None) -> str | None:
    """Older bindings answer with bytes."""
    return None if value is None else printable(value)


def _reason(error: Exception) -> str:
    return {
        "NVMLError_LibraryNotFound": "libnvidia-ml.so.1 is not installed (install the NVIDIA driver, or give the "
        "container access to it)",
        "NVMLError_DriverNotLoaded": "the NVIDIA kernel driver is not loaded (modprobe nvidia, or reboot after an "
        "update)",
        "NVMLError_LibRmVersionMismatch": "driver and library have different versions (reboot after the update)",
        "NVMLError_NoPermission": "this user may not access the NVIDIA devices in /dev",
    }.get(type(error).__name__, said_by(error))


DETECTOR = Detector(
    name="nvidia",
    label=VENDOR,
    pci_vendors=frozenset({"10de"}),
    device_files=("dev/nvidiactl", "dev/dxg"),
    look=look,
)
