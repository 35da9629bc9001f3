"""Facts of well-known models, as their headers would tell them, without writing a file."""

from __future__ import annotations

from functools import cache

from gpustack.domain.facts import FileFormat, GgufShape, ModelFacts, TensorBytes
from gpustack.domain.model import Category
from tests.models.hollow import _bytes, _tensors
from tests.models.shape import SHAPES


@cache
def facts_of(name: str, quantisation: str = "q4_k_m") -> ModelFacts:
    """What a header of this shape in this quantisation says."""
    shape = SHAPES[name]
    layers, token, output, other = [0] * shape.layers, 0, 0, 0
    experts = [0] * shape.layers
    for tensor, sides, kind in _tensors(shape, quantisation):
        size = _bytes(sides, kind)
        if tensor.startswith("blk."):
            number = int(tensor.split(".")[1])
            layers[number] += size
            experts[number] += size if "_exps." in tensor else 0
        elif tensor == "token_embd.weight":
            token += size
        elif tensor.startswith("output"):
            output += size
        else:
            other += size
    tensors = TensorBytes(
        layers=tuple(layers),
        experts=tuple(experts) if any(experts) else (),
        token_embedding=token,
        output=output,
        other=other,
        tied=shape.tied,
    )
    latent = shape.latent
    return ModelFacts(
        format=FileFormat.GGUF,
        architecture=shape.architecture,
        category=Category.LLM,
        weights=tensors.total,
        file_size=tensors.total,
        total_layers=shape.layers,
        context_length=shape.context,
        embedding_length=shape.width,
        feed_forward_length=(shape.feed_forward,),
        heads=(shape.heads,),
        kv_heads=(shape.kv_heads,),
        key_length=shape.head_size if latent is None else latent.rank + latent.rope,
        value_length=shape.head_size if latent is None else latent.rank,
        key_length_mla=None if latent is None else latent.nope + latent.rope,
        kv_lora_rank=None if latent is None else latent.rank,
        vocabulary=shape.vocabulary,
        sliding_window=shape.window,
        expert_count=0 if shape.experts is None else shape.experts.count,
        expert_used_count=0 if shape.experts is None else shape.experts.used,
        expert_feed_forward_length=None if shape.experts is None else shape.experts.width,
        rope_dimensions=shape.head_size if latent is None else latent.rope,
        shape=GgufShape(dense=shape.experts is None or shape.experts.dense > 0),
        tensors=tensors,
    )
