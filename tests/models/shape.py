"""The true dimensions of well-known models, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Mixture of experts: ``used`` of ``count`` a token and ``shared`` always, after ``dense`` plain layers."""

    count: int
    used: int
    width: int
    shared: int = 0
    dense: int = 0


@dataclass(frozen=True, kw_only=True)
class Latent:
    """Multi-head latent attention: the cache holds ``rank`` + ``rope`` numbers a token and layer."""

    rank: int
    rope: int
    nope: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a GGUF header says about the size of a model."""

    architecture: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    tied: bool = False  # the output layer is the token embedding
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norm: bool = False
    window: int | None = None  # sliding-window attention, in tokens
    experts: Experts | None = None
    latent: Latent | None = None


SHAPES: dict[str, Shape] = {
    "qwen3-0.6b": Shape(
        architecture="qwen3", layers=28, width=1024, feed_forward=3072, heads=16, kv_heads=8, head_size=128,
        vocabulary=151936, context=40960, tied=True, qk_norm=True,
    ),
    "llama-3.2-1b": Shape(
        architecture="llama", layers=16, width=2048, feed_forward=8192, heads=32, kv_heads=8, head_size=64,
        vocabulary=128256, context=131072, tied=True,
    ),
    "gemma-3-4b": Shape(
        architecture="gemma3", layers=34, width=2560, feed_forward=10240, heads=8, kv_heads=4, head_size=256,
        vocabulary=262144, context=131072, tied=True, qk_norm=True, post_norm=True, window=1024,
    ),
    "qwen2.5-7b": Shape(
        architecture="qwen2", layers=28, width=3584, feed_forward=18944, heads=28, kv_heads=4, head_size=128,
        vocabulary=152064, context=32768, qkv_bias=True,
    ),
    "llama-3.1-8b": Shape(
        architecture="llama", layers=32, width=4096, feed_forward=14336, heads=32, kv_heads=8, head_size=128,
        vocabulary=128256, context=131072,
    ),
    "deepseek-v2-lite": Shape(
        architecture="deepseek2", layers=27, width=2048, feed_forward=10944, heads=16, kv_heads=1,
        head_size=576, vocabulary=102400, context=163840,
        experts=Experts(count=64, used=6, width=1408, shared=2, dense=1),
        latent=Latent(rank=512, rope=64, nope=128, value=128),
    ),
    "qwen3-30b-a3b": Shape(
        architecture="qwen3moe", layers=48, width=2048, feed_forward=6144, heads=32, kv_heads=4,
        head_size=128, vocabulary=151936, context=40960, qk_norm=True,
        experts=Experts(count=128, used=8, width=768),
    ),
    "llama-3.3-70b": Shape(
        architecture="llama", layers=80, width=8192, feed_forward=28672, heads=64, kv_heads=8, head_size=128,
        vocabulary=128256, context=131072,
    ),
}  # fmt: skip
