"""Which layer is where, and so which bytes."""

from __future__ import annotations

from functools import lru_cache

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
        self.places = self._placed(everything)

    def _placed(self, everything: int) -> list[int]:
        found = [0] * (everything - self.offloaded)
        total, upto = sum(self.settings.shares), 0.0
        for device, share in enumerate(self.settings.shares, start=1):
            upto += share
            # A layer is here if its place among the offloaded ones, as a share of them, is: exact where shares are
            # numbers of layers.
            while (
                len(found) < everything
                and (len(found) - everything + self.offloaded) * total < upto * self.offloaded
            ):
                found.append(device)
        return [*found, *[len(self.settings.shares)] * (everything - len(found))]

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
            kept = (
                tensors.experts[layer] if layer < min(self.settings.host_experts, len(tensors.experts)) else 0
            )
            found[0] += kept
            found[self.places[min(layer, self.layers)]] += size - kept
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
        for layer, size in enumerate(layer_caches(self.facts, self.settings)):
            found[self.places[layer] if self.settings.kv_offload else 0] += size
        return found

    def _compute(self, count: int) -> list[int]:
        """The largest step of the graph per place, as llama.cpp plans it."""
        used = sorted(set(self.places) - {0})
        found = [0] * count
        if used:
            self._on_devices(found, used)
        else:
            found[0] = self._step() + self._masks()
        if self.settings.predicts and self.facts.shape.next_token_layers:
            found[self.places[self.layers]] += self._step() + self._masks()
        if self.facts.projector_size:
            found[self._projector(count)] += PROJECTOR_COMPUTE
        copies = self.settings.parallel * self.settings.checkpoints
        kept = copies * checkpoint(self.facts, self.settings) if copies else 0
        found[0] += head(self.facts, self.settings) + self.settings.prompt_cache + kept
        return found

    def _on_devices(self, found: list[int], used: list[int]) -> None:
        """Rows as wide as the model differ by place: the CPU alone has five in a step, a device fewer, since what
        comes in lies on the host, and more where several batches are under way."""
        row, step, masks = self._row(), self._step(), self._masks()
        if 0 in self.places or self.settings.host_experts:  # the host works on layers as well
            found[0] = step - row + masks
            fewer, copies = 3 if 0 in self.places else 2, 1
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
        return 4 * self.settings.tokens * numbers * self.places.count(place)

    def _step(self) -> int:
        return step(self.facts, self.settings)

    def _masks(self) -> int:
        return masks(self.facts, self.settings)

    def _row(self) -> int:
        return 4 * self.settings.tokens * (self.facts.embedding_length or 0)
