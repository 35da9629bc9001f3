"""Where models of safetensors run: equal shares, what the engine is told, and why not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import CacheKind, FileFormat, LayerCache, ModelFacts, TensorBytes
from gpustack.domain.instance import Placement
from gpustack.domain.model import Category, GpuSelector, Model
from gpustack.domain.unit import GIB
from gpustack.domain.worker import EngineBuild, Worker
from gpustack.engines.registry import engine_by_name
from gpustack.policy.estimate.demand import demand_of
from gpustack.policy.explain import explain
from gpustack.policy.model_support import overridden_category
from gpustack.policy.schedule import Unschedulable, place

from .worlds import ask, gpu, instance, model, worker, world

BUILD = EngineBuild(engine="sglang", version="0.5.23", drives=("cuda",), on_cpu=False)
SOURCE = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m")


def facts(gib: float = 16, **fields: Any) -> ModelFacts:
    """A model like llama-3.1-8b, with other weights: 128 KiB of cache a token."""
    usual: dict[str, Any] = {
        "format": FileFormat.SAFETENSORS, "architecture": "LlamaForCausalLM", "category": Category.LLM,
        "total_layers": 32, "embedding_length": 4096, "feed_forward_length": (14336,), "heads": (32,), "kv_heads": (8,),
        "key_length": 128, "vocabulary": 128256, "context_length": 131072,
        "tensors": TensorBytes(layers=(int(gib * GIB / 32),) * 32),
        "caches": tuple(LayerCache(layer=n, kind=CacheKind.FULL, heads=8, width=256) for n in range(32)),
    }  # fmt: skip
    return ModelFacts(**{**usual, **fields})


def node(*gpus: Any, key: int = 1, **fields: Any) -> Worker:
    return worker(key, gpus=gpus, build=fields.pop("build", BUILD), ram=256, **fields)


def deployed(*given: str, **fields: Any) -> Model:
    return model(source=SOURCE, backend="sglang", backend_parameters=given, **fields)


def decided(of: Model, known: ModelFacts, *workers: Worker) -> Placement | Unschedulable:
    return place(ask(of, facts=known, engine_name="sglang"), world(*workers))


def placed(of: Model, known: ModelFacts, *workers: Worker) -> Placement:
    outcome = decided(of, known, *workers)
    assert isinstance(outcome, Placement), outcome
    return outcome


def refused(of: Model, known: ModelFacts, *workers: Worker) -> str:
    outcome = decided(of, known, *workers)
    assert isinstance(outcome, Unschedulable), outcome
    return outcome.sentence


def test_as_many_requests_of_full_length_as_a_gpu_has_room_for_are_claimed() -> None:
    large, small = (placed(deployed(), facts(), node(gpu(0, gib))).claim for gib in (80, 24))
    assert (large.slots, large.context, large.tensor_parallel) == (16, 8192, 1)
    assert small.slots is not None and small.slots < 16
    assert small.vram[0] <= 23 * GIB
    assert large.vram[0] > 32 * GIB


def test_several_replicas_share_a_gpu_where_memory_allows() -> None:
    of = deployed("--max-running-requests", "1")
    first = placed(of, facts(4), node(gpu(0, 24)))
    here = node(gpu(0, 24))
    held = instance(1, of, on=here, claim=first.claim)
    second = place(ask(of, facts=facts(4), engine_name="sglang"), world(here, held))
    assert isinstance(second, Placement)
    assert second.claim.vram == first.claim.vram


def test_a_model_is_divided_in_equal_shares_among_a_number_that_divides_its_heads() -> None:
    found = placed(deployed(), facts(60), node(*(gpu(n, 24) for n in range(6))))
    assert len(found.gpu_indexes) == 4
    assert len(set(found.claim.vram.values())) == 1
    assert found.claim.tensor_parallel == 4
    assert found.claim.tensor_split == ()


def test_parameters_fix_the_number_of_gpus_and_picked_gpus_must_agree() -> None:
    here = node(*(gpu(n, 24) for n in range(4)))
    assert len(placed(deployed("--tp-size", "2"), facts(8), here).gpu_indexes) == 2
    three = GpuSelector(gpu_ids=tuple(f"node-a:cuda:{n}" for n in range(3)))
    sentence = refused(deployed(gpu_selector=three), facts(8), here)
    assert "3 GPUs are selected, but the model can only be divided among 1, 2, 4" in sentence


def test_a_share_of_the_device_is_claimed_whole_and_must_be_enough() -> None:
    here = node(gpu(0, 80))
    found = placed(deployed("--mem-fraction-static", "0.5"), facts(), here)
    assert found.claim.vram == {0: 40 * GIB}
    assert (found.claim.kv_cache, found.claim.slots) == (None, None)
    sentence = refused(deployed("--mem-fraction-static", "0.1"), facts(), here)
    assert (
        "With --mem-fraction-static 0.1 the engine takes 8.0 GiB of a GPU of worker node-a, and needs"
        in sentence
    )
    assert "raise --mem-fraction-static, or leave it out" in sentence


def test_what_the_environment_claims_counts_more_and_the_cache_gets_the_rest() -> None:
    env = {"GPUSTACK_MODEL_VRAM_CLAIM": str(40 * GIB), "GPUSTACK_MODEL_RAM_CLAIM": str(GIB)}
    claim = placed(deployed(env=env), facts(), node(gpu(0, 80))).claim
    assert (claim.vram, claim.ram) == ({0: 40 * GIB}, GIB)
    need = demand_of(deployed(), facts(), "sglang", 1)
    assert need.kv_cache(1) is None  # SGLang is not told bytes


def test_a_build_for_gpus_does_not_run_without_them() -> None:
    assert "no GPU" in refused(deployed(), facts(), node())


@pytest.mark.parametrize(
    ("known", "given", "capability", "what"),
    [
        ({}, (), "6.1", "the engine needs 7.0"),
        ({"quantisation": "awq"}, (), "7.0", r"its quantisation (awq) needs 7.5"),
        ({"quantisation": "fp8"}, (), "7.0", r"its quantisation (fp8) needs 7.5"),
        (
            {"quantisation": "compressed-tensors", "quantisation_format": "mxfp8-quantized"},
            (),
            "7.5",
            "its quantisation (mxfp8-quantized) needs 8.0",
        ),
        ({}, ("--dtype", "bfloat16"), "7.5", "--dtype bfloat16 needs 8.0"),
        ({"model_type": "gemma2"}, (), "7.5", "gemma2, which computes in bfloat16 only, needs 8.0"),
    ],
)
def test_too_old_a_gpu_is_a_reason(
    known: dict[str, Any], given: tuple[str, ...], capability: str, what: str
) -> None:
    old = gpu(0, 80, compute_capability=capability)
    sentence = refused(deployed(*given), facts(**known), node(old))
    assert f"GPU 0 (G) of worker node-a has compute capability {capability}, and {what}" in sentence
    young = gpu(1, 80, compute_capability="9.0")
    assert placed(deployed(*given), facts(**known), node(old, young)).gpu_indexes == (1,)
    unknown = gpu(0, 80, compute_capability=None)
    assert placed(deployed(*given), facts(**known), node(unknown)).gpu_indexes == (0,)


def test_a_picked_gpu_that_is_too_old_is_named() -> None:
    here = node(gpu(0, 80, compute_capability="6.0"), gpu(1, 80, compute_capability="9.0"))
    of = deployed(gpu_selector=GpuSelector(gpu_ids=("node-a:cuda:0",)))
    assert "GPU 0 (G) of worker node-a has compute capability 6.0" in refused(of, facts(), here)


def test_a_build_that_runs_without_gpus_leaves_one_that_is_too_old_alone() -> None:
    build = EngineBuild(engine="transformers-serve", version="5.23", drives=("cuda",))
    here = node(gpu(0, 80, compute_capability="6.0"), build=build)
    of = model(source=SOURCE, backend="transformers")
    found = place(ask(of, facts=facts(), engine_name="transformers-serve"), world(here))
    assert isinstance(found, Placement)
    assert found.gpu_indexes == ()


def test_code_of_a_repository_runs_only_where_that_is_allowed() -> None:
    strange = facts(architecture="OddForCausalLM", remote_code=True)
    here = node(gpu(0, 80))
    assert "add --trust-remote-code to the parameters" in refused(deployed(), strange, here)
    assert placed(deployed("--trust-remote-code"), strange, here)


def test_heads_that_tensor_parallel_does_not_divide_are_told() -> None:
    here = node(*(gpu(n, 80) for n in range(8)))
    assert (
        "--tensor-parallel-size 3 does not divide the 32 heads of attention and 8 of keys of me/m: it can be "
        "1, 2, 4, 8 or 16" in refused(deployed("--tp", "3"), facts(), here)
    )
    assert placed(deployed("--tp", "8"), facts(), here).claim.tensor_parallel == 8


def test_an_adapter_is_no_model() -> None:
    adapter = ModelFacts(
        format=FileFormat.SAFETENSORS, adapter_of="me/base", category=Category.UNKNOWN, weights=GIB
    )
    sentence = refused(deployed(), adapter, node(gpu(0, 80)))
    assert (
        "The source me/m is a LoRA adapter of me/base, not a model: deploy me/base, and give it" in sentence
    )


def test_what_headers_do_not_tell_is_guessed_from_the_files_in_equal_shares() -> None:
    guessed = ModelFacts(format=FileFormat.SAFETENSORS, weights=30 * GIB, file_size=30 * GIB)
    found = placed(deployed(), guessed, node(*(gpu(n, 24) for n in range(2))))
    assert len(set(found.claim.vram.values())) == 1
    assert "guessed" in found.note


def test_gangs_take_as_many_gpus_on_each_worker_and_know_how_layers_are_divided() -> None:
    nodes = [node(*(gpu(n, 24) for n in range(2)), key=key, name=f"n{key}") for key in (1, 2)]
    found = placed(deployed(), facts(60), *nodes)
    assert [len(one.gpu_indexes) for one in (found, *found.subordinates)] == [2, 2]
    assert found.claim.tensor_parallel == 2


def test_an_architecture_in_the_parameters_counts_more_than_that_of_the_files() -> None:
    engine = engine_by_name("sglang")
    assert engine is not None
    memory = engine.memory
    given = '{"architectures": ["Qwen3ForSequenceClassification"]}'
    assert overridden_category(deployed("--json-model-override-args", given), memory) is Category.RERANKER
    for text in ("{", "[]", '{"architectures": 3}', "[" * 10_000):
        assert overridden_category(deployed("--json-model-override-args", text), memory) is None


def test_the_reasons_of_every_worker_are_told() -> None:
    of = deployed()
    waiting = instance(1, of)
    old = node(gpu(0, 80, compute_capability="6.0"))
    told = explain(of, waiting, world(old, waiting), facts())
    assert any(
        "compute capability 6.0" in sentence for verdict in told.workers for sentence in verdict.sentences
    )


def test_encoders_claim_no_cache() -> None:
    encoder = attrs.evolve(facts(1), caches=(), category=Category.EMBEDDING, context_length=512)
    claim = placed(deployed(), encoder, node(gpu(0, 24))).claim
    assert (claim.slots, claim.kv_cache, claim.context) == (None, None, 512)


def test_a_shorter_context_is_the_smallest_change_where_that_helps() -> None:
    outcome = decided(deployed("--context-length", "131072"), facts(), node(gpu(0, 24)))
    assert isinstance(outcome, Unschedulable)
    assert outcome.smallest_change == "lower --context-length from 131072 to 43264 or below"
