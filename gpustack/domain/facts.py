"""What the header of a model file says about the model: enough to place it without fetching the weights."""

from __future__ import annotations

from enum import StrEnum

import attrs

from .model import Category


class FileFormat(StrEnum):
    """How the weights are stored."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class TensorBytes:
    """Bytes of weights by where an engine puts them. Split files are summed."""

    layers: tuple[int, ...] = ()
    """All tensors of each layer (GGUF: ``blk.<n>.``), one entry per layer."""
    token_embedding: int = 0
    """GGUF: ``token_embd.weight`` alone. It stays in host memory."""
    output: int = 0
    """GGUF: everything that starts with ``output`` (head and final norm)."""
    other: int = 0
    """What is none of these, e.g. ``token_embd_norm`` or ``rope_freqs``."""
    tied: bool = False
    """There is no ``output.weight``: the head is the token embedding, copied where the output is computed."""

    @property
    def total(self) -> int:
        """Bytes of weights in the files."""
        return sum(self.layers) + self.token_embedding + self.output + self.other


@attrs.frozen(kw_only=True)
class StateSpace:
    """Recurrent layers (GGUF ``<arch>.ssm.*``): their state is as large as this, however long the context."""

    conv_kernel: int = 0
    inner_size: int = 0
    state_size: int = 0
    group_count: int = 0
    full_attention_interval: int | None = None
    """Every that many layers one has attention instead (qwen3next and its kin)."""


@attrs.frozen(kw_only=True)
class ModelFacts:
    """What was read from a header; a field is ``None`` (or empty) where the header does not say.

    Per-layer values have one entry per layer, or a single one that holds for all of them.
    """

    format: FileFormat = FileFormat.UNKNOWN
    architecture: str = ""
    name: str | None = None
    category: Category | None = None
    parameters: int | None = None
    """How many weights the model has, all experts counted."""
    weights: int | None = None
    """Bytes of the weights; ``None`` if nothing told."""
    file_size: int | None = None
    """Bytes of all files to fetch, projector left out."""
    projector_size: int | None = None
    """Bytes of the vision or audio projector that is fetched beside the model."""
    split_count: int = 1
    quantisation: str | None = None
    total_layers: int | None = None
    context_length: int | None = None
    """Tokens the model was trained for."""
    embedding_length: int | None = None
    feed_forward_length: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    kv_heads: tuple[int, ...] = ()
    """Zero where a layer has no attention (hybrids)."""
    key_length: int | None = None
    value_length: int | None = None
    vocabulary: int | None = None
    sliding_window: int | None = None
    sliding_window_pattern: int | tuple[bool, ...] | None = None
    """A period, or for each layer whether it slides."""
    kv_lora_rank: int | None = None
    key_length_mla: int | None = None
    """Set for multi-head latent attention stored in its compact form."""
    rope_dimensions: int | None = None
    expert_count: int = 0
    expert_used_count: int = 0
    state_space: StateSpace | None = None
    pooling: str | None = None
    """``none``, ``mean``, ``cls``, ``last`` or ``rank``, for models that embed or rank."""
    tensors: TensorBytes | None = None

    @property
    def is_complete(self) -> bool:
        """Whether there is enough to compute what an engine will need, rather than to guess from size."""
        mixes = bool(self.heads) or self.state_space is not None
        return bool(self.tensors and self.total_layers and self.embedding_length and mixes)


_EMBEDDERS = ("bert", "t5encoder", "gemma-embedding", "jina-bert")
_POOLINGS = ("none", "mean", "cls", "last", "rank")


def gguf_pooling(value: int | None) -> str | None:
    """The word for the number in ``<arch>.pooling_type``; ``None`` if absent or unknown."""
    return _POOLINGS[value] if value is not None and 0 <= value < len(_POOLINGS) else None


def gguf_category(architecture: str, pooling: str | None) -> Category:
    """What a GGUF of this architecture and pooling answers. A projector or diffusion model is unknown to us."""
    if pooling == "rank":
        return Category.RERANKER
    if any(word in architecture for word in _EMBEDDERS) or pooling in ("mean", "cls", "last"):
        return Category.EMBEDDING
    if architecture in ("", "clip", "mmproj"):
        return Category.UNKNOWN
    return Category.LLM
