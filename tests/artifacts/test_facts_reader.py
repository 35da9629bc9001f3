"""What a model is, is known from the first megabytes of its files, wherever they lie."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import FileFormat
from gpustack.errors import BadRequest, NotFound, Unavailable
from tests.fakes.hub import Hub
from tests.models import make_hollow, split_gguf
from tests.policy.shapes import facts_of


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def reader(hub: Hub | None = None, clock: Clock | None = None) -> FactsReader:
    return FactsReader(
        clock=clock or Clock(), rng=random.Random(1), endpoint=None if hub is None else hub.url, deadline=60.0
    )


def local(path: Path) -> ModelSource:
    return ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(path))


def remote(pattern: str | None = None) -> ModelSource:
    return ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m", huggingface_filename=pattern)


@pytest.mark.parametrize("shape", ["gemma-3-4b", "llama-3.3-70b"])
async def test_forty_gigabytes_are_known_from_a_few_megabytes(hub: Hub, tmp_path: Path, shape: str) -> None:
    path = tmp_path / "m-Q4_K_M.gguf"
    size = make_hollow(path, shape)
    hub.add("me/m", {path.name: path, "mmproj-f16.gguf": b"projector"})
    with trio.fail_after(60):
        far = await reader(hub).read(remote("*Q4_K_M*"))
        near = await reader().read(local(path))
    assert far.tensors == near.tensors == facts_of(shape).tensors
    assert (far.file_size, far.projector_size) == (size, len(b"projector"))
    assert (near.file_size, near.projector_size) == (size, None)
    fetched = sum(request.sent for request in hub.bodies())
    assert fetched < 16 << 20
    assert len(hub.bodies()) <= 3


async def test_the_shards_of_a_model_are_read_together(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    whole = await reader().read(local(tiny_model))
    parts = split_gguf(tiny_model, tmp_path, 3)
    hub.add("me/m", {part.name: part for part in parts})
    for facts in (await reader().read(local(parts[0])), await reader(hub).read(remote("*.gguf"))):
        assert facts.split_count == 3
        assert facts.tensors == whole.tensors
        assert facts.file_size == sum(part.stat().st_size for part in parts)


async def test_a_source_is_asked_once_and_later_only_whether_it_changed(hub: Hub, tiny_model: Path) -> None:
    hub.add("me/m", {"m.gguf": tiny_model})
    clock = Clock()
    facts = reader(hub, clock)
    first = await facts.read(remote("m.gguf"))
    asked = len(hub.log)
    assert await facts.read(remote("m.gguf")) is first
    assert len(hub.log) == asked
    clock.now = 601.0
    assert await facts.read(remote("m.gguf")) is first
    assert len(hub.log) == asked + 1
    clock.now = 1300.0
    hub.add("me/m", {"m.gguf": tiny_model, "README.md": b""})
    assert await facts.read(remote("m.gguf")) == first
    assert len(hub.log) > asked + 3
    assert repr(facts) == "<FactsReader: 1 sources known>"


async def test_a_local_file_is_read_again_when_it_was_replaced(
    tiny_model: Path, embedder_model: Path, tmp_path: Path
) -> None:
    facts = reader()
    path = tmp_path / "m.gguf"
    path.symlink_to(tiny_model)
    assert (await facts.read(local(path))).architecture == "llama"
    path.unlink()
    path.symlink_to(embedder_model)
    assert (await facts.read(local(path))).architecture == "bert"


async def test_only_so_many_sources_are_remembered(tiny_model: Path) -> None:
    facts = reader()
    facts.most = 2
    for projector in ("a", "b", "c"):
        await facts.read(local(tiny_model), projector=projector)
    assert repr(facts) == "<FactsReader: 2 sources known>"


async def test_safetensors_without_a_configuration_tell_their_size(hub: Hub) -> None:
    weights = struct.pack("<Q", 2) + b"{}" + b"1234"
    hub.add("me/m", {"model.safetensors": weights, "tokenizer.json": b"{}"})
    facts = await reader(hub).read(remote())
    assert (facts.format, facts.file_size) == (FileFormat.SAFETENSORS, 16)
    assert not facts.is_complete


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"<html>not a model</html>", "it is an HTML page that was saved under this name"),
        (b"", "it is empty, or nearly so: download it again"),
        (b"GGUF\3\0\0\0\1", "ends within"),
    ],
)
async def test_a_file_that_is_no_model_is_told(hub: Hub, tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    hub.add("me/m", {"m.gguf": content})
    with trio.fail_after(30):
        for source in (local(tmp_path / "m.gguf"), remote("m.gguf")):
            with pytest.raises(
                BadRequest, match=f"The header of .*m.gguf cannot be read: it .*{word}|{word}"
            ):
                await reader(hub).read(source)


@pytest.mark.attack("parser")
async def test_a_file_that_lacks_its_end_is_told(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    whole = await trio.Path(tiny_model).read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[:-1])
    hub.add("me/m", {"m.gguf": whole[:-1]})
    with trio.fail_after(30):
        for source in (local(tmp_path / "m.gguf"), remote("m.gguf")):
            with pytest.raises(BadRequest, match=f"m.gguf is cut short: it has {len(whole) - 1} bytes of at"):
                await reader(hub).read(source)


async def test_a_path_of_another_machine_is_not_found() -> None:
    with pytest.raises(NotFound):
        await reader().read(local(Path("/no/such/m.gguf")))


async def test_a_hub_that_stumbles_is_asked_again_and_one_that_stays_down_is_told(
    hub: Hub, tiny_model: Path
) -> None:
    hub.add("me/m", {"m.gguf": tiny_model})
    hub.fail("refuse", path="m.gguf", times=1)
    hub.fail("reset", path="m.gguf", at=1000, times=1)
    with trio.fail_after(60):
        assert (await reader(hub).read(remote("m.gguf"))).architecture == "llama"
        hub.fail("refuse", path="m.gguf", times=100)
        with pytest.raises(Unavailable, match="answered 503"):
            await reader(hub).read(remote("m.gguf"))


async def test_a_server_without_ranges_is_read_as_far_as_needed(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    make_hollow(path, "llama-3.2-1b")
    hub.add("me/m", {"m.gguf": path})
    hub.fail("ignore_range", path="m.gguf", times=100)
    with trio.fail_after(60):
        assert (await reader(hub).read(remote("m.gguf"))).total_layers == 16
    assert sum(request.sent for request in hub.bodies()) < 64 << 20


async def test_a_clone_without_its_large_files_is_called_that(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4000000000\n"
    for name in ("m.gguf", "model.safetensors"):
        folder = tmp_path / Path(name).suffix[1:]
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / name).write_bytes(pointer)
        with pytest.raises(
            BadRequest, match=r"is a Git LFS pointer in place of the file: run 'git lfs pull'"
        ):
            await reader().read(local(folder))
