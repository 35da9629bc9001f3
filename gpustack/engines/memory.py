"""How an engine that loads safetensors takes memory, and which of its parameters decide about it."""

from __future__ import annotations

import attrs

from gpustack.domain.unit import GIB

Flags = tuple[str, ...]


@attrs.frozen(kw_only=True)
class SafetensorsMemory:
    """The flags are those of vLLM where an engine does not say otherwise; no flags: the engine has none."""

    pooled: bool = True
    """It takes the KV cache of all requests as one pool when it starts; otherwise memory grows with the requests."""
    on_cpu: bool = False
    """Whether it may run without devices."""
    divides: bool = True
    """Whether it divides a model among devices (tensor and pipeline parallel)."""
    spans_workers: bool = False
    """Whether it divides a model among devices of several workers."""
    host_footprint: int = 3 * GIB
    """Bytes of host memory that its processes take beside weights on the host: vLLM on a CPU had 2 GB and its cache."""
    host_of_device: int = 1 * GIB
    """The same for each device after the first."""
    context: Flags = ("--max-model-len",)
    sequences: Flags = ("--max-num-seqs",)
    """Requests at a time, at most."""
    batch_tokens: Flags = ("--max-num-batched-tokens",)
    """Tokens of all requests together in one step."""
    tensor_parallel: Flags = ("--tensor-parallel-size", "-tp")
    pipeline_parallel: Flags = ("--pipeline-parallel-size", "-pp")
    data_parallel: Flags = ("--data-parallel-size", "-dp")
    cache_type: Flags = ("--kv-cache-dtype",)
    cache_bytes: Flags = ("--kv-cache-memory-bytes",)
    """Bytes of the pool on each device. Where it is empty, the engine is not told its pool in bytes."""
    fraction: Flags = ("--gpu-memory-utilization", "--device-memory-utilization")
    """The share of the whole device that it is to take."""
    dtype: Flags = ("--dtype",)
    quantisation: Flags = ("--quantization", "-q")
    overrides: Flags = ("--hf-overrides",)
    """JSON that is laid over the model's own configuration."""
    code: Flags = ("--trust-remote-code",)
    """Allows program code of the model's repository. Where it is empty, the engine never runs such code."""
    adapters: Flags = ("--enable-lora",)
    """Allows LoRA adapters, for which room is made at the start."""
    adapter_count: Flags = ("--max-loras",)
    adapter_rank: Flags = ("--max-lora-rank",)
    eager: Flags = ("--enforce-eager",)
    """No CUDA graphs."""
    host_weights: Flags = ("--cpu-offload-gb",)
    """GiB of weights of each device that stay in host memory."""


ONE_PLACE = SafetensorsMemory(
    pooled=False,
    on_cpu=True,
    divides=False,
    context=(),
    sequences=(),
    batch_tokens=(),
    tensor_parallel=(),
    pipeline_parallel=(),
    data_parallel=(),
    cache_type=(),
    cache_bytes=(),
    fraction=(),
    quantisation=(),
    overrides=(),
    eager=(),
    host_weights=(),
    adapters=(),
    code=(),
)
"""Of an engine that loads the whole model in one place, and has none of these parameters. Others differ by a few."""
