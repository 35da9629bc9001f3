"""What an engine that loads safetensors takes of each device: weights, KV cache, activations and graphs.

Weights are exact but for what an engine pads. The cache follows vLLM 0.32 (``vllm/v1/kv_cache_interface.py``,
``vllm/v1/core/kv_cache_utils.py``): of 1 GiB it makes 2,097,152 tokens of the tiny test model and 87,296 of the shape
of qwen2-0.5b, and so do these formulas, also where layers differ. Activations, graphs and what a process takes by
itself are estimates: no GPU was there to measure them, so they are said as terms of their own, each with its reason.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache

import attrs

from gpustack.domain.facts import CacheKind, LayerCache, ModelFacts, TensorBytes
from gpustack.domain.unit import GIB, MIB

BLOCK = 128
"""Tokens of a block of the cache: as many as vLLM has on a CPU and for some kernels; on most GPUs it has 16. The larger
one is counted, since one block is never used, and a request may leave most of its last one empty."""
DEVICE_FOOTPRINT = 700 * MIB
"""What a process takes of a device before it has a model: the driver's context, kernels, workspaces of cuBLAS."""
EXCHANGE = 512 * MIB
"""Buffers of NCCL and of the direct exchange, where several devices work together."""
GRAPH_OF_LAYER = 16 * MIB
"""CUDA graphs of one layer: vLLM reports about 0.5 GiB for 32 layers and 1.25 GiB for 80."""
ACTIVATION_SLACK = 1.2
"""What the allocator holds beyond the sum of what lives at once."""
LOGIT_BYTES = 12
"""Of each word and sequence while a token is drawn: the scores in 16 bits, in 32 bits, and as probabilities."""
TOWER_ACTIVATION = 1 * GIB
"""The least that reading the largest image or sound takes; more for towers larger than that."""
BATCHES = 2
"""Steps that are scheduled at a time, whose tokens a sliding window keeps beside its own."""

CACHE_BITS: Mapping[str, float] = {
    "auto": 16, "float16": 16, "bfloat16": 16, "half": 16, "float32": 32, "float": 32, "fp8": 8, "fp8_e4m3": 8,
    "fp8_e5m2": 8, "fp8_inc": 8, "fp8_ds_mla": 9.2, "fp8_per_token_head": 8.5, "int8_per_token_head": 8.5,
    "int4_per_token_head": 4.5, "nvfp4": 4.5, "nvfp4_4over6": 4.5, "nvfp4_ds_mla": 6, "fp4_e2m1": 4.5,
}  # fmt: skip
"""Bits of a number of the cache, with its share of the scales; a type that is not here counts as 16."""
_LOADED_BITS: Mapping[str, float] = {
    "fp8": 8, "ptpc_fp8": 8, "experts_int8": 8, "fp8_per_tensor": 8, "fp8_per_block": 8.1, "bitsandbytes": 4.5,
    "torchao": 16,
}  # fmt: skip
"""Bits of a weight that an engine quantises while it loads a model of 16 bits."""


@attrs.frozen(kw_only=True)
class SafetensorsSettings:
    """The settings of an engine that decide about memory. ``tensor`` × ``pipeline`` devices hold the model once."""

    context: int
    """Tokens of one request."""
    slots: int = 1
    """Requests of that length for which the cache has room."""
    tensor: int = 1
    pipeline: int = 1
    cache_bits: float = 16
    batch_tokens: int = 2048
    sequences: int = 256
    graphs: bool = True
    float32: bool = False
    """The model computes in 32 bits a number."""
    keeps_wide: bool = False
    """Numbers of 32 bits in the files stay what they are."""
    loaded_bits: float | None = None
    """Bits of a weight that is quantised while it is loaded; ``None`` leaves it as it is."""
    drafts: bool = False
    """The layers that predict further tokens are loaded."""
    adapter_ranks: int = 0
    """The ranks of all LoRA adapters that are there at a time, summed."""
    block: int = BLOCK


@attrs.frozen(kw_only=True)
class ShareNeed:
    """Bytes that one device holds."""

    weights: int = 0
    cache: int = 0
    activations: int = 0
    graphs: int = 0
    own: int = 0
    """What the process takes by itself."""

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.activations + self.graphs + self.own


