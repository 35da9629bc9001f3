"""The facts about a GGUF model, from the headers of its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from gpustack.artifacts.headers.gguf import GgufHeader, GgufTensor, HeaderError, SkippedArray
from gpustack.domain.facts import (
    FileFormat,
    GgufShape,
    ModelFacts,
    StateSpace,
    TensorBytes,
    gguf_category,
    gguf_pooling,
)

MOST_LAYERS = 4096

FILE_TYPES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
"""``general.file_type`` → the name of the quantisation."""


def gguf_facts(
    headers: Sequence[GgufHeader], *, file_size: int, projector_size: int | None = None
) -> ModelFacts:
    """The facts of a model from the headers of its shards, in order. Sizes are in bytes.

    Values of the wrong type or of impossible size count as missing. Raises HeaderError when a header claims more layers
    than any model has, or contradicts itself.
    """
    try:
        return _facts(headers, file_size, projector_size)
    except HeaderError:
        raise
    except ValueError as error:
        raise HeaderError(f"it contradicts itself: {error}") from error


def _facts(headers: Sequence[GgufHeader], file_size: int, projector_size: int | None) -> ModelFacts:
    said = _Metadata.of(headers[0])
    layers = said.count("block_count")
    if layers is not None and layers > MOST_LAYERS:
        raise HeaderError(f"it claims to have {layers} layers")
    every = _whole(headers, file_size)
    tensors = _tensor_bytes(every, layers or 0)
    pooling = gguf_pooling(said.count("pooling_type"))
    return ModelFacts(
        format=FileFormat.GGUF,
        architecture=said.architecture,
        name=said.general_text("name"),
        category=gguf_category(said.architecture, pooling),
        parameters=sum(tensor.elements for tensor in every) or None,
        weights=tensors.total if tensors is not None else file_size,
        file_size=file_size,
        projector_size=projector_size,
        split_count=len(headers),
        quantisation=FILE_TYPES.get(said.general_count("file_type") or 0) if said.has_file_type else None,
        total_layers=layers,
        context_length=said.count("context_length"),
        embedding_length=said.count("embedding_length"),
        feed_forward_length=said.per_layer("feed_forward_length"),
        heads=said.per_layer("attention.head_count"),
        kv_heads=said.per_layer("attention.head_count_kv"),
        key_length=said.count("attention.key_length"),
        value_length=said.count("attention.value_length"),
        vocabulary=said.count("vocab_size") or said.tokens,
        sliding_window=said.count("attention.sliding_window") or None,
        sliding_window_pattern=said.pattern("attention.sliding_window_pattern"),
        kv_lora_rank=said.count("attention.kv_lora_rank"),
        key_length_mla=said.count("attention.key_length_mla"),
        rope_dimensions=said.count("rope.dimension_count"),
        expert_count=said.count("expert_count") or 0,
        expert_used_count=said.count("expert_used_count") or 0,
        expert_feed_forward_length=said.count("expert_feed_forward_length"),
        state_space=_state_space(said),
        shape=_shape(said, every),
        pooling=pooling,
        tensors=tensors,
    )


@attrs.frozen
class _Metadata:
    """The metadata of a header, read by the names that keys have within an architecture; types are checked."""

    values: Mapping[str, object]
    architecture: str

    @classmethod
    def of(cls, header: GgufHeader) -> _Metadata:
        architecture = header.metadata.get("general.architecture")
        return cls(header.metadata, architecture if isinstance(architecture, str) else "")

    @property
    def has_file_type(self) -> bool:
        return self.general_count("file_type") is not None

    @property
    def tokens(self) -> int | None:
        tokens = self.values.get("tokenizer.ggml.tokens")
        return tokens.items if isinstance(tokens, SkippedArray) else None

    def general_text(self, name: str) -> str | None:
        value = self.values.get(f"general.{name}")
        return value[:256] if isinstance(value, str) and value else None

    def general_count(self, name: str) -> int | None:
        return _count(self.values.get(f"general.{name}"))

    def count(self, name: str) -> int | None:
        value = self.values.get(f"{self.architecture}.{name}")
        if isinstance(value, tuple):  # one number per layer: the largest covers all
            return max((number for item in value if (number := _count(item)) is not None), default=None)
        return _count(value)

    def per_layer(self, name: str) -> tuple[int, ...]:
        value = self.values.get(f"{self.architecture}.{name}")
        items = value if isinstance(value, tuple) else (value,)
        numbers = [_count(item) for item in items]
        return tuple(number for number in numbers if number is not None) if None not in numbers else ()

    def pattern(self, name: str) -> int | tuple[bool, ...] | None:
        value = self.values.get(f"{self.architecture}.{name}")
        if isinstance(value, tuple):
            return tuple(bool(item) for item in value)
        return _count(value)


def _count(value: object) -> int | None:
    """``value``, if it is an int from 0 to 2**48."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 48:
        return None
    return value


