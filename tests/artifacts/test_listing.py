"""Which files a model is made of, told by their names."""

from __future__ import annotations

import pytest

from gpustack.artifacts.listing import choose, safe_name, shards
from gpustack.errors import BadRequest, NotFound

REPO = (
    "README.md",
    "m-Q4_K_M.gguf",
    "m-Q8_0-00001-of-00003.gguf",
    "m-Q8_0-00002-of-00003.gguf",
    "m-Q8_0-00003-of-00003.gguf",
    "deep/m-Q2_K.gguf",
    "mmproj-m-f16.gguf",
    "mmproj-m-F32.gguf",
)


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("m-Q4_K_M.gguf", ("m-Q4_K_M.gguf",)),
        ("*Q4_K_M*.gguf", ("m-Q4_K_M.gguf",)),
        ("*Q8_0*", REPO[2:5]),
        ("m-Q8_0-00002-of-00003.gguf", REPO[2:5]),
        ("*Q2_K.gguf", ("deep/m-Q2_K.gguf",)),
        ("deep/*", ("deep/m-Q2_K.gguf",)),
        ("m-Q2_K.gguf", ("deep/m-Q2_K.gguf",)),
        ("mmproj-m-f16.gguf", ("mmproj-m-f16.gguf",)),
    ],
)
def test_a_pattern_names_one_model_with_all_its_shards(pattern: str, files: tuple[str, ...]) -> None:
    assert choose(REPO, pattern, place="me/m") == files


def test_nothing_that_matches_is_told_with_what_there_is() -> None:
    with pytest.raises(NotFound) as caught:
        choose(REPO, "*Q5*.gguf", place="me/m")
    assert (
        str(caught.value)
        == "No file matches '*Q5*.gguf' in me/m; there are deep/m-Q2_K.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf"
    )


def test_at_most_ten_names_are_told() -> None:
    with pytest.raises(NotFound, match=r"m09\.gguf and 15 more$"):
        choose([f"m{n:02d}.gguf" for n in range(25)], "x", place="me/m")


def test_several_models_that_match_are_told_so_that_one_can_be_chosen() -> None:
    with pytest.raises(BadRequest) as caught:
        choose(REPO, "m-*.gguf", place="me/m")
    assert str(caught.value) == (
        "'m-*.gguf' matches 3 different models in me/m: deep/m-Q2_K.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf; "
        "name the file of one of them"
    )


def test_without_a_pattern_there_must_be_one_model() -> None:
    assert choose(["a.gguf", "mmproj.gguf"], None, place="me/m") == ("a.gguf",)
    with pytest.raises(
        BadRequest, match=r"^me/m has 2 different models: a\.gguf, b\.gguf; name the file of one"
    ):
        choose(["a.gguf", "b.gguf"], None, place="me/m")
    with pytest.raises(NotFound, match=r"no GGUF file in me/m; there are a\.txt"):
        choose(["a.txt"], None, place="me/m")
    with pytest.raises(
        NotFound, match=r"of a model in me/m, only what belongs to one; there are mmproj\.gguf"
    ):
        choose(["mmproj.gguf"], None, place="me/m")
    with pytest.raises(NotFound, match="which is empty"):
        choose([], None, place="me/m")


def test_a_missing_shard_is_named() -> None:
    with pytest.raises(NotFound) as caught:
        shards("a-00001-of-00003.gguf", ["a-00001-of-00003.gguf", "a-00003-of-00003.gguf"])
    assert str(caught.value) == "Of a.gguf, which has 3 parts, a-00002-of-00003.gguf is missing"
    with pytest.raises(NotFound, match="and 96 more is missing"):
        shards("a-00001-of-00100.gguf", ["a-00001-of-00100.gguf"])


@pytest.mark.attack("traversal")
@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a//b", "a/./b", "a/../../b", "", "a\\b", "a\x00b", "x" * 300, "a\n"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        safe_name(name)


@pytest.mark.parametrize("name", ["a", "a/b.gguf", ".gitattributes", "Ünïcode 1.gguf", "a..b/c"])
def test_a_usual_name_is_taken(name: str) -> None:
    assert safe_name(name) == name
