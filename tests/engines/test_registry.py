from __future__ import annotations

import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.model import Category
from gpustack.engines.registry import engine_by_name, engine_for, engines
from gpustack.errors import Invalid

from .worlds import model

BARE = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="org/model")


def test_every_engine_has_names_of_its_own() -> None:
    names = [name for engine in engines() for name in {engine.name, engine.wire_name}]
    assert len(names) == len(set(names))
    assert {"llama.cpp", "llama-box", "custom"} <= set(names)


@pytest.mark.parametrize("name", ["llama-box", "llama.cpp"])
def test_an_engine_is_found_by_either_name(name: str) -> None:
    found = engine_by_name(name)
    assert found is not None
    assert found.name == "llama.cpp"
    assert engine_for(model(source=BARE, backend=name)) is found


def test_a_gguf_goes_to_llama_cpp_and_a_command_to_the_custom_engine() -> None:
    assert engine_for(model()).name == "llama.cpp"
    assert engine_for(model(command="serve {port}")).name == "custom"


def test_what_the_header_says_outweighs_the_name_of_the_file() -> None:
    assert engine_for(model(source=BARE), ModelFacts(format=FileFormat.GGUF)).name == "llama.cpp"
    assert engine_for(model(), ModelFacts(format=FileFormat.SAFETENSORS)).name == "vllm"
    with pytest.raises(Invalid, match="choose GGUF files of it"):
        engine_for(model(), ModelFacts(format=FileFormat.SAFETENSORS, category=Category.IMAGE))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"source": BARE}, "Cannot tell which engine runs org/model; name a .gguf file"),
        ({"backend": "vlm"}, "Backend 'vlm' is not known here; this version has ascend-mindie, custom,"),
    ],
)
def test_no_engine_is_answered_with_what_to_change(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(Invalid, match=r"this version has|name a") as error:
        engine_for(model(**fields))
    assert str(error.value).startswith(sentence)
