"""The environment variables that show an engine the devices it was given, and hide the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gpustack.domain.device import Device

VARIABLES: Mapping[str, str] = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "corex": "CUDA_VISIBLE_DEVICES",
    "maca": "CUDA_VISIBLE_DEVICES",
    "ppu": "CUDA_VISIBLE_DEVICES",
    "npu": "ASCEND_RT_VISIBLE_DEVICES",
    "rocm": "ROCR_VISIBLE_DEVICES",
    "dcu": "HIP_VISIBLE_DEVICES",
    "mlu": "MLU_VISIBLE_DEVICES",
    "musa": "MUSA_VISIBLE_DEVICES",
    "xpu": "ZE_AFFINITY_MASK",
}
"""Device type → variable. Unknown types take CUDA's; Apple's one device needs none."""

_BESIDE: Mapping[str, Mapping[str, str]] = {
    # By default CUDA orders devices by speed; our indexes are those of the driver, which orders them by bus.
    "cuda": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    # xpu-smi orders devices by bus; Level Zero does with this.
    "xpu": {"ZE_ENABLE_PCI_ID_DEVICE_ORDER": "1"},
}

_NONE: Mapping[str, str] = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "HIP_VISIBLE_DEVICES": "-1",
    "MUSA_VISIBLE_DEVICES": "-1",
    "GGML_VK_VISIBLE_DEVICES": "",
    "ASCEND_RT_VISIBLE_DEVICES": "-1",
    "ONEAPI_DEVICE_SELECTOR": "*:cpu",
}
"""What hides all devices of a kind. Cambricon's documentation names no such value."""


def device_environment(device_type: str | None, names: Sequence[str]) -> dict[str, str]:
    """Variables with which an engine sees exactly the devices of these names; with none of them it sees no device.

    Without that, llama.cpp would compute on a GPU on which nothing was claimed.
    """
    if not names:
        return dict(_NONE)
    if device_type == "mps":
        return {}
    variable = VARIABLES.get(device_type or "", "CUDA_VISIBLE_DEVICES")
    return {variable: ",".join(names), **_BESIDE.get(device_type or "", {})}


def visible_names(devices: Sequence[Device], indexes: Sequence[int]) -> tuple[str, ...]:
    """What the variables call the devices with these indexes, in their order, among all ``devices`` of a worker.

    That is their number. A MIG instance has none, and the numbers of whole cards beside one are not told by CUDA's
    documentation: there it is the uuid (NVIDIA, Multi-Instance GPU user guide, "CUDA device enumeration"). ROCm counts
    devices in an order of its own, not that of its tools: there it is the uuid where one is known (ROCm, GPU isolation
    techniques).
    """
    known = {device.index: device for device in devices}
    uuids = Counter(device.uuid for device in devices)
    is_divided = any(device.type == "cuda" and device.slice_profile is not None for device in devices)

    def name(index: int) -> str:
        device = known.get(index)
        if device is None:
            return str(index)
        by_uuid = device.type == "rocm" or (device.type == "cuda" and is_divided)
        # the partitions of an Instinct card share one
        is_unique = device.uuid is not None and uuids[device.uuid] == 1
        return str(device.uuid) if by_uuid and is_unique else str(device.number)

    return tuple(map(name, sorted(indexes)))
