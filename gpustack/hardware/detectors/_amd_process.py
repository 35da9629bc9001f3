"""Which processes hold how much memory of an AMD device, as the kernel's compute driver (KFD) tells since Linux 5.8:
``/sys/class/kfd/kfd/proc/<pid>/vram_<gpu id>``, in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gpustack.domain.device import Device
from gpustack.hardware.detector import DeviceUse
from gpustack.hardware.detectors._amd_kernel import kernel_ids
from gpustack.hardware.figures import whole
from gpustack.hardware.probe import DeviceProbe

_PROCESSES = "/sys/class/kfd/kfd/proc"


def uses(probe: DeviceProbe, devices: Iterable[Device]) -> Iterator[DeviceUse]:
    """Of the devices whose uuid the kernel knows. Programs that only draw are not among them."""
    ids = kernel_ids(probe)
    pids = [int(name) for name in probe.names(_PROCESSES) if name.isdecimal()]
    for device in devices:
        key = ids.get(device.uuid or "")
        if key is None:
            continue
        held = _held(probe, key, pids)
        if held:  # of none it is not known whether they are hidden
            yield DeviceUse(type=device.type, index=device.index, by_process=held, partial=True)


def _held(probe: DeviceProbe, key: int, pids: Iterable[int]) -> Mapping[int, int]:
    found = ((pid, whole(probe.read(f"{_PROCESSES}/{pid}/vram_{key}"))) for pid in pids)
    return {pid: size for pid, size in found if size is not None}
