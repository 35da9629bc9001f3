"""What llama.cpp will allocate for a GGUF: weights, KV cache and compute buffers, on the host and each device.

Weights and KV cache come out exact; compute buffers within a few percent (measured against llama-fit-params,
see tests/policy/test_gguf_estimate.py), which ``MARGIN`` covers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.unit import MIB

V = TypeVar("V")

MARGIN = 0.05
"""Share of KV cache and compute added to a claim: the formulas' error, and what drivers round up."""
HOST_FOOTPRINT = 150 * MIB
"""Memory of a process before it has a model."""
DEVICE_FOOTPRINT = 500 * MIB
"""Memory a process takes on a device before it has a model: the driver's context and its libraries."""
PROJECTOR_COMPUTE = 256 * MIB
"""Buffers of a vision or audio projector beside its weights; not read from its header yet."""

CELL_BYTES: Mapping[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes per number in the KV cache."""

_WINDOW_PERIOD: Mapping[str, int] = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "cohere2": 4,
    "llama4": 4,
    "gpt-oss": 2,
    "exaone4": 4,
    "olmo2": 4,
}
"""Architectures whose sliding layers llama.cpp knows itself: all but every n-th layer slide."""

_PIPELINE_COPIES = 4
"""Copies of the inputs llama.cpp keeps when several devices work as a pipeline."""


@attrs.frozen(kw_only=True)
class GgufSettings:
    """The settings of llama-server that decide about memory. ``offload_layers`` ``None`` means all."""

    ctx: int
    parallel: int = 1
    ubatch: int = 512
    unified: bool = True
    """Slots share one KV cache of ``ctx`` cells instead of having ``ctx / parallel`` each."""
    key_type: str = "f16"
    value_type: str = "f16"
    flash_attention: bool = True
    full_window: bool = False
    kv_offload: bool = True
    logits: bool = True
    """Whether there is a row over the vocabulary for each token (text) or not (embeddings, ranking)."""
    offload_layers: int | None = None
    shares: tuple[float, ...] = ()
    """How the offloaded layers are divided among devices; empty is no device at all."""
    remote: int = 0
    """How many of these, the first ones, belong to other workers (RPC)."""
    prompt_cache: int = 0
    """Bytes of host memory for prompts kept."""
    checkpoints: int = 0
    """Copies a slot may keep, in host memory, of what its sliding and recurrent layers hold."""


@attrs.frozen(kw_only=True)
class MemoryNeed:
    """Bytes needed in one place: on the host or on one device."""

    weights: int = 0
    kv: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute

    def claim(self, footprint: int) -> int:
        """What to set aside: with the margin, and what the process itself takes there."""
        return self.total + math.ceil(MARGIN * (self.kv + self.compute)) + footprint


@attrs.frozen(kw_only=True)
class MemoryEstimate:
    """Bytes on the host and on each device, in the order of the shares."""

    host: MemoryNeed
    devices: tuple[MemoryNeed, ...] = ()


def layer_count(facts: ModelFacts) -> int:
    """Layers as llama.cpp counts them for offloading: the output is one more."""
    return (facts.total_layers or 0) + 1


@lru_cache(maxsize=2048)  # asked with the same arguments for every worker and in every pass
def estimate(facts: ModelFacts, settings: GgufSettings) -> MemoryEstimate:
    """What llama.cpp will allocate. ``facts`` are complete (``facts.is_complete``)."""
    return _Layout(facts, settings).estimate()


@attrs.define(slots=False)
class _Layout:
    """Which layer is where. Place 0 is the host, the devices follow."""

    facts: ModelFacts
    settings: GgufSettings
    layers: int = attrs.field(init=False)
    offloaded: int = attrs.field(init=False)
    places: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.layers = self.facts.total_layers or 0
        everything = self.layers + 1
        wanted = everything if self.settings.offload_layers is None else self.settings.offload_layers
        self.offloaded = min(wanted, everything) if self.settings.shares else 0
        self.places = [self._place(layer) for layer in range(everything)]

    def _place(self, layer: int) -> int:
        first = self.layers + 1 - self.offloaded
        if layer < first:
            return 0
        position, total, upto = layer - first, sum(self.settings.shares), 0.0
        for device, share in enumerate(self.settings.shares, start=1):
            upto += share
            if position * total < upto * self.offloaded:  # exact where shares are numbers of layers
                return device
        return len(self.settings.shares)

    def estimate(self) -> MemoryEstimate:
        count = 1 + len(self.settings.shares)
        weights, kv, compute = self._weights(count), self._kv(count), self._compute(count)
        needs = [MemoryNeed(weights=w, kv=k, compute=c) for w, k, c in zip(weights, kv, compute, strict=True)]
        return MemoryEstimate(host=needs[0], devices=tuple(needs[1:]))

    def _weights(self, count: int) -> list[int]:
        tensors = self.facts.tensors
        assert tensors is not None
        found = [0] * count
        output = self.places[self.layers]
        for layer, size in enumerate(tensors.layers):
            found[self.places[min(layer, self.layers)]] += size
        found[0] += tensors.token_embedding + tensors.other
        found[output] += tensors.output
        if tensors.tied and output:
            found[output] += tensors.token_embedding
        if self.facts.projector_size:
            found[self._projector(count)] += self.facts.projector_size
        return found

    def _projector(self, count: int) -> int:
        """Where a projector is: on the first device of the main process's own worker, else on the first one."""
        own = 1 + self.settings.remote
        return own if own < count else min(1, count - 1)

    def _kv(self, count: int) -> list[int]:
        found = [0] * count
        for layer in range(self.layers):
            place = self.places[layer] if self.settings.kv_offload else 0
            found[place] += self._kv_of(layer)
        return found

    def _kv_of(self, layer: int) -> int:
        if self._is_recurrent(layer):
            return self._state()
        streams = 1 if self.settings.unified else self.settings.parallel
        return int(streams * self._cells(layer) * self._cell(layer))

    def _cell(self, layer: int) -> float:
        """Bytes of keys and values that a layer keeps of one token."""
        facts, settings = self.facts, self.settings
        heads = _at(facts.kv_heads, layer) if facts.kv_heads else self._heads(layer)
        usual = (facts.embedding_length or 0) // max(self._heads(layer), 1)
        key = _known(facts.key_length, usual) * heads
        value = 0 if facts.key_length_mla else _known(facts.value_length, usual) * heads
        return key * CELL_BYTES[settings.key_type] + value * CELL_BYTES[settings.value_type]

    def _cells(self, layer: int) -> int:
        cells = self._context()
        if self._slides(layer) and not self.settings.full_window:
            windows = (self.facts.sliding_window or 0) * (
                self.settings.parallel if self.settings.unified else 1
            )
            cells = min(cells, _padded(windows + self.settings.ubatch))
        return cells

    def _context(self) -> int:
        """Cells of one stream."""
        return _padded(
            self.settings.ctx
            if self.settings.unified
            else max(1, self.settings.ctx // self.settings.parallel)
        )

    def _heads(self, layer: int) -> int:
        return _at(self.facts.heads, layer) if self.facts.heads else 0

    def _slides(self, layer: int) -> bool:
        facts = self.facts
        if not facts.sliding_window:
            return False
        pattern = facts.sliding_window_pattern
        if isinstance(pattern, tuple):
            return _at(pattern, layer) if pattern else False
        period = pattern or _WINDOW_PERIOD.get(facts.architecture)
        return period is not None and layer % period != period - 1

    def _is_recurrent(self, layer: int) -> bool:
        space = self.facts.state_space
        if space is None:
            return False
        if space.full_attention_interval:
            return (layer + 1) % space.full_attention_interval != 0
        return not self.facts.kv_heads or _at(self.facts.kv_heads, layer) == 0

    def _state(self) -> int:
        """A recurrent layer keeps numbers of 4 bytes per slot, however long the context."""
        space = self.facts.state_space
        assert space is not None
        rolling = max(space.conv_kernel - 1, 0) * (
            space.inner_size + 2 * space.group_count * space.state_size
        )
        return self.settings.parallel * 4 * (rolling + space.state_size * space.inner_size)

    def _compute(self, count: int) -> list[int]:
        """The largest step of the graph per device, as llama.cpp plans it.

        With logits for every token of a batch: what older servers keep, and an upper bound for newer ones.
        """
        used = sorted(set(self.places) - {0})
        # Devices over RPC can do nothing asynchronously, so llama.cpp makes no pipeline with one of them.
        is_pipeline = len(used) > 1 and 0 not in self.places and not self.settings.remote
        copies = _PIPELINE_COPIES if is_pipeline else 1
        found = [0] * count
        for place in used or [0]:
            found[place] = self._step(place, copies)
        if used:
            found[0] = copies * self._mask() + self._row()
        if self.facts.projector_size:
            found[self._projector(count)] += PROJECTOR_COMPUTE
        found[0] += (
            self.settings.prompt_cache
            + self.settings.parallel * self.settings.checkpoints * self._checkpoint()
        )
        return found

    def _checkpoint(self) -> int:
        """Bytes of one copy: a window of each sliding layer, or the state of each recurrent one."""
        size = 0
        for layer in range(self.layers):
            if self._is_recurrent(layer):
                size += self._state() // self.settings.parallel
            elif self._slides(layer) and not self.settings.full_window:
                size += int(min(self._context(), self.facts.sliding_window or 0) * self._cell(layer))
        return size

    def _step(self, place: int, copies: int) -> int:
        ubatch, row, mask = self._ubatch(), self._row(), self._mask()
        wide = max(self.facts.feed_forward_length, default=0)
        heads = max(self.facts.heads, default=0)
        attention = 4 * row
        if not self.settings.flash_attention:
            attention += self._context() * ubatch * heads * 4 + mask
        work = max(attention, 2 * ubatch * wide * 4 + 2 * row)
        is_output = place == self.places[self.layers]
        if is_output and self.settings.logits:
            work = max(work, ubatch * ((self.facts.vocabulary or 0) + (self.facts.embedding_length or 0)) * 4)
        if copies > 1:
            return work + copies * mask + 8 * row
        return work if is_output else work + mask + 5 * row

    def _ubatch(self) -> int:
        return min(self.settings.ubatch, _padded(self.settings.ctx))

    def _row(self) -> int:
        return self._ubatch() * (self.facts.embedding_length or 0) * 4

    def _mask(self) -> int:
        return self._context() * self._ubatch() * (2 if self.settings.flash_attention else 4)


def _padded(cells: int, to: int = 256) -> int:
    return -(-cells // to) * to


def _known(value: int | None, usual: int) -> int:
    return usual if value is None else value


def _at(values: Sequence[V], layer: int) -> V:
    """The value of a layer, where one value may stand for all."""
    return values[layer] if layer < len(values) else values[-1]
