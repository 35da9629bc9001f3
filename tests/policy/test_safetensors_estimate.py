"""What engines take for safetensors: weights exactly, the cache as vLLM reports it, and what parameters change."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import attrs
import pytest

from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import CacheKind, FileFormat, LayerCache, ModelFacts, TensorBytes
from gpustack.domain.model import Category, GpuSelector
from gpustack.domain.unit import GIB, MIB
from gpustack.engines.memory import SafetensorsMemory
from gpustack.policy.estimate.safetensors import (
    SafetensorsSettings,
    activations,
    cache_bytes,
    cache_tokens,
    share_of,
    stages,
)
from gpustack.policy.estimate.safetensors_demand import (
    SafetensorsDemand,
    context_of,
    group_sizes,
    safetensors_demand,
)
from tests.models.hollow_folder import make_hollow_folder
from tests.models.shape import Shape

from .worlds import model

VLLM = SafetensorsMemory(on_cpu=True, spans_workers=True)
QWEN2_05B = Shape(
    architecture="qwen2", layers=24, width=896, feed_forward=4864, heads=14, kv_heads=2, head_size=64,
    vocabulary=151936, context=32768, tied=True,
)  # fmt: skip
LONG = SafetensorsSettings(context=32768, batch_tokens=1024)


async def read(folder: Path, shape: str | Shape, **config: Any) -> ModelFacts:
    make_hollow_folder(folder, shape, config=config)
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(folder))
    return await FactsReader(clock=lambda: 0.0, rng=random.Random(1)).read(source)


@pytest.fixture
async def llama_8b(tmp_path: Path) -> ModelFacts:
    return await read(tmp_path / "llama", "llama-3.1-8b")


def demand(facts: ModelFacts, *given: str, slots: int | None = None, **fields: Any) -> SafetensorsDemand:
    return safetensors_demand(model(backend_parameters=given, **fields), facts, VLLM, slots)


def facts_of_layers(*caches: LayerCache, layers: int, **fields: Any) -> ModelFacts:
    return ModelFacts(
        format=FileFormat.SAFETENSORS,
        total_layers=layers,
        embedding_length=64,
        heads=(8,),
        kv_heads=(8,),
        tensors=TensorBytes(layers=(1000,) * layers),
        caches=caches,
        **fields,
    )


def every(layers: int, **fields: Any) -> tuple[LayerCache, ...]:
    return tuple(
        LayerCache(layer=n, **{"kind": CacheKind.FULL, "heads": 8, "width": 256, **fields})
        for n in range(layers)
    )


async def test_vllm_reports_as_many_tokens_for_a_gibibyte(tmp_path: Path) -> None:
    """Measured with vLLM 0.32 on a CPU, whose blocks have 128 tokens."""
    facts = await read(tmp_path / "m", QWEN2_05B)
    block = SafetensorsSettings(context=2048)
    assert cache_tokens(facts, block, GIB) == 87_296
    tiny = facts_of_layers(*every(2, heads=2, width=64), layers=2)  # two heads of 32, in 16 bits
    assert cache_tokens(tiny, block, GIB) == 2_097_152


async def test_weights_are_those_of_the_files_and_divided_by_tensor_parallel(llama_8b: ModelFacts) -> None:
    one = share_of(llama_8b, SafetensorsSettings(context=8192))
    assert one.weights == llama_8b.weights
    four = share_of(llama_8b, SafetensorsSettings(context=8192, tensor=4))
    copied = sum(llama_8b.tensors.replicated) + llama_8b.tensors.other  # type: ignore[union-attr]  # complete
    assert four.weights == pytest.approx((one.weights - copied) / 4 + copied, abs=200)
    assert four.cache == one.cache // 4


async def test_keys_are_copied_where_there_are_more_devices_than_heads_of_them(llama_8b: ModelFacts) -> None:
    eight, sixteen = (cache_bytes(llama_8b, attrs.evolve(LONG, tensor=count)) for count in (8, 16))
    assert eight == sixteen


async def test_a_request_of_full_length_takes_what_its_layers_keep(llama_8b: ModelFacts) -> None:
    per_token = 2 * 32 * 8 * 128 * 2
    block = 128 * per_token
    assert cache_bytes(llama_8b, LONG) == 32768 * per_token + block
    assert cache_bytes(llama_8b, attrs.evolve(LONG, slots=4)) == 4 * 32768 * per_token + block
    assert cache_bytes(llama_8b, attrs.evolve(LONG, cache_bits=8)) == (32768 * per_token + block) // 2


def test_windows_keep_their_own_tokens_and_those_under_way() -> None:
    sliding = every(12, kind=CacheKind.SLIDING, window=1024)
    mixed = (
        full if n % 6 == 5 else slides
        for n, (full, slides) in enumerate(zip(every(12), sliding, strict=True))
    )
    facts = facts_of_layers(*mixed, layers=12)
    page = 128 * 8 * 256 * 2
    held = -(-(1023 + 2 * 1024) // 128) + 1
    # Ten layers slide and two do not: groups of two, five of which slide.
    assert cache_bytes(facts, LONG) == (5 * held + 32768 // 128 + 1) * 2 * page


FULL = LayerCache(layer=0, kind=CacheKind.FULL, heads=8, width=256)
SLIDING = LayerCache(layer=0, kind=CacheKind.SLIDING, heads=8, width=256, window=1024)
STATE = LayerCache(layer=0, kind=CacheKind.STATE, state=65536)


@pytest.mark.parametrize(
    ("pattern", "count", "changed", "size"),
    [
        ([FULL], 32, {}, 4_297_064_448),
        ([*[SLIDING] * 5, FULL], 48, {}, 1_915_748_352),
        ([*[SLIDING] * 5, FULL], 34, {}, 1_302_528_000),
        ([*[SLIDING] * 5, FULL], 48, {"context": 2048}, 405_798_912),
        ([SLIDING, FULL], 24, {}, 1_863_843_840),
        ([SLIDING, FULL], 25, {}, 2_019_164_160),
        ([attrs.evolve(FULL, heads=1, width=576)], 61, {}, 2_303_797_248),
        ([attrs.evolve(FULL, heads=4), FULL], 20, {}, 2_014_248_960),
        ([*[STATE] * 3, FULL], 48, {}, 1_616_117_760),
        (
            [*[attrs.evolve(STATE, state=1_024_000)] * 3, attrs.evolve(FULL, heads=2, width=512)],
            48,
            {"block": 512},
            893_386_752,
        ),
        ([attrs.evolve(STATE, state=100_000)], 24, {}, 7_200_000),
        (
            [*[attrs.evolve(SLIDING, width=320, window=128)] * 5, attrs.evolve(FULL, heads=4, width=384)],
            48,
            {},
            2_211_184_640,
        ),
    ],
)
def test_mixed_layers_share_a_pool_as_in_vllm(
    pattern: list[LayerCache], count: int, changed: dict[str, int], size: int
) -> None:
    """The figures are what vLLM 0.32 computes (``get_kv_cache_groups``, ``_max_memory_usage_bytes_from_groups``)."""
    caches = tuple(attrs.evolve(pattern[n % len(pattern)], layer=n) for n in range(count))
    usual = SafetensorsSettings(context=32768, batch_tokens=2048, block=16)
    assert cache_bytes(facts_of_layers(*caches, layers=count), attrs.evolve(usual, **changed)) == size


def test_a_latent_vector_is_held_by_every_device() -> None:
    facts = facts_of_layers(*every(4, heads=1, width=576), layers=4, kv_lora_rank=512)
    assert cache_bytes(facts, LONG) == (32768 // 128 + 1) * 4 * 128 * 576 * 2
    assert cache_bytes(facts, attrs.evolve(LONG, tensor=8)) == cache_bytes(facts, LONG)


def test_states_do_not_grow_with_the_context() -> None:
    states = every(4, kind=CacheKind.STATE, heads=8, width=0, state=8000)
    facts = facts_of_layers(*states, layers=4)
    assert cache_bytes(facts, LONG) == (2 + 1) * 4 * 8000
    assert cache_bytes(facts, attrs.evolve(LONG, context=64)) == cache_bytes(facts, LONG)
    assert cache_bytes(facts, attrs.evolve(LONG, tensor=4)) == cache_bytes(facts, LONG) // 4


def test_an_encoder_keeps_nothing_and_draws_nothing() -> None:
    facts = facts_of_layers(layers=6, vocabulary=30522, category=Category.EMBEDDING)
    assert facts.is_encoder
    assert cache_bytes(facts, LONG) == 0
    drawing = attrs.evolve(facts, caches=every(6))
    assert activations(facts, LONG) < activations(drawing, LONG)


@pytest.mark.parametrize(
    ("layers", "pipeline", "sizes"), [(80, 4, [20, 20, 20, 20]), (31, 4, [8, 8, 8, 7]), (30, 4, [7, 8, 8, 7])]
)
def test_stages_hold_as_many_layers_as_vllm_gives_them(layers: int, pipeline: int, sizes: list[int]) -> None:
    assert [len(stage) for stage in stages(layers, pipeline)] == sizes


async def test_a_pipeline_divides_layers_and_each_end_holds_what_belongs_there(llama_8b: ModelFacts) -> None:
    two = share_of(llama_8b, SafetensorsSettings(context=8192, pipeline=2))
    tensors = llama_8b.tensors
    assert tensors is not None
    assert two.weights == sum(tensors.layers[:16]) + tensors.token_embedding + tensors.other
    assert two.cache == cache_bytes(llama_8b, SafetensorsSettings(context=8192)) // 2


async def test_activations_are_near_what_vllm_reports(llama_8b: ModelFacts) -> None:
    """vLLM says 1.2 GiB for llama-3.1-8b and steps of 8192 tokens."""
    found = activations(llama_8b, SafetensorsSettings(context=8192, batch_tokens=8192))
    assert 1.0 * GIB < found < 1.5 * GIB


@pytest.mark.parametrize(
    ("given", "context"),
    [
        ((), 8192),
        (("--max-model-len", "32768"), 32768),
        (("--max-model-len=16k",), 16000),
        (("--max-model-len=16K",), 16384),
        (("--max-model-len", "-1"), 8192),
        (("--max-model-len", "auto"), 8192),
    ],
)
async def test_the_context_is_the_users_or_what_the_model_was_made_for_up_to_8192(
    llama_8b: ModelFacts, given: tuple[str, ...], context: int
) -> None:
    assert context_of(model(backend_parameters=given), llama_8b, VLLM) == context
    short = attrs.evolve(llama_8b, context_length=512)
    if not given:
        assert context_of(model(), short, VLLM) == 512


async def test_heads_of_both_kinds_and_rows_must_be_divisible(llama_8b: ModelFacts) -> None:
    assert group_sizes(llama_8b) == (1, 2, 4, 8, 16)
    qwen_7b = attrs.evolve(llama_8b, heads=(28,), kv_heads=(4,), feed_forward_length=(18944,))
    assert group_sizes(qwen_7b) == (1, 2, 4)
    assert group_sizes(
        attrs.evolve(llama_8b, quantisation_group=128, feed_forward_length=(14336 - 128,))
    ) == (1,)
    assert demand(qwen_7b).device_counts[:6] == (1, 2, 4, 6, 8, 10)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (("-tp", "4"), (4,)),
        (("--tensor-parallel-size=2", "--pipeline-parallel-size=3"), (6,)),
        (("-pp", "2"), (2,)),
        (("-tp", "2", "-dp", "2"), (4,)),
    ],
)
async def test_parameters_fix_the_number_of_devices(
    llama_8b: ModelFacts, given: tuple[str, ...], counts: tuple[int, ...]
) -> None:
    assert demand(llama_8b, *given).device_counts == counts


async def test_devices_of_a_worker_divide_layers_and_workers_are_stages(llama_8b: ModelFacts) -> None:
    need = demand(llama_8b)
    assert [need.tensor_parallel(*place) for place in ((1, 1), (8, 1), (6, 1), (8, 2), (6, 2), (0, 2))] == [
        1, 8, 2, 4, 1, 1,
    ]  # fmt: skip
    assert demand(llama_8b, "-pp", "2").tensor_parallel(2) == 1


async def test_the_cache_that_the_engine_is_told_is_part_of_what_is_claimed(llama_8b: ModelFacts) -> None:
    need = demand(llama_8b, slots=4)
    claimed = need.devices((1.0,)).vram[0]
    cache = need.kv_cache(1)
    assert cache == cache_bytes(llama_8b, SafetensorsSettings(context=8192, slots=4))
    assert claimed - cache == demand(llama_8b, slots=1).devices((1.0,)).vram[0] - demand(
        llama_8b, slots=1
    ).kv_cache(1)  # type: ignore[operator]  # told
    assert claimed > (llama_8b.weights or 0) + cache


async def test_fewer_requests_are_tried_where_memory_is_short_and_the_users_limit_holds(
    llama_8b: ModelFacts,
) -> None:
    assert demand(llama_8b).slot_choices == (16, 8, 4, 2, 1)
    assert demand(llama_8b, "--max-num-seqs", "4").slot_choices == (4, 2, 1)
    assert demand(llama_8b, "--max-num-seqs", "100").slot_choices == (100, 50, 25, 12, 6, 3, 1)


async def test_a_share_of_the_device_is_claimed_as_the_engine_takes_it(llama_8b: ModelFacts) -> None:
    need = demand(llama_8b, "--gpu-memory-utilization", "0.9")
    assert need.taken(need.devices((1.0,)).vram[0], 80 * GIB) == 72 * GIB
    assert (need.kv_cache(1), need.slot_choices) == (None, ())


async def test_a_cache_set_by_the_user_is_claimed_as_it_is(llama_8b: ModelFacts) -> None:
    need = demand(llama_8b, "--kv-cache-memory-bytes", str(3 * GIB))
    assert need.kv_cache(1) == 3 * GIB
    less = demand(llama_8b, "--kv-cache-memory-bytes", str(GIB))
    assert need.devices((1.0,)).vram[0] - less.devices((1.0,)).vram[0] == 2 * GIB


async def test_larger_devices_run_larger_steps(llama_8b: ModelFacts) -> None:
    need = demand(llama_8b)
    small, large, huge = (need.taken(0, size * GIB) for size in (24, 80, 180))
    assert small == 0 < large < huge
    assert demand(llama_8b, "--max-num-batched-tokens", "4096").taken(0, 180 * GIB) == 0


async def test_types_and_quantisation_at_the_start_change_what_is_loaded(llama_8b: ModelFacts) -> None:
    whole = demand(llama_8b, slots=1).devices((1.0,)).vram[0]
    weights = llama_8b.weights or 0
    wide = demand(llama_8b, "--dtype", "float32", slots=1).devices((1.0,)).vram[0]
    assert wide > whole + weights
    narrow = demand(llama_8b, "--quantization", "fp8", slots=1).devices((1.0,)).vram[0]
    tensors = llama_8b.tensors
    assert tensors is not None
    linear = sum(tensors.layers) - sum(tensors.replicated)
    assert whole - narrow == pytest.approx(linear / 2, abs=100)
    outside = demand(llama_8b, "--cpu-offload-gb", "4", slots=1).devices((1.0,))
    assert whole - outside.vram[0] == 4 * GIB
    assert outside.ram - demand(llama_8b, slots=1).devices((1.0,)).ram == 4 * GIB
    for odd in ("-4", "-inf", "nan", "1e300"):
        assert demand(llama_8b, f"--cpu-offload-gb={odd}", slots=1).devices((1.0,)).vram[0] == whole


async def test_what_is_only_for_gpus_is_not_counted_on_the_host(llama_8b: ModelFacts) -> None:
    need = demand(llama_8b, slots=1)
    assert need.cpu() < need.devices((1.0,)).vram[0] + VLLM.host_footprint
    assert need.cpu() > (llama_8b.weights or 0) + VLLM.host_footprint
    picking = model(gpu_selector=GpuSelector(gpu_ids=("node-a:cuda:0",)))
    assert not safetensors_demand(picking, llama_8b, VLLM).on_cpu


async def test_experts_are_weights_of_their_layers(tmp_path: Path) -> None:
    facts = await read(tmp_path / "m", "qwen3-30b-a3b")
    assert (facts.expert_count, facts.expert_used_count, facts.expert_feed_forward_length) == (128, 8, 768)
    assert share_of(facts, SafetensorsSettings(context=8192)).weights == facts.weights
    assert 55 * GIB < (facts.weights or 0) < 60 * GIB


async def test_an_engine_that_does_not_divide_runs_on_one_device(llama_8b: ModelFacts) -> None:
    single = SafetensorsMemory(divides=False, pooled=False, cache_bytes=(), tensor_parallel=())
    need = safetensors_demand(model(), llama_8b, single)
    assert (need.device_counts, need.spans_workers, need.kv_cache(1)) == ((1,), False, None)
    assert need.tensor_parallel(1) is None


def test_what_is_asked_of_hosts_grows_with_the_devices_they_have() -> None:
    facts = facts_of_layers(*every(4), layers=4, context_length=100)
    need = safetensors_demand(model(), facts, VLLM, 1)
    assert need.devices((1.0,) * 4).ram == VLLM.host_footprint + 3 * VLLM.host_of_device
    assert need.among_workers((1.0,) * 4, 2).ram == VLLM.host_footprint + VLLM.host_of_device
    assert need.context == 100
    assert need.devices((1.0,)).vram[0] > 700 * MIB


async def test_room_is_made_for_adapters_where_they_are_allowed(llama_8b: ModelFacts) -> None:
    bare = demand(llama_8b, slots=1).devices((1.0,)).vram[0]
    several = ("--enable-lora", "--max-loras", "4", "--max-lora-rank", "64")
    sides = 32 * (2 * (4096 + 4096) + 2 * (1024 + 4096) + 3 * (4096 + 14336))
    assert demand(llama_8b, *several, slots=1).devices((1.0,)).vram[0] - bare == 2 * 4 * 64 * sides
    assert demand(llama_8b, "--enable-lora", slots=1).devices((1.0,)).vram[0] - bare == 2 * 16 * sides
