"""The formulas against what llama.cpp itself says it will allocate (llama-fit-params, recorded figures in MiB)."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.facts import ModelFacts, StateSpace
from gpustack.domain.unit import MIB
from gpustack.policy.estimate.gguf import GgufSettings, MemoryNeed, estimate, layer_count

from .shapes import facts_of

# shape, settings, then for each GPU what llama.cpp said: weights, KV cache, compute
RECORDED = [
    ("llama-3.2-1b", {"ctx": 4096}, [(762, 128, 254)]),
    ("llama-3.2-1b", {"ctx": 32768, "flash_attention": False}, [(762, 1024, 2130)]),
    ("llama-3.2-1b", {"ctx": 32768, "shares": (1, 1)}, [(311, 576, 204), (451, 448, 414)]),
    ("llama-3.1-8b", {"ctx": 4096}, [(4403, 512, 258)]),
    ("llama-3.1-8b", {"ctx": 16384, "ubatch": 1024}, [(4403, 2048, 517)]),
    ("llama-3.1-8b", {"ctx": 16384, "key_type": "q8_0", "value_type": "q8_0"}, [(4403, 1088, 258)]),
    ("llama-3.1-8b", {"ctx": 16384, "parallel": 4, "unified": False}, [(4403, 2048, 258)]),
    ("llama-3.1-8b", {"ctx": 16384, "offload_layers": 10}, [(1557, 576, 258)]),
    ("llama-3.1-8b", {"ctx": 32768, "shares": (1, 1)}, [(2113, 2176, 268), (2290, 1920, 450)]),
    ("llama-3.3-70b", {"ctx": 32768}, [(39939, 10240, 266)]),
    ("llama-3.3-70b", {"ctx": 32768, "shares": (1, 1)}, [(20017, 5248, 408), (19921, 4992, 522)]),
    ("qwen2.5-7b", {"ctx": 32768, "flash_attention": False}, [(4202, 1792, 1886)]),
    ("qwen2.5-7b", {"ctx": 16384, "offload_layers": 10, "shares": (1, 1)}, [(693, 160, 141), (995, 128, 304)]),
    ("qwen3-30b-a3b", {"ctx": 16384}, [(17524, 1536, 300)]),
    ("gemma-3-4b", {"ctx": 4096}, [(2375, 254, 517)]),
    ("gemma-3-4b", {"ctx": 32768}, [(2375, 814, 517)]),
    ("gemma-3-4b", {"ctx": 16384, "parallel": 4, "unified": False}, [(2375, 1016, 517)]),
    ("deepseek-v2-lite", {"ctx": 16384}, [(9929, 486, 236)]),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "settings", "recorded"), RECORDED)
def test_estimates_match_what_llama_cpp_says(
    shape: str, settings: dict[str, object], recorded: list[tuple[int, int, int]]
) -> None:
    found = estimate(facts_of(shape), GgufSettings(**{"shares": (1.0,), **settings}))  # type: ignore[arg-type]  # a table
    assert len(found.devices) == len(recorded)
    for need, (weights, kv, compute) in zip(found.devices, recorded, strict=True):
        assert need.weights / MIB == pytest.approx(weights, rel=0.01, abs=2)
        assert need.kv / MIB == pytest.approx(kv, abs=1)
        assert need.total / MIB == pytest.approx(weights + kv + compute, rel=0.02)


@pytest.mark.parametrize(("shape", "settings", "recorded"), RECORDED)
def test_what_is_claimed_covers_what_llama_cpp_says(
    shape: str, settings: dict[str, object], recorded: list[tuple[int, int, int]]
) -> None:
    found = estimate(facts_of(shape), GgufSettings(**{"shares": (1.0,), **settings}))  # type: ignore[arg-type]  # a table
    for need, parts in zip(found.devices, recorded, strict=True):
        assert need.claim(0) / MIB >= sum(parts) - 2


def test_on_the_cpu_everything_is_in_host_memory() -> None:
    facts = facts_of("llama-3.1-8b")
    found = estimate(facts, GgufSettings(ctx=8192))
    assert found.devices == ()
    assert facts.tensors is not None
    assert found.host.weights == facts.tensors.total
    assert found.host.kv == 1024 * MIB


def test_a_claim_has_a_margin_on_what_is_only_estimated() -> None:
    assert MemoryNeed(weights=1000, kv=100, compute=100).claim(7) == 1217


def test_prompts_kept_on_request_are_host_memory() -> None:
    facts = facts_of("llama-3.2-1b")
    plain, keeping = (
        estimate(facts, GgufSettings(ctx=8192)),
        estimate(facts, GgufSettings(ctx=8192, prompt_cache=MIB)),
    )
    assert keeping.host.total - plain.host.total == MIB


def test_embeddings_need_no_room_for_the_vocabulary() -> None:
    facts = facts_of("qwen3-0.6b")
    text, vectors = GgufSettings(ctx=8192), GgufSettings(ctx=8192, logits=False)
    assert estimate(facts, vectors).host.compute < estimate(facts, text).host.compute / 5


def test_recurrent_layers_cost_the_same_however_long_the_context() -> None:
    space = StateSpace(
        conv_kernel=4, inner_size=4096, state_size=128, group_count=16, full_attention_interval=4
    )
    hybrid = attrs.evolve(facts_of("qwen3-0.6b"), state_space=space)
    short, long = (estimate(hybrid, GgufSettings(ctx=ctx)).host.kv for ctx in (4096, 8192))
    plain = estimate(facts_of("qwen3-0.6b"), GgufSettings(ctx=4096)).host.kv
    assert long - short == plain // 4


shapes = st.sampled_from(["llama-3.2-1b", "qwen2.5-7b", "gemma-3-4b", "deepseek-v2-lite", "llama-3.3-70b"])
splits = st.lists(st.floats(0.1, 10), min_size=1, max_size=4).map(tuple)


@given(shape=shapes, shares=splits, layers=st.integers(0, 90), ctx=st.integers(1, 200_000))
def test_no_byte_is_lost_however_the_layers_are_divided(
    shape: str, shares: tuple[float, ...], layers: int, ctx: int
) -> None:
    facts = facts_of(shape)
    assert facts.tensors is not None
    found = estimate(facts, GgufSettings(ctx=ctx, offload_layers=layers, shares=shares))
    whole = found.host.weights + sum(need.weights for need in found.devices)
    assert whole in (facts.tensors.total, facts.tensors.total + facts.tensors.token_embedding)
    on_cpu = estimate(facts, GgufSettings(ctx=ctx))
    assert found.host.kv + sum(need.kv for need in found.devices) == on_cpu.host.kv


@given(shape=shapes, layers=st.integers(1, 81))
def test_one_layer_more_on_the_device_never_takes_less_of_it(shape: str, layers: int) -> None:
    facts = facts_of(shape)
    fewer, more = (
        estimate(
            facts, GgufSettings(ctx=8192, offload_layers=min(n, layer_count(facts)), shares=(1.0,))
        ).devices[0]
        for n in (layers - 1, layers)
    )
    assert fewer.weights <= more.weights
    assert fewer.kv <= more.kv


def test_checkpoints_are_claimed_for_layers_that_cannot_be_rolled_back() -> None:
    """A window of each sliding layer (seen: 10 layers of 1024 tokens at 4 KiB make 40 MiB), or a recurrent state."""
    sliding = attrs.evolve(
        facts_of("qwen3-0.6b"), total_layers=10, sliding_window=1024, sliding_window_pattern=(True,),
        kv_heads=(4,), key_length=256, value_length=256,
    )  # fmt: skip

    def claimed(facts: ModelFacts, **settings: int) -> int:
        asks = (GgufSettings(ctx=8192, **settings), GgufSettings(ctx=8192, checkpoints=2, **settings))
        none, two = (estimate(facts, one).host.total for one in asks)
        return two - none

    assert claimed(sliding) == 2 * 40 * MIB
    assert claimed(sliding, parallel=4) == 4 * 2 * 40 * MIB
    assert claimed(attrs.evolve(sliding, sliding_window=65536)) == 2 * 8 * 40 * MIB
    assert claimed(sliding, full_window=True) == 0
    assert claimed(facts_of("llama-3.1-8b")) == 0
    space = StateSpace(
        conv_kernel=4, inner_size=4096, state_size=128, group_count=16, full_attention_interval=4
    )
    hybrid = attrs.evolve(facts_of("qwen3-0.6b"), state_space=space)
    recurrent = sum((layer + 1) % 4 != 0 for layer in range(hybrid.total_layers or 0))
    assert claimed(hybrid, parallel=2) == 2 * 2 * recurrent * 4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096)
