"""AMD devices: by amd-smi, else by rocm-smi, else by what the kernel's driver tells in /sys."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from gpustack.domain.device import DEVICE_TYPES, Device, LinkKind
from gpustack.hardware.detector import Detector, DetectorReport, with_faults
from gpustack.hardware.detectors import _rocm_smi
from gpustack.hardware.detectors._amd_kernel import is_within_processor, kernel_devices
from gpustack.hardware.detectors._amd_process import uses
from gpustack.hardware.figures import celsius, cores, entry, json_in, memory, percent, size, text, whole
from gpustack.hardware.probe import DeviceProbe, ToolAnswer
from gpustack.hardware.topology import Topology

VENDOR = "AMD"
_device = functools.partial(Device, vendor=VENDOR, type=DEVICE_TYPES[VENDOR.lower()])
_SAME_NODE = 2
"""Hops over PCIe between cards of one NUMA node; more lead through the link between nodes."""


def look(probe: DeviceProbe) -> DetectorReport:
    """Of the first source that tells of a card. Their order is that of ROCm only by chance: programs are shown cards by
    their uuid."""
    answers: dict[str, ToolAnswer] = {}
    for source in (_by_amd_smi, _by_rocm_smi):
        devices, said = source(probe)
        answers |= {tool: answer for tool, answer in said.items() if answer.is_installed}
        if devices:
            known = _with_driver(probe, _confirmed(probe, devices))
            return _with_uses(probe, with_faults(VENDOR, known, answers))
    devices = [_device(**fields) for fields in kernel_devices(probe) if not is_within_processor(fields)]
    failed = {tool: answer for tool, answer in answers.items() if answer.fault}
    if not devices and not answers:
        return DetectorReport()
    return _with_uses(probe, with_faults(VENDOR, _with_driver(probe, devices), failed))


def _with_uses(probe: DeviceProbe, report: DetectorReport) -> DetectorReport:
    return attrs.evolve(report, uses=tuple(uses(probe, report.devices)))


def _confirmed(probe: DeviceProbe, devices: Sequence[Device]) -> Sequence[Device]:
    """Without uuids that the kernel, where ROCm has them from, does not know: by those engines would see no device."""
    known = {str(fields["uuid"]) for fields in kernel_devices(probe) if fields["uuid"]}
    return [
        attrs.evolve(device, uuid=None) if known and device.uuid not in known else device
        for device in devices
    ]


def _with_driver(probe: DeviceProbe, devices: Sequence[Device]) -> Sequence[Device]:
    """The version of the module where the tool told none; the one that comes with a kernel has none of its own."""
    version = text(probe.read("/sys/module/amdgpu/version"))
    return [
        device if device.driver_version else attrs.evolve(device, driver_version=version)
        for device in devices
    ]


# --- amd-smi


def _by_amd_smi(probe: DeviceProbe) -> tuple[list[Device], dict[str, ToolAnswer]]:
    static = probe.run("amd-smi", "static", "--json")
    if not static.is_installed:
        return [], {"amd-smi": static}
    cards = {number: card for number, card in _entries(static.out)}
    if not cards:
        return [], {"amd-smi static": static}
    metric = probe.run("amd-smi", "metric", "--json")
    measured = dict(_entries(metric.out))
    joined = probe.run("amd-smi", "topology", "--json") if len(cards) > 1 else ToolAnswer()
    topology = _links(joined.out)
    devices = [
        attrs.evolve(_card(number, card, measured.get(number, {})), links=topology.links(number))
        for number, card in sorted(cards.items())
    ]
    return devices, {"amd-smi static": static, "amd-smi metric": metric}


def _entries(output: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """A list of cards; from ROCm 7 on within ``gpu_data``."""
    document = json_in(output)
    if isinstance(document, Mapping):
        document = document.get("gpu_data", [document])
    for one in document if isinstance(document, list) else ():
        number = whole(entry(one, "gpu"))
        if number is not None:
            yield number, one


def _card(number: int, card: Mapping[str, Any], measured: Mapping[str, Any]) -> Device:
    asic = entry(card, "asic")
    gfx = text(entry(asic, "target_graphics_version"))
    serial = _rocm_smi.hexadecimal(entry(asic, "asic_serial"))
    total = size(entry(measured, "mem_usage", "total_vram"), "MB") or size(entry(card, "vram", "size"), "MB")
    heat = (celsius(entry(measured, "temperature", place)) for place in ("hotspot", "edge", "mem"))
    return _device(
        index=number,
        name=text(entry(asic, "market_name")) or VENDOR,
        uuid=None if serial is None else f"GPU-{serial}",
        core=cores(
            whole(entry(asic, "num_compute_units")), percent(entry(measured, "usage", "gfx_activity"))
        ),
        memory=memory(total, size(entry(measured, "mem_usage", "used_vram"), "MB")),
        temperature=next((one for one in heat if one is not None), None),
        driver_version=text(entry(card, "driver", "version")),
        labels={} if gfx is None else {"llvm": gfx},
    )


def _links(output: str) -> Topology:
    topology = Topology()
    for number, one in _entries(output):
        links = one.get("links")
        for link in links if isinstance(links, list) else ():
            other, kind = whole(entry(link, "gpu")), text(entry(link, "link_type"))
            if other is None:
                continue
            if kind == "XGMI":
                topology.join(number, other, LinkKind.FABRIC)
            elif kind == "PCIE":
                hops = whole(entry(link, "num_hops"))
                is_near = hops is not None and hops <= _SAME_NODE
                topology.join(number, other, LinkKind.NODE if is_near else LinkKind.SYSTEM)
    return topology


# --- rocm-smi


def _by_rocm_smi(probe: DeviceProbe) -> tuple[list[Device], dict[str, ToolAnswer]]:
    answer, cards = _rocm_smi.ask(probe, "rocm-smi")
    devices = []
    for number, fields in cards:
        if _rocm_smi.is_hygon(fields):
            continue
        unique, gfx = _rocm_smi.unique_id(fields), _rocm_smi.gfx_of(fields)
        devices.append(
            _device(
                index=number,
                name=_rocm_smi.name_of(fields) or VENDOR,
                uuid=None if unique is None else f"GPU-{unique}",
                core=_rocm_smi.core_of(fields),
                memory=_rocm_smi.memory_of(fields),
                temperature=_rocm_smi.temperature_of(fields),
                labels={} if gfx is None else {"llvm": gfx},
            )
        )
    return devices, {"rocm-smi": answer}


DETECTOR = Detector(
    name="amd",
    label=VENDOR,
    type=DEVICE_TYPES[VENDOR.lower()],
    pci_vendors=frozenset({"1002"}),
    tools=("amd-smi", "rocm-smi"),
    folders=("/opt/rocm/bin",),
    look=look,
    rank=8,
)
