"""Metric names of engines that have no description in ``engines/``: under a custom command they run all the same."""

from __future__ import annotations

from collections.abc import Mapping

RangeMap = Mapping[str, Mapping[str, str]]
"""Version range (``*`` is any) → family of the engine → family of ours."""

_VLLM_SAME = (
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_swapped",
    "prompt_tokens",
    "generation_tokens",
    "request_prompt_tokens",
    "request_generation_tokens",
    "time_to_first_token_seconds",
    "time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_success",
)
_SGLANG_SAME = (
    "time_to_first_token_seconds",
    "time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "prompt_tokens",
    "generation_tokens",
)

VLLM: RangeMap = {
    "*": {
        **{f"vllm:{name}": f"gpustack:{name}" for name in _VLLM_SAME},
        # Counters, which cannot be shown as a rate; the rate is what Prometheus makes of the two.
        "vllm:prefix_cache_queries": "gpustack:prefix_cache_queries",
        "vllm:prefix_cache_hits": "gpustack:prefix_cache_hits",
        "vllm:kv_cache_usage_perc": "gpustack:kv_cache_usage_ratio",
    },
    "<0.9.2": {
        "vllm:gpu_prefix_cache_queries": "gpustack:prefix_cache_queries",
        "vllm:gpu_prefix_cache_hits": "gpustack:prefix_cache_hits",
        "vllm:gpu_cache_usage_perc": "gpustack:kv_cache_usage_ratio",
    },
    ">=0.10.2": {"vllm:inter_token_latency_seconds": "gpustack:time_per_output_token_seconds"},
}
SGLANG: RangeMap = {
    "*": {
        "sglang:num_running_reqs": "gpustack:num_requests_running",
        "sglang:num_queue_reqs": "gpustack:num_requests_waiting",
        "sglang:cache_hit_rate": "gpustack:prefix_cache_hit_rate",
        "sglang:token_usage": "gpustack:kv_cache_usage_ratio",
        "sglang:inter_token_latency_seconds": "gpustack:time_per_output_token_seconds",
        **{f"sglang:{name}": f"gpustack:{name}" for name in _SGLANG_SAME},
    }
}
MINDIE: RangeMap = {
    "*": {
        **{name: f"gpustack:{name}" for name in _VLLM_SAME},
        "npu_prefix_cache_hit_rate": "gpustack:prefix_cache_hit_rate",
        "npu_cache_usage_perc": "gpustack:kv_cache_usage_ratio",
    }
}

FOREIGN: Mapping[str, RangeMap] = {"vllm": VLLM, "sglang": SGLANG, "ascend-mindie": MINDIE}

COUNTED_APART: Mapping[str, str] = {"llamacpp:prompt_tokens": "llamacpp:prompt_tokens_cached"}
"""Counters that leave out what the other one counts, where those of all other engines have it in."""
