"""The memory that MindIE needs of NPUs: what it keeps for itself, weights, cache and work space.

The formulas are those of the existing product, whose users rely on them: the cache of one request of full length, and
the work space of a full batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB, MIB
from gpustack.engines.mindie import reserved_bytes
from gpustack.engines.mindie_parameters import values_of

from .need import DeviceNeed, MemoryDemand

HOST_FOOTPRINT = 512 * MIB
_COUNTS = (1, 2, 4, 8, 16, 32)
"""MindIE divides a model among so many NPUs."""


@attrs.frozen(kw_only=True)
class MindieDemand(MemoryDemand):
    """Bytes. ``divided`` is shared among the NPUs, ``reserved`` is kept on each of them."""

    divided: int
    reserved: int
    fraction: float
    """The share of each NPU that MindIE takes."""
    host: int

    def cpu(self) -> int:
        return self.host

    def devices(self, shares: Sequence[float], layers: int | None = None) -> DeviceNeed:
        each = self.reserved + math.ceil(self.divided / max(len(shares), 1))
        return DeviceNeed(ram=self.host, vram=(each,) * len(shares))

    def taken(self, need: int, total: int | None) -> int:
        """Its share of the whole NPU; where that is too small, only a larger NPU would do."""
        if total is None:
            return need
        share = math.ceil(self.fraction * total)
        return share if need <= share else max(math.ceil(need / self.fraction), total + 1)


def mindie_demand(model: Model, facts: ModelFacts) -> MindieDemand:
    """The need by the deployment's parameters and what its repository says; ``facts`` are complete."""
    values = values_of(model.backend_parameters)
    tokens = context_of(model, facts)
    width, element, cached = _cache_width(facts), _bytes_of(facts), _cache_bytes(facts)
    cache = width * (facts.total_layers or 0) * tokens * cached
    tokens_at_once = values["--max-batch-size"] * values["--cache-block-size"]
    work = tokens_at_once * (facts.total_layers or 0) * width * (1 if _is_w8a8(facts) else element)
    return MindieDemand(
        divided=(facts.weights or 0) + cache + work,
        reserved=reserved_bytes(model),
        fraction=values["--npu-memory-fraction"],
        host=HOST_FOOTPRINT + values["--cpu-mem-size"] * GIB,
        on_cpu=False,
        equal=True,
        device_counts=_counts(facts, values),
        spans_workers=True,
        context=tokens,
    )


def context_of(model: Model, facts: ModelFacts) -> int:
    """Tokens of one request: as the user says, else 8192, but no more than the model was made for."""
    tokens: int = values_of(model.backend_parameters)["--max-seq-len"]
    return min(tokens, facts.context_length) if facts.context_length else tokens


def _cache_width(facts: ModelFacts) -> int:
    """Numbers that the cache holds of a token in one layer: keys and values of its heads."""
    heads, kept = max(facts.heads, default=1), max(facts.kv_heads, default=0)
    if facts.key_length_mla is not None or facts.kv_lora_rank is not None:
        return 2 * (facts.key_length_mla or facts.key_length or 0)
    length = facts.key_length or (facts.embedding_length or 0) // heads
    return 2 * length if kept == 1 else 2 * (kept or heads) * length


def _bytes_of(facts: ModelFacts) -> int:
    return 4 if facts.dtype == "float32" else 2


def _cache_bytes(facts: ModelFacts) -> int:
    return 1 if "c8" in (facts.quantisation or "").lower() else _bytes_of(facts)


def _is_w8a8(facts: ModelFacts) -> bool:
    return "w8a8" in (facts.quantisation or "").lower()


def _counts(facts: ModelFacts, values: dict[str, Any]) -> tuple[int, ...]:
    """Numbers of NPUs that divide the heads; one number where the user says how many parts there are."""
    tensor, stages = values["--tensor-parallel-size"] or -1, values["--pipeline-parallel-size"] or 1
    copies = values["--data-parallel-size"] or 1
    if tensor > 0:
        return (tensor * max(stages, 1) * max(copies, 1),)
    heads = max(facts.heads, default=1)
    return tuple(count for count in _COUNTS if heads % count == 0) or (1,)
