"""The memory that a deployment of safetensors needs, by its parameters and what its repository says.

The engine is told the bytes of its cache (``Claim.kv_cache``), so that it takes what was claimed and no more: room for
one request of full length times as many as fit. Where the user gives a share of the device
(``--gpu-memory-utilization``), that share is claimed, since the engine takes it whatever it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.memory_use import MemoryPlan, MemoryTerm
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import GIB
from gpustack.engines import parameters
from gpustack.engines.memory import SafetensorsMemory

from .learnt import NOTHING
from .need import DeviceNeed, MemoryDemand
from .safetensors import (
    CACHE_BITS,
    DEVICE_FOOTPRINT,
    SafetensorsSettings,
    ShareNeed,
    activations,
    loaded_bits,
    share_of,
)
from .terms import TermNeed

CONTEXT = 8192
"""Tokens of one request where the user sets nothing and the model was made for at least as many."""
UNKNOWN_CONTEXT = 2048
"""What vLLM takes where a model does not say what it was made for."""
SLOTS = (16, 8, 4, 2, 1)
"""Requests of full length to have room for. Shorter ones share that room, so that many more run at a time."""
_FEW_SLOTS = (4, 2, 1)
_MOST_SLOTS = 256
_LARGEST_GROUP = 16
"""Devices that divide a layer among them, at most."""
_MOST_STAGES = 16
_MOST_DEVICES = 64
_HUGE_DEVICE, _LARGE_DEVICE = 160 * GIB, 70 * GIB
_SMALL_STEP, _LARGE_STEP, _HUGE_STEP = (2048, 256), (8192, 1024), (16384, 1024)
"""Tokens and sequences of a step on devices of less than 70 GiB, of more, and of 160 GiB and more, as vLLM chooses
them (``vllm/engine/arg_utils.py:get_batch_defaults``)."""
_NUMBER_SCALES = {"k": 1000, "m": 1000**2, "g": 1000**3, "K": 1024, "M": 1024**2, "G": 1024**3}


@attrs.frozen(kw_only=True)
class SafetensorsDemand(MemoryDemand):
    """An engine whose rule of memory is known, and a model whose headers were read."""

    facts: ModelFacts
    settings: SafetensorsSettings
    memory: SafetensorsMemory
    fraction: float | None = None
    """The share of each device that the user lets the engine take."""
    fixed_cache: int | None = None
    """Bytes of the cache on each device, as the user set them."""
    claimed: int | None = None
    """Bytes of all devices together, as the deployment's environment claims them."""
    claimed_ram: int | None = None
    group: int | None = None
    """Devices that divide each layer among them, as the user set it."""
    copies: int = 1
    """How often the whole model is loaded (data parallel)."""
    host_weights: int = 0
    """Bytes of weights of each device that stay in host memory."""
    engine: str = ""
    _plans: dict[int, MemoryPlan] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    """By the number of devices."""
    _needs: dict[tuple[int, int], DeviceNeed] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    """The same, and how many of them are on the host's worker: answers given before."""
    _beyond: dict[tuple[int, int], int] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    """Bytes of further activations by the size of steps."""

    def cpu(self) -> int:
        if self.claimed is not None or self.claimed_ram is not None:
            return (self.claimed or 0) + (self.claimed_ram or 0)
        return self._terms(0, 1).claimed.ram

    def devices(self, shares: Sequence[float], layers: int | None = None) -> DeviceNeed:
        return self.among_workers(shares, 0)

    def among_workers(self, shares: Sequence[float], remote: int, layers: int | None = None) -> DeviceNeed:
        count = len(shares)
        if self.claimed is not None or self.claimed_ram is not None:
            each = math.ceil((self.claimed or 0) / count)
            return DeviceNeed(ram=self.claimed_ram or 0, vram=(each,) * count)
        key = count, max(count - remote, 1)
        known = self._needs.get(key)
        if known is None:
            known = self._needs[key] = self._terms(*key).claimed
        return known

    def plan(self, shares: Sequence[float], layers: int | None = None) -> MemoryPlan | None:
        if self.claimed is not None or self.claimed_ram is not None or self.fraction is not None:
            return None
        count = len(shares)
        if count not in self._plans:
            terms = self._terms(count, max(count, 1))
            settings = self._settings_name(count, 1)
            self._plans[count] = terms.plan(self.engine, self.facts.architecture, settings)
        return self._plans[count]

    def _terms(self, count: int, own: int) -> TermNeed:
        """Of ``count`` devices, ``own`` of them on the host's worker; none: on the CPU."""
        workers = max(count, 1) // own
        known = NOTHING
        if self.runs:
            known = self.runs.get(self._settings_name(count, workers), NOTHING)
        if not count:
            need = self._share(1, 1)
            host = {**_parts(need), MemoryTerm.GRAPHS: 0, MemoryTerm.PROCESS: self.memory.host_footprint}
            more = need.own - DEVICE_FOOTPRINT
            host[MemoryTerm.PROCESS] += more
            return TermNeed(host=host, known=known)
        need = self._share(count, workers)
        parts = {**_parts(need), MemoryTerm.WEIGHTS: max(need.weights - self.host_weights, 0)}
        process = self.memory.host_footprint + (own - 1) * self.memory.host_of_device
        return TermNeed(
            host={MemoryTerm.WEIGHTS: own * self.host_weights, MemoryTerm.PROCESS: process},
            devices=(parts,) * count,
            known=known,
        )

    def _settings_name(self, count: int, workers: int) -> str:
        """The settings that decide how estimate and truth compare."""
        asked, tensor = self.settings, self.tensor_parallel(count, workers) or 1
        words = {
            "devices": count,
            "workers": workers,
            "tensor": tensor,
            "copies": self.copies,
            "ctx": asked.context,
            "slots": asked.slots,
            "cache-bits": asked.cache_bits,
            "tokens": asked.batch_tokens,
            "sequences": asked.sequences,
            "graphs": int(asked.graphs),
            "wide": int(asked.float32),
            "loaded-bits": asked.loaded_bits or "own",
            "ranks": asked.adapter_ranks,
            "drafts": int(asked.drafts),
            "given": self.peculiarity,
        }
        return " ".join(f"{name}={value}" for name, value in words.items())

    @property
    def looks_around(self) -> bool:
        return self.fraction is not None and self.spans_workers

    def taken(self, need: int, total: int | None) -> int:
        if total is None or self.claimed is not None:
            return need
        if self.fraction is not None:
            share = math.ceil(self.fraction * total)
            # Where its share is too small, only a device so much larger would do.
            return share if need <= share else max(math.ceil(need / self.fraction), total + 1)
        return need + self._further_activations(total)

    def holdable(self, free: int, total: int | None) -> int:
        if total is None or self.claimed is not None:
            return free
        if self.fraction is not None:
            share = math.ceil(self.fraction * total)
            return share if share <= free else -1
        return free - self._further_activations(total)

    def least(self, devices: int) -> int:
        return sum(self.devices((1.0,) * devices).vram)

    def kv_cache(self, devices: int, workers: int = 1) -> int | None:
        if not self.memory.cache_bytes or self.fraction is not None or not self.facts.caches:
            return None
        if self.fixed_cache is not None:
            return self.fixed_cache
        count = devices or workers
        need = self._share(count, workers)
        if self.claimed is None:
            return need.cache
        rest = self.claimed // count - (need.total - need.cache)
        return rest if rest > 0 else None

    def tensor_parallel(self, devices: int, workers: int = 1) -> int | None:
        if not self.memory.divides:
            return None
        count = max(devices or workers, 1) // self.copies or 1
        if self.group is not None:
            return min(self.group, count)
        each = max(count // workers, 1)
        return max(size for size in group_sizes(self.facts) if each % size == 0)

    def _share(self, count: int, workers: int) -> ShareNeed:
        tensor = self.tensor_parallel(count, workers) or 1
        stages = max(count // self.copies // tensor, 1)
        need = share_of(self.facts, attrs.evolve(self.settings, tensor=tensor, pipeline=stages))
        return need if self.fixed_cache is None else attrs.evolve(need, cache=self.fixed_cache)

    def _further_activations(self, total: int) -> int:
        """What steps of the size that vLLM chooses on a larger device take beyond those on a small one."""
        step = _HUGE_STEP if total >= _HUGE_DEVICE else _LARGE_STEP if total >= _LARGE_DEVICE else _SMALL_STEP
        usual = (self.settings.batch_tokens, self.settings.sequences) == _SMALL_STEP
        if step == _SMALL_STEP or not usual or not self.memory.pooled:
            return 0
        if step not in self._beyond:
            self._beyond[step] = _beyond_small_steps(self.facts, self.settings, step)
        return self._beyond[step]


def _parts(need: ShareNeed) -> dict[MemoryTerm, int]:
    return {
        MemoryTerm.WEIGHTS: need.weights,
        MemoryTerm.CACHE: need.cache,
        MemoryTerm.COMPUTE: need.activations,
        MemoryTerm.GRAPHS: need.graphs,
        MemoryTerm.PROCESS: need.own,
    }


def safetensors_demand(
    model: Model, facts: ModelFacts, memory: SafetensorsMemory, slot_count: int | None = None
) -> SafetensorsDemand:
    """The need by the deployment's parameters; ``facts`` are complete."""
    given = model.backend_parameters
    choices = _slot_choices(model, facts, memory)
    fraction, fixed = _share_given(given, memory), _bytes_of(given, memory.cache_bytes)
    if fraction is not None or fixed is not None:
        choices = ()
    slots = slot_count or (choices[0] if choices else 1)
    settings = _settings(model, facts, memory, slots)
    group, stages = _count_of(given, memory.tensor_parallel), _count_of(given, memory.pipeline_parallel)
    copies = _count_of(given, memory.data_parallel) or 1
    picks = bool(model.gpu_selector and model.gpu_selector.gpu_ids)
    offloaded = _number_of(given, memory.host_weights)
    return SafetensorsDemand(
        facts=facts,
        settings=settings,
        memory=memory,
        slots=slots if choices else None,
        slot_choices=choices,
        context=settings.context if memory.context and facts.context_length else None,
        equal=True,
        device_counts=_device_counts(facts, memory, group, stages, copies),
        spans_workers=memory.divides and memory.spans_workers,
        on_cpu=memory.on_cpu and not picks and model.cpu_offloading is not False,
        fraction=fraction,
        fixed_cache=fixed,
        group=group if group is not None else 1 if stages else None,
        copies=copies,
        host_weights=int(offloaded * GIB) if offloaded is not None and 0 < offloaded < 1 << 20 else 0,
    )


def context_of(model: Model, facts: ModelFacts, memory: SafetensorsMemory) -> int:
    """Tokens of one request: as the parameter says, else what the model was made for but at most ``CONTEXT``."""
    asked = _bytes_of(model.backend_parameters, memory.context)
    if asked is not None:
        return asked
    made_for = facts.context_length or UNKNOWN_CONTEXT
    return min(made_for, CONTEXT) if memory.context else made_for


@lru_cache(maxsize=256)  # asked for every device of a cluster
def _beyond_small_steps(facts: ModelFacts, settings: SafetensorsSettings, step: tuple[int, int]) -> int:
    larger = attrs.evolve(settings, batch_tokens=step[0], sequences=step[1])
    return activations(facts, larger) - activations(facts, settings)


@lru_cache(maxsize=256)
def group_sizes(facts: ModelFacts) -> tuple[int, ...]:
    """How many devices can divide each layer among them, ascending.

    Heads must be divisible, heads of keys divisible or copied evenly, and the rows of feed-forwards divisible into
    whole groups of their scales (``vllm/config/model.py:verify_with_parallel_config``, ``QKVParallelLinear``).
    """
    rows = [
        *facts.feed_forward_length[:1],
        *([facts.expert_feed_forward_length] if facts.expert_count else []),
    ]
    unit = facts.quantisation_group or 1
    sizes = range(2, _LARGEST_GROUP + 1) if facts.heads else ()
    whole = (size for size in sizes if all(not row or row % (size * unit) == 0 for row in rows))
    return (1, *(size for size in whole if divides_heads(facts, size)))


def divides_heads(facts: ModelFacts, size: int) -> bool:
    """Whether so many devices can divide the heads of attention among them, and divide or evenly copy those of keys."""
    heads = max(facts.heads, default=0)
    keys = max(facts.kv_heads, default=heads)
    return heads % size == 0 and (
        bool(facts.kv_lora_rank) or not keys or keys % size == 0 or size % keys == 0
    )


def _device_counts(
    facts: ModelFacts, memory: SafetensorsMemory, group: int | None, stages: int | None, copies: int
) -> tuple[int, ...]:
    if not memory.divides:
        return (1,)
    if group is not None or stages is not None:
        return ((group or 1) * (stages or 1) * copies,)
    most = min(facts.total_layers or 1, _MOST_STAGES)
    counts = {1, *(size * stage for size in group_sizes(facts) if size > 1 for stage in range(1, most + 1))}
    return tuple(sorted(count * copies for count in counts if count * copies <= _MOST_DEVICES))


def counts_given(model: Model, memory: SafetensorsMemory) -> tuple[int, ...]:
    """The number of devices that the parameters ask for; empty is any number."""
    given = model.backend_parameters
    group, stages = _count_of(given, memory.tensor_parallel), _count_of(given, memory.pipeline_parallel)
    copies = _count_of(given, memory.data_parallel) or 1
    if not memory.divides:
        return (1,)
    return (
        () if group is None and stages is None and copies == 1 else ((group or 1) * (stages or 1) * copies,)
    )


def _settings(model: Model, facts: ModelFacts, memory: SafetensorsMemory, slots: int) -> SafetensorsSettings:
    given = model.backend_parameters
    dtype = parameters.value_of(given, *memory.dtype) if memory.dtype else None
    cache_type = parameters.value_of(given, *memory.cache_type) if memory.cache_type else None
    method = parameters.value_of(given, *memory.quantisation) if memory.quantisation else None
    wide = dtype in ("float32", "float")
    return SafetensorsSettings(
        context=context_of(model, facts, memory),
        slots=slots,
        cache_bits=CACHE_BITS.get(cache_type or "auto", 16)
        if cache_type not in (None, "auto") or not wide
        else 32,
        batch_tokens=_count_of(given, memory.batch_tokens) or _SMALL_STEP[0],
        sequences=_count_of(given, memory.sequences) or _SMALL_STEP[1],
        graphs=memory.pooled and not parameters.has(given, *memory.eager),
        float32=wide,
        keeps_wide=not memory.pooled and dtype is None,
        loaded_bits=loaded_bits(method),
        adapter_ranks=_adapter_ranks(model, memory),
        drafts=parameters.has(given, "--speculative-config", "--speculative-algorithm"),
    )


def _adapter_ranks(model: Model, memory: SafetensorsMemory) -> int:
    """The ranks of the adapters that the deployment or its parameters make room for, one of rank 16 by default, as vLLM
    does."""
    given = model.backend_parameters
    if not memory.adapters or not (model.lora_adapters or parameters.has(given, *memory.adapters)):
        return 0
    return min(
        (_count_of(given, memory.adapter_count) or 1) * (_count_of(given, memory.adapter_rank) or 16), 1 << 20
    )


def _slot_choices(model: Model, facts: ModelFacts, memory: SafetensorsMemory) -> tuple[int, ...]:
    """Numbers of requests to have room for, the most first; the user's own limit bounds them."""
    if facts.is_encoder:
        return ()
    category = model.categories[0] if model.categories else facts.category
    usual = SLOTS if memory.pooled and category in (Category.LLM, None) else _FEW_SLOTS
    limit = _count_of(model.backend_parameters, memory.sequences)
    if limit is None:
        return usual
    most, choices = min(limit, _MOST_SLOTS), []
    while most >= 1:
        choices.append(most)
        most //= 2
    return tuple(choices)


def _share_given(given: Sequence[str], memory: SafetensorsMemory) -> float | None:
    if not memory.fraction or not memory.pooled:
        return None
    share = _number_of(given, memory.fraction)
    return share if share is not None and 0 < share <= 1 else None


def _count_of(given: Sequence[str], flags: tuple[str, ...]) -> int | None:
    found = _bytes_of(given, flags)
    return found if found is not None and found <= 1 << 30 else None


def _number_of(given: Sequence[str], flags: tuple[str, ...]) -> float | None:
    text = parameters.value_of(given, *flags) if flags else None
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _bytes_of(given: Sequence[str], flags: tuple[str, ...]) -> int | None:
    """A positive whole number, which may end in k, m or g (thousands) or K, M or G (1024); ``None`` else."""
    text = (parameters.value_of(given, *flags) or "") if flags else ""
    scale = _NUMBER_SCALES.get(text[-1:], 1)
    try:
        number = float(text[:-1] if scale > 1 else text)
    except ValueError:
        return None
    return int(number * scale) if 1 <= number * scale < 1 << 62 else None
