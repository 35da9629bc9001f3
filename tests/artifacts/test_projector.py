"""A projector is taken for the model that it belongs to, and for no other."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.cache import Cache, CacheSettings, LocalFiles
from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.artifacts.projector import by_place_and_name, misfit
from gpustack.domain.artifact import ModelSource, SourceKind
from tests.fakes.hub import Hub
from tests.models import make_embedder, make_projector, make_tiny_llm
from tests.models.embedder import WIDTH as EMBEDDER_WIDTH
from tests.models.tiny_llm import WIDTH


def likely(main: str, *names: str) -> list[str]:
    return by_place_and_name([main, *names], main, "*mmproj*.gguf")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("mmproj-F32.gguf", "mmproj-m-f16.gguf"), "mmproj-m-f16.gguf"),
        (("mmproj-m-BF16.gguf", "mmproj-m-F32.gguf"), "mmproj-m-BF16.gguf"),
        (("mmproj-F32.gguf", "mmproj-F16.gguf"), "mmproj-F16.gguf"),
        (("mmproj-b.gguf", "mmproj-a.gguf"), "mmproj-a.gguf"),
        (("model.gguf",), None),
    ],
)
def test_among_equals_half_precision_is_preferred(names: tuple[str, ...], chosen: str | None) -> None:
    assert next(iter(likely("m.gguf", *names)), None) == chosen


@pytest.mark.parametrize(
    ("main", "others", "chosen"),
    [
        ("gemma-3-4b-it-Q4_K_M.gguf", ("gemma-3-12b-it-Q4_K_M.gguf",), "mmproj-gemma-3-4b-it-f16.gguf"),
        ("gemma-3-12b-it-Q4_K_M.gguf", ("gemma-3-4b-it-Q4_K_M.gguf",), "mmproj-gemma-3-12b-it-f16.gguf"),
        ("llama-3.2-1b-Q8_0.gguf", ("gemma-3-4b-it-Q8_0.gguf", "gemma-3-12b-it-Q8_0.gguf"), None),
    ],
)
def test_of_two_pairs_in_one_folder_each_stays_together(
    main: str, others: tuple[str, ...], chosen: str | None
) -> None:
    pair = ("mmproj-gemma-3-4b-it-f16.gguf", "mmproj-gemma-3-12b-it-f16.gguf")
    assert next(iter(likely(main, *others, *pair)), None) == chosen


def test_a_name_that_begins_with_anothers_is_not_that_others() -> None:
    beside = ("sees-coder-Q4_0.gguf", "mmproj-sees-f16.gguf", "mmproj-sees-coder-f16.gguf")
    assert likely("sees-Q4_0.gguf", *beside) == ["mmproj-sees-f16.gguf"]
    assert likely("sees-coder-Q4_0.gguf", *beside[1:], "sees-Q4_0.gguf") == ["mmproj-sees-coder-f16.gguf"]


def test_the_same_folder_goes_first_and_a_folder_with_models_keeps_its_own() -> None:
    there = ("mmproj-f16.gguf", "a/mmproj-f32.gguf", "b/m.gguf", "b/mmproj-f16.gguf", "extra/mmproj-f16.gguf")
    assert likely("a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf", *there) == [
        "a/mmproj-f32.gguf",
        "mmproj-f16.gguf",
        "extra/mmproj-f16.gguf",
    ]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: make_projector(path, width=WIDTH), None),
        (lambda path: make_projector(path, width=768, tensor_width=WIDTH), None),
        (lambda path: make_projector(path, width=2 * WIDTH), f"it makes vectors of {2 * WIDTH} numbers, the model"),
        (lambda path: make_tiny_llm(path), "it is no projector (llama)"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1"), "cannot be read"),
    ],
)  # fmt: skip
def test_the_headers_are_asked_whether_it_belongs(
    make: Callable[[Path], object], reason: str | None, tmp_path: Path
) -> None:
    model, projector = make_tiny_llm(tmp_path / "m.gguf"), tmp_path / "mmproj.gguf"
    make(projector)
    found = misfit(model, projector)
    assert found == reason if reason is None or found is None else reason in found


def test_a_model_that_embeds_takes_none(tmp_path: Path) -> None:
    model = make_embedder(tmp_path / "m.gguf")
    projector = make_projector(tmp_path / "mmproj.gguf", width=EMBEDDER_WIDTH)
    assert misfit(model, projector) == "a model of bert takes no pictures and no sound"


async def local(path: Path, root: Path) -> LocalFiles:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(path))
    with trio.fail_after(60):
        return await Cache(root / "cache", random.Random(1)).ensure(source)


async def test_models_of_other_kinds_are_served_without_a_stray_projector(tmp_path: Path) -> None:
    make_projector(tmp_path / "mmproj-f16.gguf", width=2 * WIDTH)
    text, embedder = make_tiny_llm(tmp_path / "text.gguf"), make_embedder(tmp_path / "embedder.gguf")
    for model in (text, embedder):
        assert (await local(model, tmp_path)).mmproj_path is None
        source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(model))
        facts = await FactsReader(clock=lambda: 0.0, rng=random.Random(1)).read(source)
        assert facts.projector_size is None


async def test_headers_that_name_a_model_decide_where_file_names_do_not(tmp_path: Path) -> None:
    model = make_tiny_llm(tmp_path / "m.gguf", name="Sees Well 1B")
    make_projector(tmp_path / "mmproj-f16.gguf", width=WIDTH, name="Another")
    own = make_projector(tmp_path / "mmproj-f32.gguf", width=WIDTH, name="Sees Well 1B Instruct")
    assert (await local(model, tmp_path)).mmproj_path == str(own)
    own.unlink()
    assert (await local(model, tmp_path)).mmproj_path == str(tmp_path / "mmproj-f16.gguf")


@pytest.mark.parametrize(("width", "belongs"), [(WIDTH, True), (2 * WIDTH, False)])
async def test_one_that_was_fetched_is_used_only_if_it_belongs(
    width: int, belongs: bool, hub: Hub, tmp_path: Path
) -> None:
    files = {
        "m.gguf": make_tiny_llm(tmp_path / "m.gguf"),
        "mmproj.gguf": make_projector(tmp_path / "p.gguf", width=width),
    }
    hub.add("me/m", files)
    cache = Cache(tmp_path / "cache", random.Random(1), CacheSettings(endpoint=hub.url))
    source = ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m", huggingface_filename="m.gguf"
    )
    with trio.fail_after(60):
        for _ in range(2):  # fetched, and known
            found = await cache.ensure(source)
            assert (found.mmproj_path is not None) == belongs
            assert len(found.paths) == 2  # to be removed with the model
