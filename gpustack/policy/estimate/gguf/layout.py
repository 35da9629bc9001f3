"""Which layer is where, and so which bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, zip_longest

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.unit import MIB

from .cache import checkpoint, layer_caches
from .compute import head, masks, step
from .memory import MemoryEstimate, MemoryNeed
from .settings import GgufSettings

PROJECTOR_COMPUTE = 256 * MIB
"""Buffers of a vision or audio projector beside its weights; not read from its header yet."""
_PIPELINE_COPIES = 4
"""Copies of the inputs llama.cpp keeps when several devices work as a pipeline."""


def layer_count(facts: ModelFacts) -> int:
    """Layers as llama.cpp counts them for offloading: the output is one more."""
    return (facts.total_layers or 0) + 1


@lru_cache(maxsize=2048)  # asked with the same arguments for every worker and in every pass
def estimate(facts: ModelFacts, settings: GgufSettings) -> MemoryEstimate:
    """What llama.cpp will allocate. ``facts`` are complete (``facts.is_complete``)."""
    return _Layout(facts, settings).estimate()


@attrs.frozen
class _Parts:
    """What is divided: it is the same however that is done. Bytes."""

    weights: tuple[int, ...]
    """Of so many of the first layers, beginning with none."""
    further: int
    """Weights of layers beyond the last one, which lie with the output."""
    experts: int
    """Weights of experts that stay on the host wherever their layer is."""
    caches: tuple[int, ...]
    """As ``weights``."""
    step: int
    masks: int
    on_host: int
    """Results, and what is kept beside the caches."""


@lru_cache(maxsize=256)  # a decision divides one model in many ways
def _parts(facts: ModelFacts, settings: GgufSettings) -> _Parts:
    layers = facts.total_layers or 0
    tensors = facts.tensors
    sizes = () if tensors is None else tensors.layers
    experts = () if tensors is None else tensors.experts[: settings.host_experts]
    on_device = [size - kept for size, kept in zip_longest(sizes, experts[: len(sizes)], fillvalue=0)]
    copies = settings.parallel * settings.checkpoints
    kept = copies * checkpoint(facts, settings) if copies else 0
    return _Parts(
        weights=(0, *accumulate(on_device[:layers])),
        further=sum(on_device[layers:]),
        experts=sum(experts[: len(sizes)]),
        caches=(0, *accumulate(layer_caches(facts, settings))),
        step=step(facts, settings),
        masks=masks(facts, settings),
        on_host=head(facts, settings) + settings.prompt_cache + kept,
    )


@attrs.define(slots=False)
class _Layout:
    """Which layer is where: the first ones on the host, then those of each device, the output with the last ones. Place
    0 is the host, the devices follow."""

    facts: ModelFacts
    settings: GgufSettings
    parts: _Parts = attrs.field(init=False)
    layers: int = attrs.field(init=False)
    offloaded: int = attrs.field(init=False)
    ends: list[int] = attrs.field(init=False)
    """By place, how many layers (of which the output is the last) are there or before."""

    def __attrs_post_init__(self) -> None:
        undivided = attrs.evolve(self.settings, shares=(), offload_layers=None, remote=0)
        self.parts = _parts(self.facts, undivided)
        self.layers = self.facts.total_layers or 0
        everything = self.layers + 1
        wanted = everything if self.settings.offload_layers is None else self.settings.offload_layers
        self.offloaded = min(wanted, everything) if self.settings.shares else 0
        first, whole = everything - self.offloaded, sum(self.settings.shares)
        self.ends = [first]
        upto = 0.0
        for share in self.settings.shares[:-1]:
            upto += share
            self.ends.append(first + self._until(upto, whole))
        if self.settings.shares:
            self.ends.append(everything)

    def _until(self, upto: float, whole: float) -> int:
        """How many of the layers on devices lie within the first ``upto`` of ``whole`` shares. Exact where shares are
        numbers of layers."""
        found = min(int(upto * self.offloaded / whole), self.offloaded)
        while found < self.offloaded and found * whole < upto * self.offloaded:
            found += 1
        while found and (found - 1) * whole >= upto * self.offloaded:
            found -= 1
        return found

    def _count(self, place: int) -> int:
        """Layers at a place."""
        return self.ends[place] - (self.ends[place - 1] if place else 0)

    @property
    def _output(self) -> int:
        """The place of the output."""
        return next(place for place, end in enumerate(self.ends) if end > self.layers)

    def _each(self, sums: Sequence[int]) -> list[int]:
        """What lies at each place, by the sums over the first layers."""
        last = len(sums) - 1
        at = [sums[min(end, last)] for end in self.ends]
        return [size - before for before, size in zip((0, *at), at, strict=False)]

    def estimate(self) -> MemoryEstimate:
        count = 1 + len(self.settings.shares)
        weights, kv, compute = self._weights(count), self._kv(count), self._compute(count)
        needs = [MemoryNeed(weights=w, kv=k, compute=c) for w, k, c in zip(weights, kv, compute, strict=True)]
        return MemoryEstimate(host=needs[0], devices=tuple(needs[1:]))

    def _weights(self, count: int) -> list[int]:
        tensors = self.facts.tensors
        assert tensors is not None
        found, output = self._each(self.parts.weights), self._output
        found[output] += self.parts.further
        found[0] += self.parts.experts + tensors.token_embedding + tensors.other
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
        if self.settings.kv_offload:
            return self._each(self.parts.caches)
        return [self.parts.caches[-1], *(0 for _ in range(count - 1))]

    def _compute(self, count: int) -> list[int]:
        """The largest step of the graph per place, as llama.cpp plans it."""
        used = [place for place in range(1, count) if self._count(place)]
        found = [0] * count
        if used:
            self._on_devices(found, used)
        else:
            found[0] = self.parts.step + self.parts.masks
        if self.settings.predicts and self.facts.shape.next_token_layers:
            found[self._output] += self.parts.step + self.parts.masks
        if self.facts.projector_size:
            found[self._projector(count)] += PROJECTOR_COMPUTE
        found[0] += self.parts.on_host
        return found

    def _on_devices(self, found: list[int], used: list[int]) -> None:
        """Rows as wide as the model differ by place: the CPU alone has five in a step, a device fewer, since what
        comes in lies on the host, and more where several batches are under way."""
        row, step, masks = self._row(), self.parts.step, self.parts.masks
        if self.ends[0] or self.settings.host_experts:  # the host works on layers as well
            found[0] = step - row + masks
            fewer, copies = 3 if self.ends[0] else 2, 1
        elif len(used) > 1 and self.settings.kv_offload:
            found[0] = _PIPELINE_COPIES * masks + 5 * row
            fewer, copies = -2, _PIPELINE_COPIES
        else:
            found[0] = masks + 2 * row
            fewer, copies = 2, 1
        for place in used:
            found[place] = step - fewer * row + copies * masks
            if copies > 1 and place != used[0]:
                found[place] += 4 * row
            if not self.settings.kv_offload:
                found[place] = step if len(used) == 1 else max(step, self._queries(place))

    def _queries(self, place: int) -> int:
        """Bytes of what goes to the host, where the cache is, and comes back, for all layers of a device."""
        numbers = max(self.facts.heads, default=0) * (self.facts.key_length or 0)
        return 4 * self.settings.tokens * numbers * self._count(place)

    def _row(self) -> int:
        return 4 * self.settings.tokens * (self.facts.embedding_length or 0)
