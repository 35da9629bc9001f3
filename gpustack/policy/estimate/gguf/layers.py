"""What each layer keeps of a request: everything, a window, a state, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import attrs

from gpustack.domain.facts import ModelFacts

from . import architectures as known

V = TypeVar("V")


@attrs.frozen(cache_hash=True)
class Layer:
    """``slides`` only where it ``attends``. A layer may keep a state beside what it attends to."""

    attends: bool = False
    slides: bool = False
    recurs: bool = False
    heads: int = 0
    """Of keys and values."""
    indexed: bool = False
    """Keeps an index of the keys, for sparse attention."""


@lru_cache(maxsize=1024)
def layers_of(facts: ModelFacts) -> tuple[Layer, ...]:
    """One for each layer of the file; layers that are alike are the same object."""
    seen: dict[Layer, Layer] = {}
    found = (_layer(facts, number) for number in range(facts.total_layers or 0))
    return tuple(seen.setdefault(layer, layer) for layer in found)


@lru_cache(maxsize=1024)
def kinds_of(facts: ModelFacts) -> tuple[tuple[Layer, int], ...]:
    """Which layers there are, each with the most heads that ask."""
    heads: dict[Layer, int] = {}
    for number, layer in enumerate(layers_of(facts)):
        asking = at(facts.heads, number) if facts.heads else 0
        heads[layer] = max(asking, heads.get(layer, 0))
    return tuple(heads.items())


def is_encoder(facts: ModelFacts) -> bool:
    """Whether nothing is kept of what was read."""
    return facts.architecture in known.ENCODERS or facts.architecture in known.DIFFUSERS


def sees_batch(facts: ModelFacts) -> bool:
    """Whether each token sees only those that are worked on with it."""
    return is_encoder(facts) or facts.architecture in known.HEADLESS or facts.architecture == "t5encoder"


def has_head(facts: ModelFacts) -> bool:
    """Whether it works out a row over the vocabulary, even if only a vector is asked for."""
    return facts.architecture in known.DIFFUSERS or not sees_batch(facts)


def run_layers(facts: ModelFacts) -> int:
    """Layers that are run with each token: not those that predict further ones."""
    count = facts.total_layers or 0
    return max(count - facts.shape.next_token_layers, 0)


def window(facts: ModelFacts) -> int | None:
    """Tokens that sliding layers see; ``None`` where none slides."""
    if facts.architecture in known.WITHOUT_WINDOW:
        return None
    return facts.sliding_window or known.CHUNK.get(facts.architecture)


def slides(facts: ModelFacts, layer: int) -> bool:
    """Whether a layer sees a window only."""
    if window(facts) is None:
        return False
    pattern = facts.sliding_window_pattern
    if isinstance(pattern, tuple):
        return at(pattern, layer) if pattern else False
    period = pattern or known.WINDOW_PERIOD.get(facts.architecture)
    if period is None:
        return False
    full = 0 if facts.architecture in known.FULL_FIRST else period - 1
    return layer % period != full


def at(values: Sequence[V], layer: int) -> V:
    """The value of a layer, where one value may stand for all."""
    return values[layer] if layer < len(values) else values[-1]


def _layer(facts: ModelFacts, layer: int) -> Layer:
    keeps = run_layers(facts) - facts.shape.shared_layers
    if is_encoder(facts) or layer >= keeps:
        return Layer()
    heads = at(facts.kv_heads or facts.heads or (0,), layer)
    if facts.architecture in known.BOTH:
        return Layer(attends=heads > 0, recurs=True, heads=heads)
    if _recurs(facts, layer, heads):
        return Layer(recurs=True)
    if heads == 0 and facts.architecture in known.FORWARD_ONLY:
        return Layer()
    moves, own = slides(facts, layer), facts.shape.indexer_layers
    indexed = facts.shape.indexer_key_length > 0 and not moves and (not own or at(own, layer))
    return Layer(attends=True, slides=moves, heads=heads, indexed=indexed)


def _recurs(facts: ModelFacts, layer: int, heads: int) -> bool:
    space = facts.state_space
    if facts.architecture in known.LIGHTNING:
        return (layer + 1) % known.STATE_PERIOD[facts.architecture] != 0
    if space is None:
        return False
    if facts.architecture in known.RECURRENT:
        return True
    if facts.architecture in known.FORWARD_ONLY and facts.feed_forward_length:
        return heads == 0 and at(facts.feed_forward_length, layer) == 0
    interval = space.full_attention_interval or known.STATE_PERIOD.get(facts.architecture)
    if interval:
        return (layer + 1) % interval != 0
    return heads == 0
