"""The formulas against what llama.cpp itself says it will allocate (llama-fit-params, recorded figures in MiB)."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.facts import GgufShape, ModelFacts, StateSpace
from gpustack.domain.unit import MIB
from gpustack.policy.estimate.gguf import GgufSettings, MemoryNeed, estimate, layer_count

from .shapes import facts_of

# shape, settings, then for each GPU the weights that llama.cpp said
WEIGHTS = [
    ("llama-3.2-1b", {"ctx": 4096}, [762]),
    ("llama-3.2-1b", {"ctx": 32768, "shares": (1, 1)}, [311, 451]),
    ("llama-3.1-8b", {"ctx": 4096}, [4403]),
    ("llama-3.1-8b", {"ctx": 16384, "offload_layers": 10}, [1557]),
    ("llama-3.1-8b", {"ctx": 32768, "shares": (1, 1)}, [2113, 2290]),
    ("llama-3.3-70b", {"ctx": 32768}, [39939]),
    ("llama-3.3-70b", {"ctx": 32768, "shares": (1, 1)}, [20017, 19921]),
    ("qwen2.5-7b", {"ctx": 16384, "offload_layers": 10, "shares": (1, 1)}, [693, 995]),
    ("qwen3-30b-a3b", {"ctx": 16384}, [17524]),
    ("gemma-3-4b", {"ctx": 4096}, [2375]),
    ("deepseek-v2-lite", {"ctx": 16384}, [9929]),
]

# shape, settings, for each device what it said of KV cache and compute, and of compute on the host. It counts a row
# over the vocabulary for each token, a server one for each slot: so these were recorded with a vocabulary of 512 words.
# The devices were RPC servers, which work as a pipeline as GPUs do.
RECORDED = [
    ("llama-3.2-1b", {"ctx": 4096}, [(128, 64)], 12),
    ("llama-3.2-1b", {"ctx": 32768, "flash_attention": False}, [(1024, 2130)], 74),
    ("llama-3.2-1b", {"ctx": 32768, "shares": (1, 1)}, [(576, 204), (448, 220)], 148),
    ("llama-3.1-8b", {"ctx": 16384, "ubatch": 1024}, [(2048, 248)], 64),
    ("llama-3.1-8b", {"ctx": 16384, "parallel": 4, "unified": False}, [(2048, 112)], 20),
    ("llama-3.1-8b", {"ctx": 16384, "offload_layers": 10}, [(576, 116)], 132),
    ("llama-3.1-8b", {"ctx": 16384, "kv_offload": False}, [(0, 124)], 32),
    ("llama-3.1-8b", {"ctx": 32768, "shares": (1, 1)}, [(2176, 268), (1920, 300)], 168),
    ("llama-3.3-70b", {"ctx": 32768}, [(10240, 248)], 64),
    ("llama-3.3-70b", {"ctx": 32768, "shares": (1, 1)}, [(5248, 408), (4992, 472)], 208),
    ("qwen2.5-7b", {"ctx": 32768, "flash_attention": False}, [(1792, 1886)], 80),
    ("qwen2.5-7b", {"ctx": 16384, "offload_layers": 10, "shares": (1, 1)}, [(160, 141), (128, 141)], 155),
    ("qwen3-30b-a3b", {"ctx": 16384}, [(1536, 100)], 24),
    ("qwen3-30b-a3b", {"ctx": 16384, "shares": (3, 1)}, [(1184, 164), (352, 180)], 84),
    ("gemma-3-4b", {"ctx": 32768}, [(814, 107)], 43),
    ("gemma-3-4b", {"ctx": 16384, "parallel": 4, "unified": False}, [(1016, 79)], 15),
    ("gemma-3-4b", {"ctx": 32768, "shares": (1, 1)}, [(474, 228), (340, 253)], 159),
    ("deepseek-v2-lite", {"ctx": 16384}, [(486, 92)], 24),
    ("deepseek-v2-lite", {"ctx": 16384, "shares": (1, 2)}, [(180, 165), (306, 181)], 84),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "settings", "recorded"), WEIGHTS)
def test_weights_are_where_llama_cpp_puts_them(
    shape: str, settings: dict[str, object], recorded: list[int]
) -> None:
    found = estimate(facts_of(shape), GgufSettings(**{"shares": (1.0,), **settings}))  # type: ignore[arg-type]  # a table
    assert [need.weights / MIB for need in found.devices] == pytest.approx(recorded, rel=0.01, abs=2)


@pytest.mark.parametrize(("shape", "settings", "recorded", "host"), RECORDED)
def test_each_device_and_the_host_get_their_share_of_caches_and_buffers(
    shape: str, settings: dict[str, object], recorded: list[tuple[int, int]], host: int
) -> None:
    facts, asked = facts_of(shape), GgufSettings(**{"shares": (1.0,), **settings})  # type: ignore[arg-type]  # a table
    found = estimate(facts, asked)
    assert len(found.devices) == len(recorded)
    for need, (kv, compute) in zip(found.devices, recorded, strict=True):
        assert need.kv / MIB == pytest.approx(kv, abs=1)
        assert need.compute / MIB == pytest.approx(compute, rel=0.06)
        assert need.claim(0) >= need.weights + (kv + compute - 2) * MIB
    logits = 4 * asked.parallel * (facts.vocabulary or 0)
    assert (found.host.compute - logits) / MIB == pytest.approx(host, abs=6)


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


def test_vectors_of_a_model_of_text_take_a_row_over_the_vocabulary_for_each_token() -> None:
    """The engine computes it all the same, whatever comes of it."""
    facts = facts_of("qwen3-0.6b")
    text, vectors = GgufSettings(ctx=8192), GgufSettings(ctx=8192, logits=False)
    rows = 4 * vectors.tokens * (facts.vocabulary or 0)
    assert estimate(facts, text).host.compute < rows < estimate(facts, vectors).host.compute


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
    """A window of each sliding layer (seen: 10 layers of 1024 tokens at 4 KiB make 40 MiB), or a recurrent state (seen:
    2.672 MiB for mamba-130m)."""
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


def test_tokens_guessed_ahead_take_a_state_each_to_return_to() -> None:
    """As the engine says of a hybrid model: 77 MiB of state, 308 with three tokens ahead."""
    space = StateSpace(
        conv_kernel=4, inner_size=2048, state_size=128, group_count=16, full_attention_interval=4
    )
    hybrid = attrs.evolve(facts_of("qwen3-0.6b"), total_layers=24, kv_heads=(0,), state_space=space)
    one, ahead = (
        estimate(hybrid, GgufSettings(ctx=8192, parallel=4, drafted=drafted)).host.kv / MIB
        for drafted in (0, 3)
    )
    states = 18 * 4 * 4 * (3 * (2048 + 2 * 16 * 128) + 128 * 2048) / MIB
    assert one == pytest.approx(states)
    assert ahead == pytest.approx(4 * states)


def test_layers_that_predict_tokens_are_counted_where_they_are_run() -> None:
    facts = attrs.evolve(facts_of("qwen3-0.6b"), shape=GgufShape(next_token_layers=1))
    plain, predicting = (
        estimate(facts, GgufSettings(ctx=8192, predicts=predicts)).host for predicts in (False, True)
    )
    assert predicting.kv == plain.kv + plain.kv // 27
    assert predicting.compute > plain.compute


def test_experts_of_the_first_layers_stay_on_the_host() -> None:
    facts = facts_of("qwen3-30b-a3b")
    assert facts.tensors is not None
    experts = facts.tensors.experts
    plain, kept = (
        estimate(facts, GgufSettings(ctx=16384, shares=(1.0,), host_experts=layers)) for layers in (0, 10)
    )
    assert kept.devices[0].weights == plain.devices[0].weights - sum(experts[:10])
    assert kept.host.weights == plain.host.weights + sum(experts[:10])
    # The engine said 88 MiB of buffers on the host then, and 24 without.
    assert kept.host.compute > plain.host.compute + 64 * MIB


def test_a_checkpoint_of_a_recurrent_model_is_as_large_as_the_engine_says() -> None:
    space = StateSpace(conv_kernel=4, inner_size=1536, state_size=16)
    mamba = attrs.evolve(
        facts_of("qwen3-0.6b"),
        architecture="mamba",
        total_layers=24,
        heads=(0,),
        kv_heads=(),
        state_space=space,
    )
    none, two = (
        estimate(mamba, GgufSettings(ctx=8192, checkpoints=count)).host.compute / MIB for count in (0, 2)
    )
    assert two - none == pytest.approx(2 * 2.672, abs=0.001)
