"""Which generation of GPU a model needs: types of numbers and quantisations that older ones cannot compute.

The figures are the least compute capabilities of vLLM 0.32 (``get_min_capability`` of
``vllm/model_executor/layers/quantization``; ``vllm/platforms/cuda.py:check_if_supports_dtype``), which falls back to
slower kernels for FP8 on GPUs before 8.9. A device that does not tell its capability is never refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.device import Device
from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Model
from gpustack.engines import parameters
from gpustack.engines.memory import SafetensorsMemory

_ENGINE_LEAST = (7, 0)
_BFLOAT16_LEAST = (8, 0)
_METHOD_LEAST: Mapping[str, tuple[int, int]] = {
    "auto-round": (7, 0), "awq": (7, 5), "bitsandbytes": (7, 0), "compressed-tensors": (7, 0), "experts_int8": (8, 0),
    "fbgemm_fp8": (8, 0), "fp8": (7, 5), "fp_quant": (10, 0), "gptq": (7, 0), "modelopt": (8, 0), "moe_wna16": (7, 0),
    "mxfp4": (8, 0), "mxfp8": (8, 0), "quark": (7, 0), "torchao": (7, 5),
}  # fmt: skip
_FORMAT_LEAST: Mapping[str, tuple[int, int]] = {
    "int-quantized": (7, 5), "float-quantized": (7, 5), "naive-quantized": (7, 5), "marlin-24": (8, 0),
    "nvfp4-pack-quantized": (7, 5), "nvfp4": (7, 5), "mxfp4-pack-quantized": (8, 0), "mxfp8-quantized": (8, 0),
}  # fmt: skip
"""Of methods with several formats; where a format is not here, what the method needs."""
_NEEDS_BFLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
"""Model types that are numerically unstable in 16-bit floats of the older kind (vLLM refuses those for them)."""


@attrs.frozen
class CapabilityNeed:
    """The least compute capability, and what needs it."""

    least: tuple[int, int]
    what: str


def capability_need(model: Model, facts: ModelFacts, memory: SafetensorsMemory) -> CapabilityNeed:
    """What the deployment needs of a CUDA device."""
    needs = [CapabilityNeed(_ENGINE_LEAST, "the engine")]
    given = model.backend_parameters
    dtype = parameters.value_of(given, *memory.dtype) if memory.dtype else None
    if dtype == "bfloat16":
        needs.append(CapabilityNeed(_BFLOAT16_LEAST, f"{memory.dtype[0]} bfloat16"))
    elif facts.model_type in _NEEDS_BFLOAT16 and dtype in (None, "auto"):
        needs.append(CapabilityNeed(_BFLOAT16_LEAST, f"{facts.model_type}, which computes in bfloat16 only,"))
    asked = parameters.value_of(given, *memory.quantisation) if memory.quantisation else None
    method = facts.quantisation or asked
    if method is not None:
        by_format = _FORMAT_LEAST.get(facts.quantisation_format or "")
        least = by_format or _METHOD_LEAST.get(method, _ENGINE_LEAST)
        needs.append(CapabilityNeed(least, f"its quantisation ({facts.quantisation_format or method})"))
    return max(needs, key=lambda need: need.least)


def is_too_old(device: Device, need: CapabilityNeed) -> bool:
    """Whether a device is known to be older than what is needed."""
    known = _capability(device)
    return known is not None and known < need.least


def sentence(device: Device, where: str, need: CapabilityNeed) -> str:
    """Why a device is not used."""
    major, minor = need.least
    return (
        f"GPU {device.index} ({device.name}) of worker {where} has compute capability {device.compute_capability}, and "
        f"{need.what} needs {major}.{minor}"
    )


def _capability(device: Device) -> tuple[int, int] | None:
    if device.type != "cuda" or device.compute_capability is None:
        return None
    major, _, minor = device.compute_capability.partition(".")
    sound = all(part.isascii() and part.isdigit() and len(part) < 4 for part in (major, minor or "0"))
    return (int(major), int(minor or "0")) if sound else None
