"""MindIE's parameters: all of the existing product's, read strictly; what cannot be together; names and reserves."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.engines.engine import StartOrder
from gpustack.engines.mindie import ENGINE, reserved_bytes
from gpustack.engines.mindie_parameters import PARAMETERS, values_of

from .worlds import model

REPOSITORY = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="org/model")


def faults(*given: str, **fields: Any) -> list[str]:
    return ENGINE.faults(model(**{"source": REPOSITORY, "backend_parameters": given, **fields}))


def test_every_parameter_has_a_default_that_it_would_take_itself() -> None:
    defaults = values_of(())
    for flag, known in PARAMETERS.items():
        if known.default is not None:
            given = values_of((flag, str(known.default)) if known.kind != "switch" else (f"{flag}=false",))
            assert given[flag] == defaults[flag], flag


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("--no-such=1", "MindIE has no --no-such; it has --cache-block-size,"),
        ("stray", "MindIE has no stray"),
        ("--max-seq-len=0", "--max-seq-len must be a whole number from 1 to"),
        ("--max-seq-len=8k", "--max-seq-len must be a whole number"),
        ("--npu-memory-fraction=1.5", "--npu-memory-fraction must be a number from 0.01 to 1, not '1.5'"),
        ("--truncation=perhaps", "--truncation must be true or false"),
        ("--rope-scaling=[1]", "--rope-scaling must be an object in JSON"),
        ("--dtype=int8", "--dtype must be one of auto, half,"),
        ("--max-batch-size", "--max-batch-size must be a whole number from 1 to 5000, not None"),
        ("--port=1", "MindIE has no --port"),
    ],
)
def test_a_parameter_that_is_wrong_is_told_with_what_would_be_right(given: str, sentence: str) -> None:
    (found,) = faults(given)
    assert found.removeprefix("backend_parameters: ").removeprefix("Backend parameter ").startswith(sentence)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("--enable-memory-decoding", "--enable-lookahead"),
        ("--enable-split", "--enable-multi-token-prediction"),
        ("--enable-lookahead", "--enable-multi-token-prediction"),
    ],
)
def test_what_mindie_does_not_do_together_is_refused(first: str, second: str) -> None:
    assert faults(first) == [] and faults(second) == []
    assert faults(first, second) == [f"backend_parameters: MindIE does not do {first} and {second} together"]


def test_numbers_that_need_another_are_refused_without_it() -> None:
    assert "needs a --cpu-mem-size" in faults("--max-preempt-count=1")[0]
    assert faults("--max-preempt-count=1", "--cpu-mem-size=4") == []
    assert "must not be above" in faults("--max-batch-size=10")[0]


def test_names_and_reserves_that_it_does_not_take_are_refused() -> None:
    assert faults(name="Qwen3-8B.v1") == []
    assert "only under a name of letters" in faults(name="a b")[0]
    assert "only under a name of letters" in faults(name="a-")[0]
    for wrong in ("much", "64", "-1", "nan"):
        assert (
            "RESERVED_MEMORY_GB must be a number of GiB from 0 to below 64"
            in faults(env={"RESERVED_MEMORY_GB": wrong})[0]
        )
    assert reserved_bytes(model(env={"RESERVED_MEMORY_GB": "1.5"})) == 3 << 29
    assert reserved_bytes(model()) == 3 << 30


def test_only_text_is_served_and_only_where_it_is_named() -> None:
    assert "does not serve models of category embedding" in faults(categories=("embedding",))[0]
    assert not ENGINE.serves(model(source=REPOSITORY), ModelFacts(format=FileFormat.SAFETENSORS))
    assert ENGINE.context(model(backend_parameters=("--max-seq-len=100",))) is None, "a GGUF file has faults"
    assert ENGINE.context(model(source=REPOSITORY)) == 8192


def test_its_members_start_together_and_meet_at_two_ports() -> None:
    plan = ENGINE.gang(model(), ray=False)
    assert plan is not None
    assert (plan.order, plan.main_ports, plan.follower_ports) == (StartOrder.TOGETHER, 2, 1)
