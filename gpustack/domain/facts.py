"""What the header of a model file says about the model: enough to place it without a download of the weights."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import attrs

from .model import Category


class FileFormat(StrEnum):
    """How the weights are stored."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    UNKNOWN = "unknown"


def format_at(path: str | None) -> FileFormat:
    """The format of files as a worker reports their main path: a GGUF file, or the folder of a repository."""
    if not path:
        return FileFormat.UNKNOWN
    return FileFormat.GGUF if path.lower().endswith(".gguf") else FileFormat.SAFETENSORS


MOST_LAYERS = 1 << 16
_LARGEST = 1 << 62


def _countable(instance: object, field: Any, value: Any) -> None:
    """Facts may come from another machine and are used in sums and divisions: absurd numbers are refused."""
    numbers = value if isinstance(value, tuple) else (value,)
    if len(numbers) > MOST_LAYERS or not all(n is None or 0 <= n <= _LARGEST for n in numbers):
        raise ValueError(f"{field.name} cannot be {str(value)[:40]}")


def _bounded_layers(instance: object, field: Any, value: int | None) -> None:
    if value is not None and value > MOST_LAYERS:
        raise ValueError(f"no model has {value} layers")


@attrs.frozen(kw_only=True)
class TensorBytes:
    """Bytes of weights by the place where an engine puts them, summed over split files."""

    layers: tuple[int, ...] = attrs.field(default=(), validator=_countable)
    """All tensors of each layer (GGUF: ``blk.<n>.``), one entry per layer."""
    experts: tuple[int, ...] = attrs.field(default=(), validator=_countable)
    """Of each of ``layers``, the part that is experts of a mixture (GGUF: ``…_exps``); empty if unknown."""
    token_embedding: int = attrs.field(default=0, validator=_countable)
    """GGUF: ``token_embd.weight`` alone. It stays in host memory."""
    output: int = attrs.field(default=0, validator=_countable)
    """GGUF: everything that starts with ``output`` (head and final norm)."""
    other: int = attrs.field(default=0, validator=_countable)
    """Everything else, e.g. ``token_embd_norm`` or ``rope_freqs``."""
    tied: bool = False
    """There is no ``output.weight``: the head is the token embedding, copied where the output is computed."""
    replicated: tuple[int, ...] = attrs.field(default=(), validator=_countable)
    """Of each of ``layers``, the part that every device has whole when the rest is divided (tensor parallel)."""
    key_value: tuple[int, ...] = attrs.field(default=(), validator=_countable)
    """Of each of ``layers``, the projections to keys and values, which are divided by heads of these."""
    tower: int = attrs.field(default=0, validator=_countable)
    """What reads images or sound, with its own layers."""
    draft: int = attrs.field(default=0, validator=_countable)
    """Layers that predict further tokens, loaded only for speculative decoding."""
    sides: int = attrs.field(default=0, validator=_countable)
    """Rows and columns of all matrices of the layers to which a LoRA adapter may add, summed: numbers, not bytes."""
    wide: int = attrs.field(default=0, validator=_countable)
    """What tensors of 32 or 64 bits take beyond the 16 bits a number with which the sizes above count them: engines
    convert them. 0 where a quantised model needs them as they are."""

    @property
    def total(self) -> int:
        """Bytes of weights that every engine loads."""
        return sum(self.layers) + self.token_embedding + self.output + self.other + self.tower


class CacheKind(StrEnum):
    """What a layer keeps of a request while it runs."""

    FULL = "full"
    """Something of every token."""
    SLIDING = "sliding"
    """Something of the last tokens, as many as its window has."""
    CROSS = "cross"
    """Something of every position of what an encoder has read, e.g. of 30 s of sound."""
    STATE = "state"
    """A state whose size does not grow."""


@attrs.frozen(kw_only=True)
class LayerCache:
    """What layer ``layer`` keeps of each request. A layer may keep several things, or nothing."""

    layer: int = attrs.field(validator=_countable)
    kind: CacheKind
    heads: int = attrs.field(default=1, validator=_countable)
    """Devices divide it by these; one head is copied to all of them."""
    width: int = attrs.field(default=0, validator=_countable)
    """Numbers of each head and token: key and value together."""
    packed: int = attrs.field(default=0, validator=_countable)
    """Bytes of each token whatever the type of the cache, beside ``width``."""
    window: int | None = attrs.field(default=None, validator=_countable)
    """Tokens of ``SLIDING``, positions of ``CROSS``."""
    state: int = attrs.field(default=0, validator=_countable)
    """Bytes of ``STATE``, all heads together."""


