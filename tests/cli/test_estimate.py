"""``gpustack estimate``: what a model takes and where it fits, told by the scheduler's own rules without a server."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from gpustack.cli.commands.estimate import _told
from gpustack.cli.estimation import EstimateRequest, estimated
from gpustack.cli.main import main
from gpustack.cli.terminal import Terminal
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import ModelFacts
from gpustack.errors import BadRequest, Invalid
from tests.models.tiny_folder import make_tiny_folder
from tests.policy.shapes import facts_of

SMALL, LARGE = facts_of("qwen3-0.6b"), facts_of("llama-3.3-70b")


def asked(facts: ModelFacts = SMALL, **more: Any) -> EstimateRequest:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")
    return EstimateRequest(source=source, facts=facts, **more)


def told(document: dict[str, Any], width: int = 80) -> list[str]:
    return list("\n".join(_told(document, Terminal(io.StringIO(), live=True, width=width))).splitlines())


def test_where_no_gpu_is_named_it_is_shown_on_the_processor_and_on_some() -> None:
    found = estimated(asked(), [])
    assert [one["place"] for one in found["places"]] == ["processor", "1 GPU", "2 GPUs", "4 GPUs"]
    assert {one["fits"] for one in found["places"]} == {None}
    for one in found["places"]:
        assert abs(sum(one["parts"]["devices"].values()) - sum(one["video_memory"])) < 4096
        assert abs(sum(one["parts"]["host"].values()) - one["memory"]) < 4096
    assert found["kinds"][0].startswith("RTX 3080"), "the smallest that holds it"
    lines = told(found)
    assert max(map(len, lines)) <= 80 and any("One GPU holds all of it" in line for line in lines)


def test_more_context_and_a_smaller_cache_are_counted() -> None:
    def cache(**more: Any) -> int:
        [one] = [one for one in estimated(asked(**more), [])["places"] if one["place"] == "1 GPU"]
        return int(one["parts"]["devices"]["cache"])

    assert cache(context=16384, slots=2) == pytest.approx(2 * cache(context=8192, slots=2), rel=0.01)
    assert cache(context=8192, slots=4) == pytest.approx(4 * cache(context=8192, slots=1), rel=0.01)
    assert cache(cache_type="q8_0") == pytest.approx(cache() * 34 / 64, rel=0.01)
    settings = estimated(asked(context=4096, slots=2, cache_type="q8_0"), [])["settings"]
    assert settings == {"context": 4096, "slots": 2, "cache_type": "q8_0"}


def test_on_named_gpus_it_is_placed_as_the_scheduler_would() -> None:
    part, whole, none = estimated(asked(LARGE), ["24GiB", "4xH100", "RTX3060+16GiB"])["places"]
    assert (part["fits"], whole["fits"], none["fits"]) == (True, True, False)
    assert 0 < part["layers"] < part["total_layers"] == whole["layers"] == 81
    assert all(size <= free for size, free in zip(part["video_memory"], part["free"], strict=True))
    assert whole["longest_context"] == 131072 and part["longest_context"] is None
    assert "the machine has 14.0 GiB free of 16.0 GiB" in none["why"] and "new-" not in str(none)
    lines = told({**estimated(asked(LARGE), ["24GiB", "RTX3060+16GiB"])})
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("RTX3060+16GiB: does not fit: ") for line in lines)
    assert any("taken to have 64.0 GiB of memory" in line for line in lines)


def test_the_longest_context_is_the_last_that_still_fits() -> None:
    [one] = estimated(asked(facts_of("llama-3.1-8b")), ["12GiB"])["places"]
    longest = one["longest_context"]
    assert 8192 < longest < 131072

    def layers(context: int) -> bool:
        [tried] = estimated(asked(facts_of("llama-3.1-8b"), context=context, slots=1), ["12GiB"])["places"]
        return tried.get("layers") == tried.get("total_layers") and bool(tried["video_memory"])

    assert layers(longest) and not layers(longest + 1024)


def test_what_can_never_run_and_what_means_no_gpu_is_refused() -> None:
    with pytest.raises(BadRequest, match="vllm runs safetensors"):
        estimated(asked(backend="vllm"), [])
    with pytest.raises(Invalid, match="nosuch"):
        estimated(asked(backend="nosuch"), [])
    with pytest.raises(BadRequest, match="is not known; did you mean RTX 4090"):
        estimated(asked(), ["RTX409"])


def test_a_file_and_a_folder_are_read_without_a_server(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {"HOME": str(tmp_path), "GPUSTACK_DATA_DIR": str(tmp_path / "none")}
    assert main(["estimate", str(tiny_model), "--gpu", "8GiB", "-o", "json"], env) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["architecture"] == "llama" and found["places"][0]["fits"] is True
    folder = make_tiny_folder(tmp_path / "folder")
    assert main(["estimate", str(folder), "--kv=fp8", "--ctx=4096"], env) == 0
    shown = capsys.readouterr().out
    assert "vllm, 4096 tokens of context" in shown and "GRAPHS" in shown
    assert not (tmp_path / "none").exists(), "nothing is made"
    assert main(["estimate", str(tiny_model), "--gpu=1GiB", "--ctx=200000000"], env) == 1
    assert "does not fit" in capsys.readouterr().out
    assert main(["estimate", str(tmp_path / "missing.gguf")], env) == 1
    assert "There is no" in capsys.readouterr().err
    assert main(["estimate", "name"], env) == 1
    assert "names nothing that can be read" in capsys.readouterr().err
