"""Hollow GGUFs: the complete header of a big model over a hole in a sparse file.

A 40 GB model takes a few MB of disk and about a second. Readers of headers and estimators of memory see what
they would see in the real file, also over HTTP ranges; small ones load and answer nonsense.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from tests.models.shape import SHAPES, Shape

Kind = gguf.GGMLQuantizationType

# quantisation -> (most tensors, the more sensitive ones, the output layer, file type)
MIXES = {
    "f16": (Kind.F16, Kind.F16, Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Kind.Q8_0, Kind.Q8_0, Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Kind.Q4_0, Kind.Q4_0, Kind.Q6_K, gguf.LlamaFileType.MOSTLY_Q4_0),
    "q4_k_m": (Kind.Q4_K, Kind.Q6_K, Kind.Q6_K, gguf.LlamaFileType.MOSTLY_Q4_K_M),
}

Tensor = tuple[str, tuple[int, ...], Kind]


def make_hollow(path: Path, shape: str | Shape, quantisation: str = "q4_k_m") -> int:
    """Write a file with the header of ``shape`` (a name in SHAPES or one of your own) and return its bytes.

    The tensors of a real file of that kind add up to the same bytes, give or take the quantiser's choices.
    """
    dimensions = SHAPES[shape] if isinstance(shape, str) else shape
    writer = gguf.GGUFWriter(path, dimensions.architecture)
    writer.add_name(f"{shape if isinstance(shape, str) else dimensions.architecture} (hollow)")
    writer.add_type("model")
    writer.add_file_type(MIXES[quantisation][3])
    _describe(writer, dimensions)
    _add_tokenizer(writer, dimensions.vocabulary)
    hole = 0
    for name, sides, kind in _tensors(dimensions, quantisation):
        size = _bytes(sides, kind)
        writer.add_tensor_info(name, sides, np.dtype(np.float32), size, raw_dtype=kind)
        hole += _aligned(size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    total = _aligned(path.stat().st_size) + hole
    os.truncate(path, total)
    return total


def _describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(shape.vocabulary)
    if shape.window is not None:
        writer.add_sliding_window(shape.window)
    if shape.experts is not None:
        writer.add_expert_count(shape.experts.count)
        writer.add_expert_used_count(shape.experts.used)
        writer.add_expert_feed_forward_length(shape.experts.width)
        if shape.experts.shared:
            writer.add_expert_shared_count(shape.experts.shared)
        if shape.experts.dense:
            writer.add_leading_dense_block_count(shape.experts.dense)
    if shape.latent is None:
        writer.add_key_length(shape.head_size)
        writer.add_value_length(shape.head_size)
        writer.add_rope_dimension_count(shape.head_size)
        return
    writer.add_key_length(shape.latent.rank + shape.latent.rope)
    writer.add_value_length(shape.latent.rank)
    writer.add_key_length_mla(shape.latent.nope + shape.latent.rope)
    writer.add_value_length_mla(shape.latent.value)
    writer.add_kv_lora_rank(shape.latent.rank)
    writer.add_rope_dimension_count(shape.latent.rope)
    writer.add_expert_weights_scale(1.0)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)


def _add_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _tensors(shape: Shape, quantisation: str) -> Iterator[Tensor]:
    """Every tensor with its sides (rows first, as numpy has them) and type."""
    usual, sensitive, output, _ = MIXES[quantisation]
    yield "token_embd.weight", (shape.vocabulary, shape.width), output if shape.tied else usual
    for layer in range(shape.layers):
        finer = sensitive if _is_sensitive(layer, shape.layers) else usual
        attention = _plain_attention if shape.latent is None else _latent_attention
        for part in (attention, _norms, _feed_forward):
            for name, sides, kind in part(shape, layer, usual, finer):
                yield f"blk.{layer}.{name}", sides, _storable(sides, kind)
    yield "output_norm.weight", (shape.width,), Kind.F32
    if not shape.tied:
        yield "output.weight", (shape.vocabulary, shape.width), output


def _storable(sides: tuple[int, ...], kind: Kind) -> Kind:
    """K-quants want rows of whole 256s; quantisers fall back where a row is not."""
    if kind in (Kind.Q4_K, Kind.Q6_K) and sides[-1] % 256:
        return Kind.Q5_0 if kind is Kind.Q4_K else Kind.Q8_0
    return kind


def _is_sensitive(layer: int, layers: int) -> bool:
    """llama.cpp's *_M mixes keep more bits in the first and last eighth and in each third layer between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2


def _plain_attention(shape: Shape, layer: int, usual: Kind, finer: Kind) -> Iterator[Tensor]:
    for letter, heads, kind in (
        ("q", shape.heads, usual),
        ("k", shape.kv_heads, usual),
        ("v", shape.kv_heads, finer),
    ):
        yield f"attn_{letter}.weight", (heads * shape.head_size, shape.width), kind
        if shape.qkv_bias:
            yield f"attn_{letter}.bias", (heads * shape.head_size,), Kind.F32
    if shape.qk_norm:
        yield "attn_q_norm.weight", (shape.head_size,), Kind.F32
        yield "attn_k_norm.weight", (shape.head_size,), Kind.F32
    yield "attn_output.weight", (shape.width, shape.heads * shape.head_size), usual


def _latent_attention(shape: Shape, layer: int, usual: Kind, finer: Kind) -> Iterator[Tensor]:
    latent = shape.latent
    assert latent is not None
    yield "attn_q.weight", (shape.heads * (latent.nope + latent.rope), shape.width), usual
    yield "attn_kv_a_mqa.weight", (latent.rank + latent.rope, shape.width), usual
    yield "attn_kv_a_norm.weight", (latent.rank,), Kind.F32
    yield "attn_k_b.weight", (shape.heads, latent.rank, latent.nope), Kind.Q8_0
    yield "attn_v_b.weight", (shape.heads, latent.value, latent.rank), Kind.Q8_0
    yield "attn_output.weight", (shape.width, shape.heads * latent.value), usual


def _norms(shape: Shape, layer: int, usual: Kind, finer: Kind) -> Iterator[Tensor]:
    names = ["attn_norm", "ffn_norm"]
    if shape.post_norm:
        names += ["post_attention_norm", "post_ffw_norm"]
    for name in names:
        yield f"{name}.weight", (shape.width,), Kind.F32


def _feed_forward(shape: Shape, layer: int, usual: Kind, finer: Kind) -> Iterator[Tensor]:
    experts = shape.experts
    if experts is None or layer < experts.dense:
        yield from _gated("", (), shape.feed_forward, shape.width, usual, finer)
        return
    yield "ffn_gate_inp.weight", (experts.count, shape.width), Kind.F32
    yield from _gated("_exps", (experts.count,), experts.width, shape.width, usual, finer)
    if experts.shared:
        yield from _gated("_shexp", (), experts.shared * experts.width, shape.width, usual, finer)


def _gated(
    suffix: str, stack: tuple[int, ...], inner: int, outer: int, usual: Kind, finer: Kind
) -> Iterator[Tensor]:
    yield f"ffn_gate{suffix}.weight", (*stack, inner, outer), usual
    yield f"ffn_up{suffix}.weight", (*stack, inner, outer), usual
    yield f"ffn_down{suffix}.weight", (*stack, outer, inner), finer


def _bytes(sides: tuple[int, ...], kind: Kind) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(sides) // block * size


def _aligned(size: int) -> int:
    unit = gguf.GGUF_DEFAULT_ALIGNMENT
    return -(-size // unit) * unit