def _state_space(said: _Metadata) -> StateSpace | None:
    def number(name: str) -> int:
        return said.count(name) or 0

    found = StateSpace(
        conv_kernel=number("ssm.conv_kernel"),
        inner_size=number("ssm.inner_size"),
        state_size=number("ssm.state_size"),
        group_count=number("ssm.group_count"),
        full_attention_interval=said.count("full_attention_interval"),
        wkv_head_size=number("wkv.head_size"),
        token_shifts=_usual(said.count("token_shift_count"), 2),
        kda_head_size=number("kda.head_dim"),
        short_convolution=number("shortconv.l_cache"),
    )
    recurs = found.state_size or found.wkv_head_size or found.kda_head_size or found.short_convolution
    return found if recurs else None


def _shape(said: _Metadata, tensors: Sequence[GgufTensor]) -> GgufShape:
    def number(name: str) -> int:
        return said.count(name) or 0

    roles = {_role(tensor.name) for tensor in tensors}
    return GgufShape(
        gated=_is_gated(said, tensors),
        dense="ffn_down.weight" in roles,
        mixed="ffn_down_exps.weight" in roles,
        rows=max(
            (one.shape[0] for one in tensors if _role(one.name) == "ffn_down.weight" and one.shape), default=0
        ),
        window_key_length=said.count("attention.key_length_swa"),
        window_value_length=said.count("attention.value_length_swa"),
        shared_layers=number("attention.shared_kv_layers"),
        next_token_layers=number("nextn_predict_layers"),
        indexer_key_length=number("attention.indexer.key_length"),
        indexer_layers=tuple(kind > 0 for kind in said.per_layer("attention.indexer.types")),
        compress_ratios=said.per_layer("attention.compress_ratios"),
        layer_input_length=number("embedding_length_per_layer_input"),
    )


def _is_gated(said: _Metadata, tensors: Sequence[GgufTensor]) -> bool:
    """Whether a feed-forward has a gate, or rows upwards that are twice as many as the header says. Unknown is yes:
    that takes more memory."""
    rows = {width for width in said.per_layer("feed_forward_length") if width}
    known = False
    for tensor in tensors:
        role = _role(tensor.name)
        if role.startswith(("ffn_gate.", "ffn_gate_exps.", "ffn_gate_up_exps.")):
            return True
        if role == "ffn_up.weight" and len(tensor.shape) == 2:
            known = True
            if rows and tensor.shape[1] not in rows:
                return True
        known = known or role == "ffn_up_exps.weight"
    return not known


def _role(name: str) -> str:
    """``blk.7.attn_q.weight`` → ``attn_q.weight``."""
    return ".".join(name.rsplit(".", 2)[-2:])


def _usual(value: int | None, usual: int) -> int:
    return usual if value is None else value


def _whole(headers: Sequence[GgufHeader], file_size: int) -> list[GgufTensor]:
    """All tensors; the last one of a file, whose size is unknown if its type is, has what the files have left."""
    every = [tensor for header in headers for tensor in header.tensors]
    unknown = sum(tensor.size is None for tensor in every)
    left = file_size - sum(header.least_file_size for header in headers)
    if not unknown or left <= 0:
        return every
    return [
        tensor if tensor.size is not None else attrs.evolve(tensor, size=left // unknown) for tensor in every
    ]


def _tensor_bytes(tensors: Sequence[GgufTensor], layers: int) -> TensorBytes | None:
    """The bytes of tensors by where an engine puts them; ``None`` when the size of one is unknown."""
    per_layer, experts = [0] * layers, [0] * layers
    token = output = other = 0
    names = set()
    for tensor in tensors:
        if tensor.size is None:
            return None
        names.add(tensor.name)
        layer = _layer(tensor.name)
        if layer is not None and layer < layers:
            per_layer[layer] += tensor.size
            experts[layer] += tensor.size if "_exps." in tensor.name else 0
        elif tensor.name == "token_embd.weight":
            token += tensor.size
        elif tensor.name.startswith("output"):
            output += tensor.size
        else:
            other += tensor.size
    return TensorBytes(
        layers=tuple(per_layer),
        experts=tuple(experts) if any(experts) else (),
        token_embedding=token,
        output=output,
        other=other,
        tied="token_embd.weight" in names and "output.weight" not in names,
    )


def _layer(name: str) -> int | None:
    """``blk.7.attn_q.weight`` → 7, and of models with an encoder ``dec.blk.7.…`` and ``enc.blk.7.…``."""
    start, _, rest = name.removeprefix("dec.").removeprefix("enc.").partition(".")
    number = rest.partition(".")[0]
    return (
        int(number) if start == "blk" and number.isascii() and number.isdigit() and len(number) < 9 else None
    )
