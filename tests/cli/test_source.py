"""What ``gpustack run`` is asked to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.cli.source import read_source
from gpustack.errors import GpustackError


@pytest.mark.parametrize(
    ("text", "repo", "file", "name"),
    [
        ("Qwen/Qwen3-4B-GGUF:Q8_0", "Qwen/Qwen3-4B-GGUF", "*Q8_0*.gguf", "Qwen3-4B"),
        ("hf.co/Qwen/Qwen3-4B-GGUF:Q8_0", "Qwen/Qwen3-4B-GGUF", "*Q8_0*.gguf", "Qwen3-4B"),
        ("https://huggingface.co/a/b-gguf", "a/b-gguf", "*Q4_K_M*.gguf", "b"),
        ("hf:a/b-GGUF:b-q5.gguf", "a/b-GGUF", "b-q5.gguf", "b"),
        ("a/b-GGUF:*IQ2*", "a/b-GGUF", "*IQ2*", "b"),
        ("a/b:Q6_K", "a/b", "*Q6_K*.gguf", "b"),
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B", None, "Qwen3-4B"),
    ],
)
def test_a_repository_with_the_file_to_take(
    text: str, repo: str, file: str | None, name: str, tmp_path: Path
) -> None:
    asked = read_source(text, tmp_path)
    assert asked is not None
    assert asked.name == name
    assert asked.fields["source"] == "huggingface"
    assert asked.fields["huggingface_repo_id"] == repo
    assert asked.fields.get("huggingface_filename") == file


def test_the_quantisation_that_was_not_asked_for_is_told(tmp_path: Path) -> None:
    asked = read_source("a/b-GGUF", tmp_path)
    assert asked is not None and asked.remark == "Taking Q4_K_M; another one is had by a/b-GGUF:TAG."


def test_a_path_becomes_absolute_and_names_the_model(tmp_path: Path) -> None:
    file = tmp_path / "tiny-Q4_K_M.gguf"
    file.touch()
    for text in ("tiny-Q4_K_M.gguf", "./tiny-Q4_K_M.gguf", str(file)):
        asked = read_source(text, tmp_path)
        assert asked is not None
        assert asked.fields == {"source": "local_path", "local_path": str(file)}
        assert (asked.name, asked.remark) == ("tiny-Q4_K_M", "")


def test_what_is_on_disk_is_not_a_repository(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    asked = read_source("a/b", tmp_path)
    assert asked is not None and asked.fields["local_path"] == str(tmp_path / "a" / "b")


def test_parts_of_a_model_are_named_without_their_number(tmp_path: Path) -> None:
    asked = read_source("/models/big-00001-of-00003.gguf", tmp_path)
    assert asked is not None and asked.name == "big"
    assert "not on this machine" in asked.remark


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpustackError, match=r"There is no .*/missing\.gguf"):
        read_source("./missing.gguf", tmp_path)


def test_half_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpustackError, match="does not name a repository"):
        read_source("hf.co/onlyone", tmp_path)


@pytest.mark.parametrize("text", ["tiny", "my model", "llama3:8b", "a/b/c"])
def test_anything_else_is_the_name_of_a_deployment(text: str, tmp_path: Path) -> None:
    assert read_source(text, tmp_path) is None