def loaded_bits(method: str | None) -> float | None:
    """Bits of a weight that is quantised by ``method`` while it is loaded; ``None`` if it is not."""
    bits = _LOADED_BITS.get(method or "")
    return bits if bits is not None and bits < 16 else None


@lru_cache(maxsize=2048)  # asked with the same arguments for every worker and in every pass
def share_of(facts: ModelFacts, settings: SafetensorsSettings) -> ShareNeed:
    """What each device holds: all of them are told the same, so it is what the fullest one needs.

    ``facts`` are complete (``facts.is_complete``).
    """
    several = settings.tensor * settings.pipeline > 1
    layers = -(-(facts.total_layers or 0) // settings.pipeline)
    return ShareNeed(
        weights=max(_weights(facts, settings)) + _adapters(facts, settings),
        cache=cache_bytes(facts, settings),
        activations=activations(facts, settings),
        graphs=GRAPH_OF_LAYER * layers if settings.graphs else 0,
        own=DEVICE_FOOTPRINT + (EXCHANGE if several else 0),
    )


def stages(layers: int, pipeline: int) -> list[range]:
    """Which layers each stage of a pipeline holds (``vllm/distributed/utils.py:get_pp_indices``)."""
    each, rest = divmod(layers, pipeline)
    sizes = [each] * pipeline
    for place in range(2, rest + 2):  # the last stage has the head, so it is spared
        sizes[-place % pipeline] += 1
    starts = [sum(sizes[:stage]) for stage in range(pipeline)]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _weights(facts: ModelFacts, settings: SafetensorsSettings) -> Iterator[int]:
    """Bytes of weights on a device of each stage."""
    tensors = facts.tensors
    assert tensors is not None
    tensor, last = settings.tensor, settings.pipeline - 1
    factor = (settings.loaded_bits or 16) / 16 if facts.quantisation is None else 1.0
    keys = min(tensor, max(facts.kv_heads, default=1) or 1)
    if facts.kv_lora_rank:
        keys = tensor
    for number, stage in enumerate(stages(len(tensors.layers), settings.pipeline)):
        layers = sum(_layer(tensors, layer, tensor, keys, factor) for layer in stage)
        ends = tensors.other
        if number == 0:
            ends += math.ceil(tensors.token_embedding / tensor) + tensors.tower
        if number == last:
            head = tensors.token_embedding if tensors.tied and last else tensors.output
            ends += math.ceil(head / tensor) + (math.ceil(tensors.draft / tensor) if settings.drafts else 0)
        found = layers + ends
        if settings.float32 and facts.quantisation is None:
            found *= 2
        elif settings.keeps_wide:
            found += math.ceil(tensors.wide / tensor)
        yield found


def _adapters(facts: ModelFacts, settings: SafetensorsSettings) -> int:
    """Room for adapters: two thin matrices of 16 bits beside each matrix. One of the two is copied to each device."""
    sides = facts.tensors.sides if facts.tensors else 0
    return math.ceil(2 * settings.adapter_ranks * sides / settings.pipeline)


def _layer(tensors: TensorBytes, layer: int, tensor: int, keys: int, factor: float) -> int:
    copied = tensors.replicated[layer] if tensors.replicated else 0
    key_value = tensors.key_value[layer] if tensors.key_value else 0
    divided = tensors.layers[layer] - copied - key_value
    return copied + math.ceil(factor * (divided / tensor + key_value / keys))


def cache_bytes(facts: ModelFacts, settings: SafetensorsSettings) -> int:
    """Bytes of the cache on each device for ``slots`` requests of ``context`` tokens: what the fullest stage needs."""
    every = stages(facts.total_layers or 0, settings.pipeline)
    return max((_stage_cache(facts, settings, stage) for stage in every), default=0)


def cache_tokens(facts: ModelFacts, settings: SafetensorsSettings, size: int) -> int:
    """How many tokens vLLM reports for a cache of ``size`` bytes, for models whose layers all keep every token."""
    page = sum(_page(cache, settings) for cache in facts.caches)
    return size // page * settings.block if page else 0


@attrs.frozen
class _Group:
    """Layers that keep the same: what a page of one holds, and how many pages a request takes of each."""

    layers: int
    page: int
    pages: int


def _stage_cache(facts: ModelFacts, settings: SafetensorsSettings, stage: range) -> int:
    """Layers that keep different things share one pool: all pages are as large as the largest, and layers are put
    together in groups of equal size, the last of which may have gaps (``_get_kv_cache_groups_uniform_page_size``).

    One block stays unused (``vllm/v1/core/block_pool.py``: its null block).
    """
    kinds: dict[LayerCache, int] = defaultdict(int)
    for cache in facts.caches:
        if cache.layer in stage:
            kinds[attrs.evolve(cache, layer=0)] += 1
    if not kinds:
        return 0
    largest = max(_page(cache, settings) for cache in kinds)
    if all(
        cache.kind is CacheKind.FULL for cache in kinds
    ):  # one group, each layer with a page of its own size
        pages = settings.slots * -(-settings.context // settings.block) + 1
        return pages * sum(layers * _page(cache, settings) for cache, layers in kinds.items())
    groups = [
        _Group(layers, largest, _pages(cache, settings, largest))
        for cache, layers in sorted(kinds.items(), key=lambda pair: pair[1])
    ]
    size = groups[0].layers
    if groups[-1].layers < size * 1.5:
        size = groups[-1].layers
    blocks = sum(-(-group.layers // size) * group.pages for group in groups)
    return (settings.slots * blocks + 1) * size * largest


def _page(cache: LayerCache, settings: SafetensorsSettings) -> int:
    """Bytes of a block of one layer on a device; of a state, all of it."""
    own = math.ceil(cache.heads / settings.tensor)
    if cache.kind is CacheKind.STATE:
        return math.ceil(cache.state / min(settings.tensor, max(cache.heads, 1)))
    token = own * cache.width * settings.cache_bits / 8 + cache.packed
    return math.ceil(settings.block * token)


def _pages(cache: LayerCache, settings: SafetensorsSettings, largest: int) -> int:
    """Pages of ``largest`` bytes that one request takes of one layer.

    A window keeps the tokens of the steps that are under way beside its own, and seldom begins where a page begins. Of
    a state, a second one is kept for prompts that begin alike.
    """
    if cache.kind is CacheKind.STATE:
        return 2
    page = max(_page(cache, settings), 1)
    tokens = settings.block * max(largest // page, 1)
    if cache.kind is CacheKind.CROSS:
        return -(-(cache.window or 0) // tokens)
    if cache.kind is CacheKind.FULL:
        return -(-settings.context // tokens)
    under_way = BATCHES * settings.batch_tokens * settings.pipeline
    kept = min((cache.window or 0) - 1 + under_way, settings.context)
    return -(-kept // tokens) + 1


def activations(facts: ModelFacts, settings: SafetensorsSettings) -> int:
    """What lives at once in a step of ``batch_tokens`` tokens: some rows of the model's width, and the largest of what
    a feed-forward, the experts, the attention, and drawing tokens for ``sequences`` take.

    For llama-3.1-8b and 8192 tokens that is 1.1 GiB; vLLM reports 1.2 GiB as its peak.
    """
    tokens, tensor = settings.batch_tokens, settings.tensor
    number = 4 if settings.float32 else 2
    width = facts.embedding_length or 0
    wide = max(facts.feed_forward_length, default=4 * width)
    heads = max(facts.heads, default=0)
    rows = heads + 2 * max(facts.kv_heads, default=heads)
    attention = 2 * rows * (facts.key_length or 0) / tensor
    used = max(facts.expert_used_count, 1)
    experts = 0.0
    if facts.expert_count and facts.expert_feed_forward_length:
        experts = used * (3 * facts.expert_feed_forward_length / tensor + 2 * width)
    step = tokens * number * max(3 * wide / tensor, attention, experts)
    drawn = 0 if facts.is_encoder else settings.sequences * (facts.vocabulary or 0) * LOGIT_BYTES
    tower = max(TOWER_ACTIVATION, facts.tensors.tower) if facts.tensors and facts.tensors.tower else 0
    return math.ceil(ACTIVATION_SLACK * (4 * tokens * width * number + max(step, drawn))) + tower
