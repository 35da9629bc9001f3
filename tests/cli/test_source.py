"""What ``gpustack run`` is asked to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.cli.source import read_source
from gpustack.errors import GpustackError


@pytest.mark.parametrize(
    ("text", "repo", "file", "name"),
    [
        ("Qwen/Qwen3-4B-GGUF:Q8_0", "Qwen/Qwen3-4B-GGUF", "Q8_0", "Qwen3-4B"),
        ("hf.co/Qwen/Qwen3-4B-GGUF:Q8_0", "Qwen/Qwen3-4B-GGUF", "Q8_0", "Qwen3-4B"),
        ("https://huggingface.co/a/b-gguf", "a/b-gguf", "", "b"),
        ("https://huggingface.co/a/b-gguf/", "a/b-gguf", "", "b"),
        ("https://huggingface.co/a/b/tree/main", "a/b", "", "b"),
        ("https://huggingface.co/a/b/blob/main/deep/b-q5.gguf", "a/b", "deep/b-q5.gguf", "b"),
        ("https://huggingface.co/a/b/resolve/main/b%20q5.gguf?download=true", "a/b", "b q5.gguf", "b"),
        ("hf:a/b-GGUF:b-q5.gguf", "a/b-GGUF", "b-q5.gguf", "b"),
        ("huggingface:a/b-GGUF", "a/b-GGUF", "", "b"),
        ("a/b-GGUF:*IQ2*", "a/b-GGUF", "*IQ2*", "b"),
        ("a/b:Q6_K", "a/b", "Q6_K", "b"),
        ("hf.co/a/b-GGUF:latest", "a/b-GGUF", "", "b"),
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B", "", "Qwen3-4B"),
    ],
)
def test_a_repository_with_the_file_to_take(
    text: str, repo: str, file: str, name: str, tmp_path: Path
) -> None:
    asked = read_source(text, tmp_path)
    assert asked is not None
    assert (asked.name, asked.repo, asked.file) == (name, repo, file)
    assert asked.fields == {"source": "huggingface", "huggingface_repo_id": repo}


def test_a_page_of_the_hub_names_the_revision_too(tmp_path: Path) -> None:
    asked = read_source("https://huggingface.co/a/b/blob/v2/b.gguf", tmp_path)
    assert asked is not None and asked.fields["revision"] == "v2"


@pytest.mark.parametrize(
    ("text", "model", "name"),
    [
        ("ollama:qwen3", "qwen3", "qwen3"),
        ("ollama:qwen3:0.6b", "qwen3:0.6b", "qwen3-0.6b"),
        ("ollama:me/mine:latest", "me/mine:latest", "mine-latest"),
        ("https://ollama.com/library/qwen3:0.6b", "qwen3:0.6b", "qwen3-0.6b"),
    ],
)
def test_a_model_of_the_ollama_library(text: str, model: str, name: str, tmp_path: Path) -> None:
    asked = read_source(text, tmp_path)
    assert asked is not None and asked.name == name
    assert asked.fields == {"source": "ollama_library", "ollama_library_model_name": model}


@pytest.mark.parametrize(
    ("text", "file", "revision"),
    [
        ("ms:a/b-GGUF", "", None),
        ("ms:a/b-GGUF:Q4_K_M", "Q4_K_M", None),
        ("modelscope:a/b-GGUF", "", None),
        ("https://www.modelscope.cn/models/a/b-GGUF/summary", "", None),
        ("https://modelscope.cn/models/a/b-GGUF/file/view/v2/b%20c.gguf?status=2", "b c.gguf", "v2"),
        ("https://modelscope.cn/models/a/b-GGUF/resolve/master/x/b.gguf", "x/b.gguf", None),
    ],
)
def test_a_repository_of_modelscope(text: str, file: str, revision: str | None, tmp_path: Path) -> None:
    asked = read_source(text, tmp_path)
    assert asked is not None
    assert (asked.name, asked.repo, asked.file) == ("b", "a/b-GGUF", file)
    more = {} if revision is None else {"revision": revision}
    assert asked.fields == {"source": "model_scope", "model_scope_model_id": "a/b-GGUF", **more}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "MODEL is empty"),
        (" ", "MODEL is empty"),
        ("ms:a", "does not name a repository: write ms:ORGANISATION"),
        ("https://modelscope.cn/datasets/a/b", "does not name a repository: write ms:ORGANISATION"),
        ("https://example.com/m.gguf", "Models are not fetched from https://example.com"),
        ("ollama:", "does not name a model of the Ollama library"),
        ("ollama:a/b/c", "does not name a model of the Ollama library"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_way_out(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(GpustackError, match=sentence):
        read_source(text, tmp_path)


@pytest.mark.parametrize("text", [".", "./", "..", "../here"])
def test_a_dot_is_the_folder_it_stands_for(text: str, tmp_path: Path) -> None:
    (here := tmp_path / "here").mkdir()
    asked = read_source(text, here)
    place = tmp_path if text == ".." else here
    assert asked is not None and (asked.name, asked.fields["local_path"]) == (place.name, str(place))


def test_a_path_becomes_absolute_and_names_the_model(tmp_path: Path) -> None:
    file = tmp_path / "tiny-Q4_K_M.gguf"
    file.touch()
    for text in ("tiny-Q4_K_M.gguf", "./tiny-Q4_K_M.gguf", str(file)):
        asked = read_source(text, tmp_path)
        assert asked is not None
        assert asked.fields == {"source": "local_path", "local_path": str(file)}
        assert (asked.name, asked.is_absent) == ("tiny-Q4_K_M", False)


def test_what_is_on_disk_is_not_a_repository(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    asked = read_source("a/b", tmp_path)
    assert asked is not None and asked.fields["local_path"] == str(tmp_path / "a" / "b")


def test_parts_of_a_model_are_named_without_their_number(tmp_path: Path) -> None:
    asked = read_source("/models/big-00001-of-00003.gguf", tmp_path)
    assert asked is not None and (asked.name, asked.is_absent) == ("big", True)


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpustackError, match=r"There is no .*/missing\.gguf"):
        read_source("./missing.gguf", tmp_path)


def test_half_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpustackError, match="does not name a repository"):
        read_source("hf.co/onlyone", tmp_path)


@pytest.mark.parametrize("text", ["tiny", "my model", "llama3:8b", "a/b/c"])
def test_anything_else_is_the_name_of_a_deployment(text: str, tmp_path: Path) -> None:
    assert read_source(text, tmp_path) is None
