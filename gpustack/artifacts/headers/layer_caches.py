"""What each layer of a model keeps of a request, as its configuration says.

The kinds of layers and the shapes of states are those of vLLM 0.32 (``vllm/model_executor/models``,
``vllm/model_executor/layers/mamba/mamba_utils.py``), by the keys of each family's ``config.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

from gpustack.artifacts.headers.model_config import ModelConfig
from gpustack.domain.facts import CacheKind, LayerCache

_WINDOW_PERIOD: Mapping[str, int] = {
    "gemma2": 2, "gpt_oss": 2, "cohere2": 4, "exaone4": 4, "gemma3n_text": 5, "gemma3": 6, "gemma3_text": 6,
}  # fmt: skip
"""Model types in which all but every n-th layer slide, where the configuration does not list the layers."""
_CHUNK_PERIOD = 4
"""Llama 4: every fourth layer sees everything, the others a chunk."""
_INDEXER_BYTES = 4
"""Sparse attention keeps its index in 8 bits a number, with a scale of 4 bytes (``vllm/models/deepseek_v32``)."""
_ENCODER_TYPES = ("bert", "roberta", "nomic_bert", "modernbert", "xlm-roberta", "distilbert", "mpnet", "camembert",
    "albert", "electra", "deberta-v2", "gte", "new", "neobert", "eurobert", "siglip", "clip")  # fmt: skip


class LayerKind(Enum):
    FULL = "full"
    SLIDING = "sliding"
    STATE = "state"
    BOTH = "both"
    NONE = "none"


_WORDS: Mapping[str, LayerKind] = {
    "sliding_attention": LayerKind.SLIDING,
    "chunked_attention": LayerKind.SLIDING,
    "linear_attention": LayerKind.STATE,
    "mamba": LayerKind.STATE,
    "mamba2": LayerKind.STATE,
    "conv": LayerKind.STATE,
    "hybrid": LayerKind.BOTH,
    "mlp": LayerKind.NONE,
    "moe": LayerKind.NONE,
}
"""Everything else (``full_attention``, ``attention``, sparse kinds) keeps something of every token."""
_LETTERS: Mapping[str, LayerKind] = {"M": LayerKind.STATE, "-": LayerKind.NONE, "E": LayerKind.NONE}


def layer_caches(config: ModelConfig, architectures: Sequence[str]) -> tuple[LayerCache, ...]:
    """What all layers keep; nothing for encoders, and where the configuration does not say enough."""
    layers = config.layers or 0
    if is_encoder(config, architectures) or not layers or layers > 1 << 16:
        return ()
    kinds = _kinds(config, layers)
    shared = config.count("num_kv_shared_layers") or 0
    if 0 < shared < layers:  # the last layers look into the caches of earlier ones
        kinds = [*kinds[: layers - shared], *[LayerKind.NONE] * shared]
    caches = [cache for layer, kind in enumerate(kinds) for cache in _caches_of(config, layer, kind)]
    # Each layer of LongCat has attention twice; newer configurations count those as layers.
    twice = config.model_type == "longcat_flash" and config.count("num_hidden_layers") in (None, layers)
    return tuple(caches * 2 if twice else caches)


def is_encoder(config: ModelConfig, architectures: Sequence[str]) -> bool:
    """Whether the model reads a text as a whole, so that nothing is kept for later."""
    kind = config.model_type or ""
    if config.flag("is_decoder") or any(name.endswith("LMHeadModel") for name in architectures):
        return False
    return kind in _ENCODER_TYPES or kind.endswith("bert") or any("Bert" in name for name in architectures)


def _kinds(config: ModelConfig, layers: int) -> list[LayerKind]:
    """The kind of each layer."""
    if config.model_type in ("mamba", "mamba2", "falcon_mamba"):
        return [LayerKind.STATE] * layers
    if config.model_type == "falcon_h1":
        return [LayerKind.BOTH] * layers
    listed = (
        _by_words(config, layers)
        or _by_letters(config)
        or _by_index(config, layers)
        or _by_period(config, layers)
    )
    if not listed:
        return _by_window(config, layers)
    return [*listed, *[LayerKind.FULL] * layers][:layers]


def _by_words(config: ModelConfig, layers: int) -> list[LayerKind]:
    words = config.words("layers_block_type") or config.words("layer_types")
    if not words:
        return []
    slides = config.count("sliding_window", "attention_chunk_size") is not None
    found = [_WORDS.get(word, LayerKind.FULL) for word in words]
    if config.model_type == "zamba2":
        found = [LayerKind.BOTH if kind is LayerKind.BOTH else LayerKind.STATE for kind in found]
    return found if slides else [LayerKind.FULL if k is LayerKind.SLIDING else k for k in found]


def _by_letters(config: ModelConfig) -> list[LayerKind]:
    pattern = config.raw("hybrid_override_pattern")
    letters = pattern if isinstance(pattern, str) else ""
    return [_LETTERS.get(letter, LayerKind.FULL) for letter in letters]


def _by_index(config: ModelConfig, layers: int) -> list[LayerKind]:
    """Lists of the layers that are, or are not, of one kind."""
    linear = config.part("linear_attn_config").get("kda_layers")
    if isinstance(linear, list):  # counted from 1
        return [LayerKind.STATE if layer + 1 in linear else LayerKind.FULL for layer in range(layers)]
    for name in ("attn_layer_indices", "full_attn_idxs"):
        full = config.raw(name)
        if isinstance(full, list):
            return [LayerKind.FULL if layer in full else LayerKind.STATE for layer in range(layers)]
    if kinds := config.counts("attn_type_list"):
        return [LayerKind.FULL if kind == 1 else LayerKind.STATE for kind in kinds]
    if sliding := config.counts("hybrid_layer_pattern"):
        return [LayerKind.SLIDING if one == 1 else LayerKind.FULL for one in sliding]
    blocks = config.raw("block_configs")
    if isinstance(blocks, list):
        return [LayerKind.NONE if _is_void(block) else LayerKind.FULL for block in blocks[:layers]]
    return []


def _is_void(block: object) -> bool:
    """Whether a block of a pruned model has no attention."""
    attention = block.get("attention") if isinstance(block, dict) else None
    return isinstance(attention, dict) and attention.get("no_op") is True


def _by_period(config: ModelConfig, layers: int) -> list[LayerKind]:
    if every := config.count("full_attention_interval"):
        return [LayerKind.STATE if (layer + 1) % every else LayerKind.FULL for layer in range(layers)]
    if every := config.count("attn_layer_period"):
        first = config.count("attn_layer_offset") or 0
        return [LayerKind.FULL if layer % every == first else LayerKind.STATE for layer in range(layers)]
    if config.count("attention_chunk_size") and config.model_type in ("llama4", "llama4_text"):
        roped = config.counts("no_rope_layers")
        if len(roped) == layers:
            return [LayerKind.SLIDING if one else LayerKind.FULL for one in roped]
        return [LayerKind.SLIDING if (n + 1) % _CHUNK_PERIOD else LayerKind.FULL for n in range(layers)]
    return []


def _by_window(config: ModelConfig, layers: int) -> list[LayerKind]:
    if not config.count("sliding_window") or config.raw("use_sliding_window") is False:
        return [LayerKind.FULL] * layers
    text_type = config.text.get("model_type")
    known = _WINDOW_PERIOD.get(text_type if isinstance(text_type, str) else config.model_type or "")
    period = config.count("sliding_window_pattern") or known
    if not period:
        return [LayerKind.SLIDING] * layers
    return [LayerKind.SLIDING if (layer + 1) % period else LayerKind.FULL for layer in range(layers)]


def _caches_of(config: ModelConfig, layer: int, kind: LayerKind) -> Iterator[LayerCache]:
    if kind in (LayerKind.FULL, LayerKind.BOTH):
        yield _full(config, layer)
    if kind is LayerKind.SLIDING:
        yield _sliding(config, layer)
    if kind in (LayerKind.STATE, LayerKind.BOTH):
        yield _state(config, layer)
    if (positions := config.count("max_source_positions")) and config.count("decoder_layers"):
        yield attention(config, layer, CacheKind.CROSS, window=positions)


def _full(config: ModelConfig, layer: int) -> LayerCache:
    if config.is_latent:
        index = config.count("index_head_dim")
        packed = index + _INDEXER_BYTES if index else 0
        return LayerCache(layer=layer, kind=CacheKind.FULL, width=config.latent_size, packed=packed)
    heads = _at(config.counts("num_key_value_heads", "num_key_value_heads_per_layer"), layer)
    wide = config.count("global_head_dim")
    own = config.count("num_global_key_value_heads") if wide else None
    return attention(config, layer, CacheKind.FULL, heads=own or heads or _grouped(config, layer), size=wide)


def _grouped(config: ModelConfig, layer: int) -> int | None:
    """Key heads of a layer of a pruned model, whose layers differ."""
    blocks = config.raw("block_configs")
    block = blocks[layer] if isinstance(blocks, list) and layer < len(blocks) else None
    said = block.get("attention") if isinstance(block, dict) else None
    group = said.get("n_heads_in_group") if isinstance(said, dict) else None
    return (config.heads or 0) // group if type(group) is int and group > 0 else None


def _sliding(config: ModelConfig, layer: int) -> LayerCache:
    window = config.count("sliding_window_size", "sliding_window", "attention_chunk_size")
    return attention(
        config,
        layer,
        CacheKind.SLIDING,
        heads=config.count("swa_num_key_value_heads")
        or _at(config.counts("num_key_value_heads", "num_key_value_heads_per_layer"), layer),
        size=config.count("swa_head_dim"),
        value=config.count("swa_v_head_dim"),
        window=window,
    )


def attention(
    config: ModelConfig,
    layer: int,
    kind: CacheKind,
    *,
    heads: int | None = None,
    size: int | None = None,
    value: int | None = None,
    window: int | None = None,
) -> LayerCache:
    """Keys and values of ``heads`` (those of the model by default), each of ``size`` and ``value`` numbers."""
    key = size or config.head_size or 0
    own = config.count("v_head_dim") if size is None and config.model_type != "minicpm3" else None
    width = key + (value or own or key)
    return LayerCache(layer=layer, kind=kind, heads=heads or config.kv_heads or 1, width=width, window=window)


def _state(config: ModelConfig, layer: int) -> LayerCache:
    """Convolutions are kept in 16 bits a number, recurrent states in 32 where the configuration wants that."""
    heads, size = _delta(config) or _kda(config) or _short_convolution(config) or _mamba(config)
    return LayerCache(layer=layer, kind=CacheKind.STATE, heads=max(heads, 1), state=size)


def _delta(config: ModelConfig) -> tuple[int, int] | None:
    """Gated delta nets (Qwen 3 Next and later)."""
    values = config.count("linear_num_value_heads")
    if not values:
        return None
    keys, key_size = config.count("linear_num_key_heads") or 0, config.count("linear_key_head_dim") or 0
    value_size, kernel = (
        config.count("linear_value_head_dim") or 0,
        config.count("linear_conv_kernel_dim") or 1,
    )
    rolling = (2 * keys * key_size + values * value_size) * (kernel - 1) * 2
    return values, rolling + values * value_size * key_size * _state_bytes(config)


def _kda(config: ModelConfig) -> tuple[int, int] | None:
    said = ModelConfig(part := config.part("linear_attn_config"), part)
    heads, size = said.count("num_heads"), said.count("head_dim")
    if not heads or not size:
        return None
    rolling = 3 * heads * size * ((said.count("short_conv_kernel_size") or 4) - 1) * 2
    return heads, rolling + heads * size * size * 4


def _short_convolution(config: ModelConfig) -> tuple[int, int] | None:
    kept = config.count("conv_L_cache")
    width = config.count("conv_dim") or config.hidden or 0
    return (width, width * (kept - 1) * 2) if kept else None


def _mamba(config: ModelConfig) -> tuple[int, int]:
    size = config.count("mamba_d_state", "ssm_state_size", "state_size") or 0
    kernel = config.count("mamba_d_conv", "conv_kernel") or 4
    heads = config.count("mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    if heads is None and config.model_type == "mamba2":
        heads = config.count("num_heads")
    inner = config.count("mamba_d_ssm") or _inner(config)
    if not heads:
        if not size:  # lightning attention: a matrix for each head
            own, head = config.heads or 0, config.head_size or 0
            return own, own * head * head * 4
        return inner, (inner * (kernel - 1) + inner * size) * 2
    head = config.count("mamba_head_dim", "mamba_d_head", "mamba_headdim") or inner // heads
    groups = config.count("mamba_n_groups", "n_groups", "mamba_ngroups") or 1
    rolling = (heads * head + 2 * groups * size) * (kernel - 1) * 2
    return heads, rolling + heads * head * size * _state_bytes(config)


def _inner(config: ModelConfig) -> int:
    expand = config.number("mamba_expand", "expand") or 2.0
    if config.model_type in ("mamba", "falcon_mamba") and (inner := config.count("intermediate_size")):
        return inner
    return int(min(expand, 64.0) * (config.hidden or 0))


def _state_bytes(config: ModelConfig) -> int:
    """Bytes of a number of a recurrent state: NemotronH keeps 4 unless told otherwise, others as the model."""
    said = config.word("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if said is None:
        return 4 if config.model_type == "nemotron_h" else 2
    return 4 if said == "float32" else 2


def _at(values: Sequence[int], layer: int) -> int | None:
    """The value of a layer where there is one for each; else ``None``."""
    return values[layer] if len(values) > 1 and layer < len(values) else None
