"""The image engine: which deployments are its, what it refuses, and the memory that it claims."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import GIB
from gpustack.engines.diffusers import ENGINE, FLAGS
from gpustack.engines.registry import engine_for
from gpustack.policy.estimate.demand import demand_of
from tests.child import ROOT

from .worlds import model

PIPELINE = ModelFacts(
    format=FileFormat.SAFETENSORS, category=Category.IMAGE, weights=4 * GIB, file_size=4 * GIB
)


def images(**fields: Any) -> Model:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/sd")
    return model(**{"source": source, **fields})


def test_its_flags_are_those_of_its_program() -> None:
    """Read in the source: the program itself needs libraries that are rarely installed."""
    program = ast.parse((ROOT / "gpustack" / "launchers" / "images" / "__main__.py").read_text())
    calls = (node for node in ast.walk(program) if isinstance(node, ast.Call))
    flags = {
        str(call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        if isinstance(call.args[0], ast.Constant)
    }
    assert flags == {*FLAGS.known, *FLAGS.ours}


def test_a_pipeline_needs_no_backend() -> None:
    assert engine_for(images(), PIPELINE) is ENGINE
    assert engine_for(images(categories=("image",))) is ENGINE


def test_what_others_load_is_not_its_own() -> None:
    assert not ENGINE.serves(images(), ModelFacts(format=FileFormat.SAFETENSORS, category=Category.LLM))
    assert not ENGINE.serves(model(categories=("image",)), None), "a GGUF file"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("--dtype=int4", "--dtype must be one of auto, float16, bfloat16, float32, not 'int4'"),
        ("--max-sides=512", "did you mean --max-side?"),
        ("--port=1", "--port cannot be set"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(given: str, sentence: str) -> None:
    (fault,) = ENGINE.faults(images(backend_parameters=(given,)))
    assert sentence in fault


def test_a_pipeline_takes_its_weights_and_room_to_draw() -> None:
    demand = demand_of(images(), PIPELINE, "diffusers")
    need = demand.devices((1.0,))
    assert 7 * GIB < need.vram[0] < 8 * GIB
    assert need.ram == 2 * GIB
    assert demand.cpu() > 2 * 4 * GIB
    assert demand.device_counts == (1,)
