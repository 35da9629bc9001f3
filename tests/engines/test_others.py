"""SGLang, TEI and transformers serve: what they refuse with which reason, and what they are chosen for."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.instance import Claim
from gpustack.engines import transformers_serve
from gpustack.engines.engine import StartOrder
from gpustack.engines.registry import engine_by_name, engine_for

from .worlds import VLLM, context, model

REPOSITORY = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="org/model")


def faults(backend: str, **fields: Any) -> list[str]:
    deployed = model(**{"source": REPOSITORY, "backend": backend, **fields})
    return engine_for(deployed).faults(deployed)


@pytest.mark.parametrize("backend", ["sglang", "tei", "transformers"])
def test_a_plain_repository_is_served(backend: str) -> None:
    assert faults(backend) == []


@pytest.mark.parametrize("backend", ["sglang", "tei", "transformers"])
def test_gguf_and_offloading_and_what_the_worker_decides_are_refused_all_at_once(backend: str) -> None:
    gguf = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")
    found = faults(
        backend, source=gguf, cpu_offloading=True, categories=("image",), backend_parameters=("--port=1",)
    )
    assert found == [
        f"Backend {backend} runs safetensors, and /m.gguf is GGUF: set backend to llama-box, or none",
        f"CPU offloading is not available with backend {backend}",
        f"Backend {backend} does not serve models of category image",
        "Backend parameter --port cannot be set: the worker chooses where it listens",
    ]


@pytest.mark.parametrize(
    ("backend", "parameter", "sentence"),
    [
        ("sglang", "--api-key=x", "--api-key cannot be set: clients prove themselves to the gateway"),
        ("sglang", "--hos=0.0.0.0", "--hos cannot be set: it may be read as --host; the worker chooses"),
        ("sglang", "--nnodes 2", "--nnodes cannot be set: the scheduler decides about workers and devices"),
        ("sglang", "--tp=two", "--tp must be a whole number of at least 1, not 'two'"),
        ("sglang", "--context-length=0", "--context-length must be a whole number of at least 1, not '0'"),
        ("tei", "--hf-token=x", "put HF_TOKEN into env"),
        ("tei", "--max-batch-tokens", "--max-batch-tokens must be a whole number of at least 1, not None"),
        (
            "transformers",
            "--device=cuda:3",
            "--device cannot be set: the scheduler decides about workers and devices",
        ),
    ],
)
def test_a_parameter_that_does_not_work_is_refused_with_the_reason(
    backend: str, parameter: str, sentence: str
) -> None:
    (found,) = faults(backend, backend_parameters=(parameter,))
    assert found.startswith("Backend parameter ") and sentence in found


def test_transformers_serve_needs_a_name_that_is_a_path() -> None:
    assert faults("transformers", name="Qwen3-0.6B.v1_x") == []
    for name in ("a/b", "..", "-x", "a b", "é"):
        assert "serves a deployment only under a name of" in faults("transformers", name=name)[0]


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("SGLang", "sglang"),
        ("text-embeddings-inference", "tei"),
        ("TEI", "tei"),
        ("Transformers", "transformers"),
        ("transformers_serve", "transformers"),
    ],
)
def test_they_are_taken_in_any_spelling(spelled: str, name: str) -> None:
    found = engine_by_name(spelled)
    assert found is not None and found.wire_name == name


def test_none_of_them_is_taken_unless_it_is_named() -> None:
    facts = ModelFacts(format=FileFormat.SAFETENSORS)
    for name in ("sglang", "tei", "transformers"):
        engine = engine_by_name(name)
        assert engine is not None and not engine.serves(model(source=REPOSITORY), facts)


def test_only_sglang_runs_on_several_workers() -> None:
    named = ("sglang", "tei", "transformers")
    plans = {name: engine_for(model(backend=name)).gang(model(), ray=False) for name in named}
    assert plans["sglang"] is not None and plans["sglang"].order is StartOrder.TOGETHER
    assert (plans["tei"], plans["transformers"]) == (None, None)


def test_sglang_takes_the_pool_and_the_division_that_placement_chose() -> None:
    claim = Claim(slots=4, context=8192, tensor_parallel=2)
    deployed = model(source=REPOSITORY, backend="sglang")
    engine = engine_by_name("sglang")
    assert engine is not None
    argv = " ".join(engine.launch(context(deployed, gpus=(0, 1, 2, 3, 4, 5), claim=claim)).argv)
    assert "--max-total-tokens 32768" in argv
    assert "--tp-size 2 --pp-size 3" in argv
    own = model(source=REPOSITORY, backend="sglang", backend_parameters=("--mem-fraction-static=0.8",))
    assert "--max-total-tokens" not in engine.launch(context(own, gpus=(0,), claim=claim)).argv


def test_vllm_divides_a_model_as_placement_chose() -> None:
    claim = Claim(tensor_parallel=2)
    engine = engine_by_name("vllm")
    assert engine is not None
    deployed = model(source=REPOSITORY, backend="vllm")
    argv = " ".join(engine.launch(context(deployed, build=VLLM, gpus=(0, 1, 2, 3, 4, 5), claim=claim)).argv)
    assert "--tensor-parallel-size 2 --pipeline-parallel-size 3" in argv


@pytest.mark.parametrize(("version", "librosa"), [("5.19.0", True), ("5.23.0", False)])
def test_transformers_serve_is_installed_with_what_reads_sounds(version: str, librosa: bool) -> None:
    """Its own extra has nothing that takes a form or reads a sound."""
    package = transformers_serve.PROGRAM.package
    assert package is not None
    installed = package.requirements(version, ())
    assert {"python-multipart", "soundfile", "soxr"} <= set(installed)
    assert ("librosa" in installed) is librosa