@attrs.frozen(kw_only=True)
class StateSpace:
    """Recurrent layers of a GGUF, whose state does not grow with the context: ``<arch>.ssm.*``, ``wkv.*``, ``kda.*``
    and ``shortconv.*``. What a model does not have is 0."""

    conv_kernel: int = attrs.field(default=0, validator=_countable)
    inner_size: int = attrs.field(default=0, validator=_countable)
    state_size: int = attrs.field(default=0, validator=_countable)
    group_count: int = attrs.field(default=0, validator=_countable)
    full_attention_interval: int | None = attrs.field(default=None, validator=_countable)
    """One layer in this many has attention instead (qwen3next and related models)."""
    wkv_head_size: int = attrs.field(default=0, validator=_countable)
    """RWKV."""
    token_shifts: int = attrs.field(default=2, validator=_countable)
    """RWKV: tokens that a layer remembers as they were."""
    kda_head_size: int = attrs.field(default=0, validator=_countable)
    """Kimi's delta attention."""
    short_convolution: int = attrs.field(default=0, validator=_countable)
    """Tokens that a convolution looks at (LFM2)."""


@attrs.frozen(kw_only=True)
class GgufShape:
    """What else a GGUF's header says that decides about memory. What a model does not have is 0 or empty."""

    gated: bool = True
    """The feed-forward has a gate beside its rows upwards, or both in one (``ffn_up`` twice as wide)."""
    dense: bool = True
    """There are layers with one feed-forward for all tokens, whether or not others mix experts."""
    mixed: bool = True
    """There are layers that mix experts, where the header counts any."""
    rows: int = attrs.field(default=0, validator=_countable)
    """The most that such a feed-forward has, by its tensors; 0 if unknown."""
    window_key_length: int | None = attrs.field(default=None, validator=_countable)
    """Of layers that slide, where it differs (``attention.key_length_swa``)."""
    window_value_length: int | None = attrs.field(default=None, validator=_countable)
    shared_layers: int = attrs.field(default=0, validator=_countable)
    """The last ones, which look into the cache of earlier layers (``attention.shared_kv_layers``)."""
    next_token_layers: int = attrs.field(default=0, validator=_countable)
    """The last ones of the file, which predict further tokens: loaded, but not run with the others."""
    indexer_key_length: int = attrs.field(default=0, validator=_countable)
    """Sparse attention keeps so many further numbers of a token."""
    indexer_layers: tuple[bool, ...] = attrs.field(default=(), validator=_countable)
    """Which layers have an index of their own, the others use that of an earlier one; empty is all."""
    compress_ratios: tuple[int, ...] = attrs.field(default=(), validator=_countable)
    """DeepSeek 4: tokens that become one in the cache of a layer; 0 where only a window is kept."""
    layer_input_length: int = attrs.field(default=0, validator=_countable)
    """Numbers of a token that each layer gets of its own (``embedding_length_per_layer_input``)."""


