"""The environment variables that show an engine the devices it was given, and hide the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

VARIABLES: Mapping[str, str] = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "corex": "CUDA_VISIBLE_DEVICES",
    "npu": "ASCEND_RT_VISIBLE_DEVICES",
    "rocm": "ROCR_VISIBLE_DEVICES",
    "dcu": "HIP_VISIBLE_DEVICES",
    "mlu": "MLU_VISIBLE_DEVICES",
    "musa": "MUSA_VISIBLE_DEVICES",
}
"""Device type → variable. Unknown types take CUDA's; Apple's one device needs none."""

_NONE: Mapping[str, str] = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "HIP_VISIBLE_DEVICES": "-1",
    "MUSA_VISIBLE_DEVICES": "-1",
    "GGML_VK_VISIBLE_DEVICES": "",
}


def device_environment(device_type: str | None, indexes: Sequence[int]) -> dict[str, str]:
    """Variables with which an engine sees exactly the devices of ``indexes``; with none of them it sees no device.

    Without that, llama.cpp would compute on a GPU on which nothing was claimed.
    """
    if not indexes:
        return dict(_NONE)
    if device_type == "mps":
        return {}
    listed = ",".join(str(index) for index in sorted(indexes))
    if device_type == "xpu":
        return {"ONEAPI_DEVICE_SELECTOR": f"level_zero:{listed}"}
    variable = VARIABLES.get(device_type or "", "CUDA_VISIBLE_DEVICES")
    if device_type == "cuda":
        # By default CUDA orders devices by speed; our indexes are those of the driver, which orders them by bus.
        return {variable: listed, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {variable: listed}
