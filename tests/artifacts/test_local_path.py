"""Models on this machine: found as they are named, and told what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.listing import MOST_FILES, Listing
from gpustack.artifacts.source import SourceSettings, source_for
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import GpustackError, Invalid, NotFound


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    return folder


async def resolve(path: Path | str) -> Listing:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(path))
    return await source_for(source.kind).resolve(source, SourceSettings())


async def fault(path: Path | str) -> str:
    with pytest.raises(GpustackError) as caught:
        await resolve(path)
    return str(caught.value)


async def test_a_file_is_itself(tmp_path: Path) -> None:
    found = await resolve(put(tmp_path, "m.gguf", "other.gguf") / "m.gguf")
    assert (found.folder, found.main, found.mmproj) == (str(tmp_path), "m.gguf", None)
    assert [(file.name, file.size) for file in found.files] == [("m.gguf", 6)]


async def test_any_shard_stands_for_all_of_them_and_the_projector_comes_along(tmp_path: Path) -> None:
    parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    found = await resolve(put(tmp_path, *parts, "mmproj-f16.gguf") / parts[1])
    assert (found.main, found.mmproj) == (parts[0], "mmproj-f16.gguf")
    assert [file.name for file in found.files] == [*parts, "mmproj-f16.gguf"]


async def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    put(tmp_path, "m-00001-of-00003.gguf", "m-00003-of-00003.gguf")
    assert "m-00002-of-00003.gguf is missing" in await fault(tmp_path / "m-00001-of-00003.gguf")


async def test_a_folder_with_one_gguf_model_is_that_model(tmp_path: Path) -> None:
    parts = ["sub/m-00001-of-00002.gguf", "sub/m-00002-of-00002.gguf"]
    found = await resolve(put(tmp_path, *parts, "README.md", ".git/x.gguf"))
    assert (found.main, [file.name for file in found.files]) == (parts[0], parts)


async def test_a_folder_of_another_format_is_given_as_a_whole(tmp_path: Path) -> None:
    found = await resolve(put(tmp_path, "config.json", "model.safetensors"))
    assert (found.main, found.folder) == (None, str(tmp_path))
    assert [file.name for file in found.files] == ["config.json", "model.safetensors"]


async def test_a_folder_with_several_models_asks_for_one(tmp_path: Path) -> None:
    assert "2 different models" in await fault(put(tmp_path, "a.gguf", "b.gguf"))


@pytest.mark.attack("traversal")
@pytest.mark.parametrize("path", ["", "models/m.gguf", "./m", "~/m.gguf", "/a\0b"])
async def test_a_path_that_is_not_absolute_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match="local_path must"):
        await resolve(path)


async def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert await fault(tmp_path / "m.gguf") == f"local_path {tmp_path}/m.gguf does not exist on this worker"
    put(tmp_path, "m-00001-of-00002.gguf")
    assert "the model's first part is m-00001-of-00002.gguf" in await fault(tmp_path / "m.gguf")
    (tmp_path / "bare").mkdir()
    assert "has no files" in await fault(tmp_path / "bare")


@pytest.mark.attack("traversal")
async def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with trio.fail_after(10):
        assert "neither a file nor a folder" in await fault(tmp_path / "pipe")


@pytest.mark.attack("flood")
async def test_a_disk_that_does_not_answer_costs_the_deadline() -> None:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/anything")
    with pytest.raises(NotFound, match="did not answer within 0 s"):
        await source_for(source.kind).resolve(source, SourceSettings(deadline=0.0))


@pytest.mark.parametrize("kind", [SourceKind.OLLAMA, SourceKind.MODEL_SCOPE])
def test_a_source_that_this_version_lacks_is_told(kind: SourceKind) -> None:
    try:
        source_for(kind)
    except Invalid as error:
        assert "cannot be fetched by this version; there are huggingface, local_path" in str(error)


async def test_names_that_are_no_text_are_told_where_they_matter_and_passed_over_where_not(
    tmp_path: Path,
) -> None:
    odd = os.fsdecode(b"caf\xe9.gguf")
    put(tmp_path / "two", "a.gguf", odd)
    assert "has 2 different models" in (said := await fault(tmp_path / "two")) and r"caf\xe9.gguf" in said
    assert said.isprintable()
    put(tmp_path / "one", odd, "readme.txt")
    said = await fault(tmp_path / "one")
    assert r"The file caf\xe9.gguf in" in said and "no UTF-8 text: rename it" in said
    put(tmp_path / "folder", "config.json", "model.safetensors", os.fsdecode(b"\xff.txt"))
    found = await resolve(tmp_path / "folder")
    assert [file.name for file in found.files] == ["config.json", "model.safetensors"]


async def test_what_lies_beside_a_model_does_not_confuse(tmp_path: Path) -> None:
    beside = (
        "imatrix.gguf",
        "m.imatrix.gguf",
        "imatrix_big.gguf",
        "LICENSE",
        "config.json",
        "README.md",
        "imatrix.bin",
    )
    found = await resolve(put(tmp_path, "m-Q4_0.gguf", *beside))
    assert (found.main, len(found.files)) == ("m-Q4_0.gguf", 1)


async def test_a_model_that_was_made_with_such_measurements_is_one(tmp_path: Path) -> None:
    found = await resolve(put(tmp_path, "m-imatrix-Q4_0.gguf", "imatrix.gguf"))
    assert found.main == "m-imatrix-Q4_0.gguf"


async def test_parts_in_capital_letters_are_parts(tmp_path: Path) -> None:
    parts = ["M-00001-OF-00002.GGUF", "M-00002-OF-00002.GGUF"]
    found = await resolve(put(tmp_path, *parts))
    assert (found.main, [file.name for file in found.files]) == (parts[0], parts)


async def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "disk", "deep/m.gguf")
    folder = put(tmp_path / "models", "README.md")
    (folder / "linked").symlink_to(elsewhere)
    found = await resolve(folder)
    assert found.main == "linked/deep/m.gguf"
    assert [file.size for file in found.files] == [len("deep/m.gguf")]


@pytest.mark.attack("traversal")
async def test_links_that_lead_back_up_or_on_and_on_are_not_followed(tmp_path: Path) -> None:
    folder = put(tmp_path / "models", "a/m.gguf")
    put(tmp_path, "outside.gguf")
    (folder / "self").symlink_to(folder)
    (folder / "a" / "up").symlink_to(tmp_path)
    (folder / "a" / "root").symlink_to("/")
    (folder / "twin").symlink_to(folder / "a")
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    last = folder
    for number in range(8):  # each leads to the next
        far = put(tmp_path / f"far{number}", f"far{number}.txt")
        (last / "on").symlink_to(far)
        last = far
    with trio.fail_after(30):
        found = await resolve(folder)
    names = [file.name for file in found.files]
    assert names in (["a/m.gguf"], ["twin/m.gguf"])  # one folder by two names


@pytest.mark.attack("flood")
async def test_a_linked_folder_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    folder = put(tmp_path / "models", "m.gguf")
    large = put(tmp_path / "large", *(f"{n}.gguf" for n in range(MOST_FILES)))
    (folder / "large").symlink_to(large)
    assert (await resolve(folder)).main == "m.gguf"
    put(large, "one-more.gguf")
    assert "more than 10000 files" in await fault(large)


async def test_a_link_in_a_circle_keeps_no_model_beside_it_from_being_found(tmp_path: Path) -> None:
    put(tmp_path, "m.gguf", "sub/b.txt")
    for folder in (tmp_path, tmp_path / "sub"):
        (folder / "circle.gguf").symlink_to("circle.gguf")
    assert (await resolve(tmp_path / "m.gguf")).main == "m.gguf"
    assert (await resolve(tmp_path)).main == "m.gguf"
    assert "is a link that leads nowhere: to circle.gguf" in await fault(tmp_path / "circle.gguf")


async def test_names_in_a_list_of_several_stay_one_line_of_bounded_length(tmp_path: Path) -> None:
    put(tmp_path, "new\nline.gguf", "turned\u202e.gguf", "x" * 240 + ".gguf")
    said = await fault(tmp_path)
    assert "new\\nline.gguf, turned\\u202e.gguf, xxx" in said
    assert said.isprintable() and "x" * 120 not in said
