"""Bytes of a compute buffer: the step of the graph in which most is alive at once.

Each step is a sum of rows, one of 4 bytes a number for every token that is worked on; which rows are alive in which
step follows from what the engine reports for shapes of each kind (``tests/policy/gguf_table.json``).
"""

from __future__ import annotations

from functools import lru_cache

from gpustack.domain.facts import ModelFacts

from . import architectures as known
from .cache import compressed_cells, is_flash, layer_cells, slot_state
from .layers import has_head, kinds_of, sees_batch, window
from .settings import CELL_BYTES, GgufSettings

_INDEXING = 116736
"""Numbers of a token while sparse attention looks for the keys that matter."""


def step(facts: ModelFacts, settings: GgufSettings) -> int:
    """Bytes of the largest step on a device that has layers of all kinds, without masks and the head."""
    rows = max(_widest(facts), _recurrent(facts, settings), _scores(facts, settings)) + _kept(facts, settings)
    if facts.shape.indexer_key_length and facts.key_length_mla:
        rows += 1.25 * settings.cells
    if facts.architecture in known.COMPRESSED:
        rows += 0.47 * settings.cells
    if facts.architecture in known.LIGHTNING:  # what fades between each two tokens of a slot, for each head
        rows += 3 * max(facts.heads, default=0) * (settings.tokens // settings.parallel)
    if not settings.logits and has_head(facts):
        rows = max(rows, (facts.vocabulary or 0) + 5 * (facts.embedding_length or 0))
    return int(4 * settings.tokens * rows)


def head(facts: ModelFacts, settings: GgufSettings) -> int:
    """Bytes of the buffer with the results: the rows over the vocabulary, or vectors."""
    numbers = facts.vocabulary or 0
    if not settings.logits:
        numbers += facts.embedding_length or 0
    return 4 * settings.parallel * numbers


def masks(facts: ModelFacts, settings: GgufSettings) -> int:
    """Bytes that say which token sees which."""
    tokens, size = settings.tokens, 2 if is_flash(facts, settings) else 4
    if sees_batch(facts):
        windows = 2 if facts.sliding_window else 1
        return windows * tokens * tokens * size
    if facts.architecture in known.COMPRESSED:
        return (compressed_cells(facts, settings) + settings.cells // 4) * tokens * size
    cells = {
        layer.slides: layer_cells(facts, settings, layer) for layer, _ in kinds_of(facts) if layer.attends
    }
    return sum(cells.values()) * tokens * size


def _scores(facts: ModelFacts, settings: GgufSettings) -> float:
    """Numbers of a token in the step that has one for each pair of tokens and head: without flash attention."""
    biased = facts.architecture in known.BIASED
    if (is_flash(facts, settings) and not biased) or not any(facts.heads):
        return 0
    heads, width = max(facts.heads), facts.embedding_length or 0
    key = facts.key_length or width // heads
    if biased:
        # three matrices of scores; distances, a mask, and both once more in other types
        cells = settings.tokens if sees_batch(facts) else settings.cells
        return cells * (3 * heads + 2.5) + 5 * width + heads * key
    both = 2 * key * (heads + max(facts.kv_heads, default=heads))
    index = _INDEXING if facts.shape.indexer_key_length else 0
    return _pairs(facts, settings) + 5 * width + both + index + (width if window(facts) else 0)


def _pairs(facts: ModelFacts, settings: GgufSettings) -> int:
    """Numbers of a token for what it sees, in the layer where these are most."""
    if sees_batch(facts):
        return settings.tokens * max(facts.heads)
    if facts.architecture in known.COMPRESSED:
        return (settings.cells // 4 + compressed_cells(facts, settings)) * max(facts.heads)
    return max(
        (heads * layer_cells(facts, settings, layer) for layer, heads in kinds_of(facts) if layer.attends),
        default=0,
    )


@lru_cache(maxsize=1024)
def _widest(facts: ModelFacts) -> int:
    """Numbers of a token in the largest step."""
    return max(_attention(facts), _forward(facts), _mixture(facts), _latent(facts))


def _attention(facts: ModelFacts) -> int:
    width, heads = facts.embedding_length or 0, max(facts.heads, default=0)
    return 5 * width + 2 * heads * (facts.key_length or 0) if not facts.key_length_mla else 0


def _forward(facts: ModelFacts) -> int:
    width, shape = facts.embedding_length or 0, facts.shape
    if not shape.dense:
        return 0
    rows = shape.rows or max(facts.feed_forward_length, default=0)
    return (3 if shape.gated else 1) * rows + known.RESIDUALS.get(facts.architecture, 5) * width


def _mixture(facts: ModelFacts) -> int:
    if not facts.expert_count or not facts.shape.mixed:
        return 0
    width, used = facts.embedding_length or 0, facts.expert_used_count
    rows = used * (facts.expert_feed_forward_length or max(facts.feed_forward_length, default=0))
    results = used * width
    if not facts.shape.gated:
        return rows + results + 5 * width
    # Results go where rows were, if they find room there.
    return 3 * rows + (results if results > 2 * rows else 0) + (6 if window(facts) else 5) * width


def _latent(facts: ModelFacts) -> int:
    if not facts.key_length_mla:
        return 0
    rank, rope = facts.kv_lora_rank or 0, facts.rope_dimensions or 0
    found = max(facts.heads, default=0) * (2 * (rank + rope) + rank)
    if facts.shape.indexer_key_length and facts.state_space is None:
        found += _INDEXING + 5 * (facts.embedding_length or 0)
    return found


def _recurrent(facts: ModelFacts, settings: GgufSettings) -> float:
    space, width = facts.state_space, facts.embedding_length or 0
    if space is None:
        return 0
    # The states of all slots are gathered beside.
    states = settings.parallel * slot_state(facts) / (4 * settings.tokens)
    if space.wkv_head_size:
        return known.MIXING.get(facts.architecture, 15.1) * width + states
    if not space.state_size:
        return 0
    if not space.group_count:
        return 7 * space.inner_size + width + states
    both = 7.15 * space.inner_size + 6.8 * space.group_count * space.state_size
    if facts.architecture in known.BOTH:
        both += 2 * max(facts.heads, default=0) * (facts.key_length or 0)
    return both + states


def _kept(facts: ModelFacts, settings: GgufSettings) -> int:
    """Numbers of a token that stay alive all the way."""
    inputs = facts.shape.layer_input_length * (facts.total_layers or 0)
    if CELL_BYTES[settings.key_type] < CELL_BYTES["f16"]:  # keys are turned before they are quantised
        inputs *= 2
    return inputs + known.KEPT.get(facts.architecture, 0) * (facts.embedding_length or 0)
