"""Hollow folders of safetensors: configuration and complete headers of a big model over holes in sparse files."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.models.shape import SHAPES, Shape

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "I32": 4, "I64": 8, "U8": 1}

Tensors = Mapping[str, tuple[str, Sequence[int]]]
"""Name -> type and sides."""

_ARCHITECTURES = {
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
    "qwen3moe": ("Qwen3MoeForCausalLM", "qwen3_moe"),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text"),
    "deepseek2": ("DeepseekV3ForCausalLM", "deepseek_v3"),
}


def write_shard(path: Path, tensors: Tensors) -> int:
    """A safetensors file with these tensors, whose numbers are a hole; returns its bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (kind, sides) in tensors.items():
        size = math.prod(sides) * BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(sides), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + at)
    return 8 + len(text) + at


def make_hollow_folder(
    folder: Path,
    shape: str | Shape,
    *,
    shards: int = 1,
    kind: str = "BF16",
    config: Mapping[str, Any] | None = None,
) -> int:
    """Write the folder of a model of ``shape``, as a hub has it; returns the bytes of its weights.

    ``config`` is laid over the configuration that follows from the shape.
    """
    dimensions = SHAPES[shape] if isinstance(shape, str) else shape
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config_of(dimensions), **(config or {})}))
    tensors = list(tensors_of(dimensions, kind))
    total, placed = 0, {}
    for number in range(shards):
        name = "model.safetensors" if shards == 1 else f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(tensors[number * len(tensors) // shards : (number + 1) * len(tensors) // shards])
        write_shard(folder / name, part)
        total += sum(math.prod(sides) * BYTES[one] for one, sides in part.values())
        placed.update(dict.fromkeys(part, name))
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def config_of(shape: Shape) -> dict[str, Any]:
    """What ``config.json`` says of a model of that shape."""
    architecture, model_type = _ARCHITECTURES[shape.architecture]
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "torch_dtype": "bfloat16",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.tied,
    }
    if shape.window:
        config["sliding_window"] = shape.window
    if shape.experts:
        config |= {
            "num_experts": shape.experts.count,
            "num_experts_per_tok": shape.experts.used,
            "moe_intermediate_size": shape.experts.width,
        }
    if shape.latent:
        config |= {
            "kv_lora_rank": shape.latent.rank,
            "qk_rope_head_dim": shape.latent.rope,
            "qk_nope_head_dim": shape.latent.nope,
            "v_head_dim": shape.latent.value,
        }
    return config


def tensors_of(shape: Shape, kind: str) -> Iterator[tuple[str, tuple[str, Sequence[int]]]]:
    """The tensors of that shape by the names that transformers gives them."""
    yield "model.embed_tokens.weight", (kind, (shape.vocabulary, shape.width))
    for layer in range(shape.layers):
        for name, sides in _layer(shape, layer):
            yield f"model.layers.{layer}.{name}.weight", (kind, sides)
    yield "model.norm.weight", (kind, (shape.width,))
    if not shape.tied:
        yield "lm_head.weight", (kind, (shape.vocabulary, shape.width))


def _layer(shape: Shape, layer: int) -> Iterator[tuple[str, Sequence[int]]]:
    width, queries, keys = shape.width, shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    yield "input_layernorm", (width,)
    yield "post_attention_layernorm", (width,)
    if shape.latent:
        rank, rope = shape.latent.rank, shape.latent.rope
        yield "self_attn.q_proj", (shape.heads * (shape.latent.nope + rope), width)
        yield "self_attn.kv_a_proj_with_mqa", (rank + rope, width)
        yield "self_attn.kv_b_proj", (shape.heads * (shape.latent.nope + shape.latent.value), rank)
        yield "self_attn.o_proj", (width, shape.heads * shape.latent.value)
    else:
        yield "self_attn.q_proj", (queries, width)
        yield "self_attn.k_proj", (keys, width)
        yield "self_attn.v_proj", (keys, width)
        yield "self_attn.o_proj", (width, queries)
    experts = shape.experts
    if experts and layer >= experts.dense:
        yield "mlp.gate", (experts.count, width)
        for one in range(experts.count):
            yield from _feed_forward(f"mlp.experts.{one}", width, experts.width)
    else:
        yield from _feed_forward("mlp", width, shape.feed_forward)


def _feed_forward(place: str, width: int, inner: int) -> Iterator[tuple[str, Sequence[int]]]:
    yield f"{place}.gate_proj", (inner, width)
    yield f"{place}.up_proj", (inner, width)
    yield f"{place}.down_proj", (width, inner)
