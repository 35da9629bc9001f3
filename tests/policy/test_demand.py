"""Needs that no header tells: claimed by the user, guessed from sizes, or unknown."""

from __future__ import annotations

import pytest

from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.instance import Placement
from gpustack.domain.model import GpuSelector
from gpustack.domain.unit import GIB, MIB
from gpustack.policy.estimate.demand import demand_of, gguf_settings
from gpustack.policy.schedule import place

from .shapes import facts_of
from .worlds import ask, gpu, model, worker, world

SIZED = ModelFacts(format=FileFormat.GGUF, file_size=10 * GIB)


def placed(**fields: object) -> Placement:
    outcome = place(ask(**fields), world(worker(gpus=[gpu(0)])))  # type: ignore[arg-type]  # passed through
    assert isinstance(outcome, Placement), outcome
    return outcome


def test_what_the_environment_claims_is_what_is_set_aside() -> None:
    env = {"GPUSTACK_MODEL_VRAM_CLAIM": str(3 * GIB), "GPUSTACK_MODEL_RAM_CLAIM": str(GIB)}
    found = placed(of=model(env=env), facts=facts_of("llama-3.1-8b"))
    assert found.claim.vram == {0: 3 * GIB}
    assert found.claim.ram == GIB
    assert found.note == "Memory as claimed by the deployment's environment"


def test_a_custom_engine_gets_a_gpu_only_if_it_claims_video_memory_or_picks_one() -> None:
    command = {"command": "serve {port}"}
    assert placed(of=model(**command), engine_name="custom").gpu_indexes == ()
    claiming = model(**command, env={"GPUSTACK_MODEL_VRAM_CLAIM": str(GIB)})
    assert placed(of=claiming, engine_name="custom").claim.vram == {0: GIB}
    picking = model(**command, gpu_selector=GpuSelector(gpu_ids=("node-a:cuda:0",)))
    assert placed(of=picking, engine_name="custom").gpu_indexes == (0,)


def test_an_unknown_need_claims_nothing_and_says_so() -> None:
    found = placed(of=model(command="serve {port}"), engine_name="custom")
    assert (found.claim.ram, found.claim.vram) == (0, {})
    assert "Memory need unknown" in found.note
    assert "GPUSTACK_MODEL_RAM_CLAIM" in found.note


def test_without_a_header_the_size_of_the_files_is_the_guess() -> None:
    found = placed(of=model(), facts=SIZED)
    assert found.claim.vram == {0: 13 * GIB}
    assert found.claim.offload_layers is None
    assert found.note == "Memory need guessed from 10.0 GiB of files"


@pytest.mark.parametrize(
    ("items", "field", "value"),
    [
        ((), "ctx", 4 * 8192),
        (("-c", "100"), "ctx", 400),
        (("--ctx-size=1", "-c=2"), "ctx", 8),
        (("-c", "100", "-np", "2"), "ctx", 100),
        (("-c", "100", "-kvu"), "ctx", 100),
        (("-ctxcp", "5"), "checkpoints", 5),
        (("--swa-checkpoints=0",), "checkpoints", 0),
        (("-np 2",), "parallel", 2),
        (("-ub", "1024"), "ubatch", 1024),
        (("-b", "256"), "ubatch", 256),
        (("-ctk", "q8_0"), "key_type", "q8_0"),
        (("--flash-attn", "off"), "flash_attention", False),
        ((), "unified", False),
        (("--no-kv-unified",), "unified", False),
        (("--no-kv-unified", "-kvu"), "unified", True),
        (("--swa-full",), "full_window", True),
        (("--no-kv-offload",), "kv_offload", False),
        (("--cache-ram", "100"), "prompt_cache", 100 * MIB),
    ],
)
def test_the_users_parameters_count_as_the_engine_will_read_them(
    items: tuple[str, ...], field: str, value: object
) -> None:
    assert getattr(gguf_settings(model(backend_parameters=items)), field) == value


@pytest.mark.parametrize("claim", ["lots", "-1", "1e9", "²", "9" * 5000, ""], ids=lambda text: text[:5])
def test_a_claim_that_is_no_number_is_ignored(claim: str) -> None:
    facts = facts_of("llama-3.2-1b")
    odd = demand_of(model(env={"GPUSTACK_MODEL_VRAM_CLAIM": claim}), facts, "llama.cpp")
    assert odd.cpu() == demand_of(model(), facts, "llama.cpp").cpu()


@pytest.mark.parametrize("split", ["inf,1", "nan,1", "1e300,1", "-1,1", "0,1", "a,b"])
def test_a_split_that_divides_nothing_is_ignored(split: str) -> None:
    facts = facts_of("llama-3.2-1b")
    odd = demand_of(model(backend_parameters=("--tensor-split", split)), facts, "llama.cpp")
    assert odd.split == ()


def test_guessing_ahead_is_counted_and_a_draft_model_is_said_not_to_be() -> None:
    drafting = gguf_settings(model(backend_parameters=("--model-draft=small.gguf", "--spec-draft-n-max=5")))
    assert (drafting.drafted, drafting.predicts) == (5, False)
    predicting = gguf_settings(model(backend_parameters=("--spec-type=draft-mtp",)))
    assert (predicting.drafted, predicting.predicts) == (3, True)
    assert gguf_settings(model()).drafted == 0


def test_experts_that_stay_on_the_host_are_counted_there() -> None:
    assert gguf_settings(model(backend_parameters=("--n-cpu-moe=7",))).host_experts == 7
    assert gguf_settings(model(backend_parameters=("--cpu-moe",))).host_experts >= 1000
    assert gguf_settings(model()).host_experts == 0
