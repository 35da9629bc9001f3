"""Which model of a GGUF repository is taken."""

from __future__ import annotations

import pytest

from gpustack.cli import repository
from gpustack.cli.repository import choose_variant, find_variant, pattern_of, remark, variants
from gpustack.errors import BadRequest, NotFound

GIB = 1 << 30
REPO = {
    "README.md": 10,
    "config.json": 10,
    "m-Q2_K.gguf": 2 * GIB,
    "m-Q4_K_M.gguf": 4 * GIB,
    "m-UD-Q4_K_XL.gguf": 5 * GIB,
    "m-q8_0-00001-of-00002.gguf": 4 * GIB,
    "m-q8_0-00002-of-00002.gguf": 4 * GIB,
    "BF16/m-BF16-00001-of-00001.gguf": None,
    "mmproj-m-F16.gguf": GIB,
}


def test_shards_are_one_model_and_projectors_are_none() -> None:
    found = {one.name: one for one in variants(REPO)}
    assert {one.tag for one in found.values()} == {"Q2_K", "Q4_K_M", "UD-Q4_K_XL", "q8_0", "BF16"}
    eight = found["m-q8_0.gguf"]
    assert (eight.files, eight.size) == (
        ("m-q8_0-00001-of-00002.gguf", "m-q8_0-00002-of-00002.gguf"),
        8 * GIB,
    )
    assert found["BF16/m-BF16.gguf"].size is None, "unknown is not nothing"


@pytest.mark.parametrize(
    ("asked", "name", "pattern"),
    [
        ("Q8_0", "m-q8_0.gguf", "*q8_0*.gguf"),
        ("q4_k_m", "m-Q4_K_M.gguf", "*Q4_K_M*.gguf"),
        ("m-q8_0.gguf", "m-q8_0.gguf", "*q8_0*.gguf"),
        ("M-Q2_K.GGUF", "m-Q2_K.gguf", "*Q2_K*.gguf"),
        ("*XL*", "m-UD-Q4_K_XL.gguf", "*UD-Q4_K_XL*.gguf"),
        ("BF16", "BF16/m-BF16.gguf", "*BF16*.gguf"),
        ("q4_k_x", "m-UD-Q4_K_XL.gguf", "*UD-Q4_K_XL*.gguf"),
    ],
)
def test_a_quantisation_a_file_or_a_part_of_its_name_names_one(asked: str, name: str, pattern: str) -> None:
    one = find_variant(variants(REPO), asked, "me/m")
    assert (one.name, pattern_of(one, REPO)) == (name, pattern)


def test_a_pattern_that_would_take_others_too_gives_way_to_the_file() -> None:
    files = {"m-Q4_K.gguf": 1, "m-Q4_K_M.gguf": 1}
    assert pattern_of(find_variant(variants(files), "Q4_K", "me/m"), files) == "m-Q4_K.gguf"


def test_a_tag_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(NotFound) as caught:
        find_variant(variants(REPO), "Q9", "me/m")
    assert str(caught.value) == "There is no Q9 in me/m; there are BF16, Q2_K, Q4_K_M, UD-Q4_K_XL, q8_0"


def test_several_that_are_meant_are_told() -> None:
    with pytest.raises(
        BadRequest, match=r"may be any of m-Q4_K_M.gguf, m-UD-Q4_K_XL.gguf; name the file of one"
    ):
        find_variant(variants(REPO), "q4", "me/m")


@pytest.mark.parametrize(
    ("tags", "taken"),
    [
        (["Q2_K", "Q4_K_M", "Q8_0"], "Q4_K_M"),
        (["UD-Q4_K_M", "Q4_K_M"], "Q4_K_M"),
        (["IQ4_XS", "Q4_0", "Q8_0"], "IQ4_XS"),
        (["F16", "Q8_0"], "Q8_0"),
        (["MXFP4"], "MXFP4"),
        (["Q2_K", "Q6_K"], "Q6_K"),
        (["F32", "IQ1_S"], "IQ1_S"),
    ],
)
def test_unasked_about_four_bits_are_taken_else_more_else_the_smallest(tags: list[str], taken: str) -> None:
    sizes = {"F32": 32, "F16": 16, "IQ1_S": 1}
    found = variants({f"m-{tag}.gguf": sizes.get(tag, 8) for tag in tags})
    assert choose_variant(found, "me/m").tag == taken


def test_what_is_taken_unasked_is_told_with_the_others() -> None:
    found = variants(REPO)
    told = remark(choose_variant(found, "me/m"), found, "me/m")
    assert told == ("Taking Q4_K_M (4.0 GiB); others are me/m:TAG (UD-Q4_K_XL, q8_0, Q2_K, BF16).")
    (only,) = variants({"m.gguf": 2 * GIB})
    assert remark(only, [only], "me/m") == "Taking m.gguf (2.0 GiB)."


def test_a_repository_of_different_models_wants_a_file() -> None:
    with pytest.raises(BadRequest, match=r"me/m has several models: a-Q4_K_M.gguf, b-Q4_K_M.gguf"):
        choose_variant(variants({"a-Q4_K_M.gguf": 1, "b-Q4_K_M.gguf": 1}), "me/m")


def test_what_cannot_be_looked_at_is_named_by_a_pattern() -> None:
    assert repository.pattern_for("Q8_0") == "*Q8_0*.gguf"
    assert repository.pattern_for("m-*") == "m-*"
