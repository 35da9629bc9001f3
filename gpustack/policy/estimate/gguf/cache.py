"""Bytes of the KV cache and of recurrent states, layer by layer."""

from __future__ import annotations

from functools import lru_cache

from gpustack.domain.facts import ModelFacts, StateSpace

from . import architectures as known
from .layers import Layer, at, kinds_of, layers_of, run_layers, window
from .settings import CELL_BYTES, GgufSettings, padded

_COARSE = 128
"""Tokens in one entry from which on a layer has no index."""


def layer_caches(facts: ModelFacts, settings: GgufSettings) -> list[int]:
    """Bytes that each layer keeps for all slots."""
    layers = layers_of(facts)
    if facts.architecture in known.COMPRESSED:
        return [_compressed(facts, settings, number) for number in range(len(layers))]
    alike = {layer: _layer_cache(facts, settings, layer) for layer, _ in kinds_of(facts)}
    found = [alike[layer] for layer in layers]
    if settings.predicts:
        for number in range(run_layers(facts), len(layers)):
            heads = at(facts.kv_heads or facts.heads or (0,), number)
            found[number] = _layer_cache(facts, settings, Layer(attends=True, heads=heads))
    return found


def _layer_cache(facts: ModelFacts, settings: GgufSettings, layer: Layer) -> int:
    # A state of before each token that was guessed, to return to.
    found = settings.parallel * (1 + settings.drafted) * slot_state(facts) if layer.recurs else 0
    if layer.attends:
        found += int(settings.streams * layer_cells(facts, settings, layer) * _cell(facts, settings, layer))
    return found


def _compressed(facts: ModelFacts, settings: GgufSettings, number: int) -> int:
    """Bytes of a layer of DeepSeek 4, which keeps keys alone: a window, and one for several tokens of longer ago, with
    an index of those where it is several that each becomes. Slots share nothing, and each has all the context."""
    shape, key, ratio = facts.shape, facts.key_length or 0, _ratio(facts, number)
    numbers = compressed_cells(facts, settings) * key
    if ratio:
        far = padded(-(-settings.cells // ratio))
        numbers += far * (key + (shape.indexer_key_length if ratio < _COARSE else 0))
    return settings.parallel * (int(numbers * CELL_BYTES[settings.key_type]) + _under_way(facts, number))


def _under_way(facts: ModelFacts, number: int) -> int:
    """Bytes of what becomes the next entry: keys and scores, 4 bytes a number."""
    return 2 * 4 * _ratio(facts, number) * (facts.key_length or 0)


def _ratio(facts: ModelFacts, number: int) -> int:
    return at(facts.shape.compress_ratios, number) if facts.shape.compress_ratios else 0


def compressed_cells(facts: ModelFacts, settings: GgufSettings) -> int:
    """Cells of the window that a layer of DeepSeek 4 keeps of one slot."""
    near = padded((window(facts) or 0) + settings.tokens)
    return settings.cells if settings.full_window else min(settings.cells, near)


def checkpoint(facts: ModelFacts, settings: GgufSettings) -> int:
    """Bytes of one copy of what cannot be rolled back: a window of each sliding layer, and each layer's state."""
    size = 0.0
    for number, layer in enumerate(layers_of(facts)):
        if facts.architecture in known.COMPRESSED:
            near = compressed_cells(facts, settings) * (facts.key_length or 0)
            size += near * CELL_BYTES[settings.key_type] + _under_way(facts, number)
        if layer.recurs:
            size += slot_state(facts)
        if layer.slides and not settings.full_window:
            size += min(settings.cells, window(facts) or 0) * _cell(facts, settings, layer)
    return int(size)


def layer_cells(facts: ModelFacts, settings: GgufSettings, layer: Layer) -> int:
    """Cells of one stream of a layer's cache."""
    seen = window(facts)
    if not layer.slides or settings.full_window or seen is None:
        return settings.cells
    slots = settings.parallel if settings.unified else 1
    return min(settings.cells, padded(seen * slots + settings.tokens))


def is_flash(facts: ModelFacts, settings: GgufSettings) -> bool:
    """Whether the cache is laid out for flash attention."""
    return settings.flash_attention and facts.architecture not in known.WITHOUT_FLASH


def head_lengths(facts: ModelFacts, layer: Layer) -> tuple[int, int]:
    """Numbers of a key and of a value of one head."""
    usual = (facts.embedding_length or 0) // max(facts.heads, default=1) if any(facts.heads) else 0
    key = usual if facts.key_length is None else facts.key_length
    value = usual if facts.value_length is None else facts.value_length
    if layer.slides:
        shape = facts.shape
        key = key if shape.window_key_length is None else shape.window_key_length
        value = value if shape.window_value_length is None else shape.window_value_length
    return key, (0 if facts.key_length_mla else value)


def _cell(facts: ModelFacts, settings: GgufSettings, layer: Layer) -> float:
    """Bytes that a layer keeps of one token."""
    key, value = head_lengths(facts, layer)
    index = facts.shape.indexer_key_length if layer.indexed else 0
    keys = key * layer.heads + known.INDEX_ROWS.get(facts.architecture, 1) * index
    values = value * layer.heads
    if not is_flash(facts, settings):  # values are laid out by rows as wide as those of the widest layer
        values = _widest_values(facts)
    return keys * CELL_BYTES[settings.key_type] + values * CELL_BYTES[settings.value_type]


@lru_cache(maxsize=1024)
def _widest_values(facts: ModelFacts) -> int:
    return max((head_lengths(facts, layer)[1] * layer.heads for layer, _ in kinds_of(facts)), default=0)


@lru_cache(maxsize=1024)
def slot_state(facts: ModelFacts) -> int:
    """Bytes that a recurrent layer keeps of one slot, however long the context: numbers of 4 bytes."""
    space, heads = facts.state_space, max(facts.heads, default=0)
    if facts.architecture in known.LIGHTNING:
        return 4 * heads * (facts.key_length or 0) ** 2
    return 0 if space is None else 4 * _state_numbers(space, facts.embedding_length or 0, heads)


def _state_numbers(space: StateSpace, width: int, heads: int) -> int:
    rolling = max(space.conv_kernel - 1, 0)
    if space.wkv_head_size:
        return space.token_shifts * width + width * space.wkv_head_size
    if space.kda_head_size:
        return heads * space.kda_head_size * (3 * rolling + space.kda_head_size)
    if space.short_convolution:
        return (space.short_convolution - 1) * width
    both = space.inner_size + 2 * space.group_count * space.state_size
    return rolling * both + space.state_size * space.inner_size