@attrs.frozen(kw_only=True, cache_hash=True)
class ModelFacts:
    """What was read from a header; a field is ``None`` (or empty) where the header does not say.

    Per-layer values have one entry per layer, or a single one that holds for all of them.
    """

    format: FileFormat = FileFormat.UNKNOWN
    architecture: str = ""
    name: str | None = None
    category: Category | None = None
    parameters: int | None = attrs.field(default=None, validator=_countable)
    """How many weights the model has, all experts counted."""
    weights: int | None = attrs.field(default=None, validator=_countable)
    """Bytes of the weights; ``None`` if unknown."""
    file_size: int | None = attrs.field(default=None, validator=_countable)
    """Bytes of all files to fetch, without the projector."""
    projector_size: int | None = attrs.field(default=None, validator=_countable)
    """Bytes of the vision or audio projector that is fetched beside the model."""
    split_count: int = attrs.field(default=1, validator=_countable)
    quantisation: str | None = None
    """GGUF: the name of its type. Safetensors: the method, e.g. ``fp8``, ``awq`` or ``compressed-tensors``."""
    quantisation_format: str | None = None
    """Of a method that has several formats (``compressed-tensors``), which one."""
    quantisation_group: int | None = attrs.field(default=None, validator=_countable)
    """Weights in a row that share a scale; a device holds whole groups."""
    dtype: str | None = None
    """Type that the model computes in, as its configuration names it: ``bfloat16``."""
    model_type: str | None = None
    remote_code: bool = False
    """Its repository has program code without which it cannot be loaded."""
    adapter_of: str | None = None
    """Set for a LoRA adapter, which is no model by itself: the model it belongs to; empty if it does not say."""
    total_layers: int | None = attrs.field(default=None, validator=[_countable, _bounded_layers])
    context_length: int | None = attrs.field(default=None, validator=_countable)
    """Tokens the model was trained for."""
    embedding_length: int | None = attrs.field(default=None, validator=_countable)
    feed_forward_length: tuple[int, ...] = attrs.field(default=(), validator=_countable)
    heads: tuple[int, ...] = attrs.field(default=(), validator=_countable)
    kv_heads: tuple[int, ...] = attrs.field(default=(), validator=_countable)
    """Zero where a layer has no attention (hybrids)."""
    key_length: int | None = attrs.field(default=None, validator=_countable)
    value_length: int | None = attrs.field(default=None, validator=_countable)
    vocabulary: int | None = attrs.field(default=None, validator=_countable)
    sliding_window: int | None = attrs.field(default=None, validator=_countable)
    sliding_window_pattern: int | tuple[bool, ...] | None = attrs.field(default=None, validator=_countable)
    """A period, or for each layer whether it slides."""
    kv_lora_rank: int | None = attrs.field(default=None, validator=_countable)
    key_length_mla: int | None = attrs.field(default=None, validator=_countable)
    """Set for multi-head latent attention stored in its compact form."""
    caches: tuple[LayerCache, ...] = attrs.field(default=())
    """What layers keep of a request (safetensors); empty for models that keep nothing, as encoders do."""
    expert_feed_forward_length: int | None = attrs.field(default=None, validator=_countable)
    rope_dimensions: int | None = attrs.field(default=None, validator=_countable)
    expert_count: int = attrs.field(default=0, validator=_countable)
    expert_used_count: int = attrs.field(default=0, validator=_countable)
    state_space: StateSpace | None = None
    shape: GgufShape = GgufShape()
    pooling: str | None = None
    """``none``, ``mean``, ``cls``, ``last`` or ``rank``, for models that embed or rank."""
    tensors: TensorBytes | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the facts suffice to compute what an engine will need, so that it is not guessed from the file
        size."""
        mixes = bool(self.heads) or self.state_space is not None
        return bool(self.tensors and self.total_layers and self.embedding_length and mixes)

    @property
    def is_encoder(self) -> bool:
        """Whether it reads a whole text at once and keeps nothing of it."""
        return self.format is FileFormat.SAFETENSORS and self.is_complete and not self.caches


_EMBEDDERS = ("bert", "t5encoder", "gemma-embedding", "llama-embed")
_UNSERVED = frozenset({
    "", "clip", "mmproj",  # projectors
    "dream", "llada", "llada-moe", "rnd1", "diffusion-gemma",  # write by diffusion, which no server of llama.cpp does
    "eagle3", "dflash", "gemma4-assistant",  # drafts, which need the model that they guess for
    "wavtokenizer-dec", "qwen3tts", "pockettts",  # speak, by a program of their own
})  # fmt: skip
"""Architectures of GGUF files that are no models of text by themselves."""
_POOLINGS = ("none", "mean", "cls", "last", "rank")


def gguf_pooling(value: int | None) -> str | None:
    """The word for the number in ``<arch>.pooling_type``; ``None`` if absent or unknown."""
    return _POOLINGS[value] if value is not None and 0 <= value < len(_POOLINGS) else None


def gguf_category(architecture: str, pooling: str | None) -> Category:
    """The category of a GGUF with this architecture and pooling; ``UNKNOWN`` for what a server cannot answer with:
    projectors, drafts, models that write by diffusion or speak."""
    if architecture in _UNSERVED:
        return Category.UNKNOWN
    if pooling == "rank":
        return Category.RERANKER
    if any(word in architecture for word in _EMBEDDERS) or pooling in ("mean", "cls", "last"):
        return Category.EMBEDDING
    return Category.LLM
