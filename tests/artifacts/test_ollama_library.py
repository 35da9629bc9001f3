"""Models of an Ollama library: listed by their manifest, fetched in ranges, checked by their hash."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.artifacts.fetch import FetchRules
from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.artifacts.listing import Listing
from gpustack.artifacts.source import SourceSettings, source_for
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import (
    BadRequest,
    Forbidden,
    GpustackError,
    Invalid,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from tests.fakes.registry import LICENCE, MODEL, PROJECTOR, Registry, running_registry

WEIGHTS = b"GGUF" + bytes(range(256)) * 1024


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        running.add("library/small:latest", {LICENCE: b"Do as you like.", MODEL: WEIGHTS})
        running.add("me/sees:8b", {MODEL: WEIGHTS, PROJECTOR: b"GGUF of eyes"})
        yield running


def named(name: str) -> ModelSource:
    return ModelSource(kind=SourceKind.OLLAMA, ollama_library_model_name=name)


async def resolve(registry: Registry, name: str) -> Listing:
    return await source_for(SourceKind.OLLAMA).resolve(named(name), SourceSettings(library=registry.url))


@pytest.mark.parametrize("name", ["small", "small:latest", "library/small"])
async def test_a_model_is_listed_by_the_names_that_people_write(registry: Registry, name: str) -> None:
    found = await resolve(registry, name)
    assert (found.folder, found.main, found.mmproj) == ("ollama/library/small/latest", "model.gguf", None)
    assert [(file.name, file.size) for file in found.files] == [("model.gguf", len(WEIGHTS))]
    assert found.revision == found.files[0].sha256


async def test_its_files_come_in_ranges_over_the_redirect_and_are_checked(
    registry: Registry, tmp_path: Path
) -> None:
    rules = FetchRules(segments=4, segment_size=64 << 10)
    cache = Cache(tmp_path, random.Random(1), CacheSettings(library=registry.url, rules=rules))
    found = await cache.ensure(named("me/sees:8b"))
    assert found.main_path == str(tmp_path / "ollama/me/sees/8b/model.gguf")
    assert found.mmproj_path == str(tmp_path / "ollama/me/sees/8b/mmproj.gguf")
    assert await trio.Path(found.main_path).read_bytes() == WEIGHTS
    assert len({wanted for path, wanted in registry.log if path.startswith("/storage")}) > 2
    registry.log.clear()
    assert await cache.ensure(named("me/sees:8b")) == found
    assert registry.log == []


async def test_a_blob_that_is_another_is_refused(registry: Registry, tmp_path: Path) -> None:
    digest = next(digest for digest, content in registry.blobs.items() if content == WEIGHTS)
    registry.blobs[digest] = WEIGHTS[:-1] + b"!"
    cache = Cache(tmp_path, random.Random(1), CacheSettings(library=registry.url))
    with pytest.raises(GpustackError, match=r"model\.gguf"):
        await cache.ensure(named("small"))
    assert not (tmp_path / "ollama/library/small/latest/model.gguf").exists()


async def test_its_header_is_read_from_afar(registry: Registry, tiny_model: Path) -> None:
    registry.add("library/tiny:latest", {MODEL: await trio.Path(tiny_model).read_bytes()})
    reader = FactsReader(clock=trio.current_time, rng=random.Random(1), library=registry.url)
    assert (await reader.read(named("tiny"))).is_complete
    assert not any(wanted is None for path, wanted in registry.log if path.startswith("/storage"))


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("absent", NotFound, "There is no model absent in the Ollama library"),
        ("small:other", NotFound, "There is no model small:other"),
        ("", Invalid, "must be"),
        ("a/b/c", Invalid, "must be"),
        ("../small", Invalid, "must be"),
        ("library/small:..", Invalid, "must be"),
        ("sm all", Invalid, "must be"),
    ],
)
async def test_what_is_not_there_or_no_name_is_told(
    registry: Registry, name: str, error: type[GpustackError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await resolve(registry, name)


@pytest.mark.parametrize(
    ("status", "error"), [(401, Forbidden), (403, Forbidden), (429, TooManyRequests), (500, Unavailable)]
)
async def test_a_registry_that_refuses_is_told(
    registry: Registry, status: int, error: type[GpustackError]
) -> None:
    registry.status = status
    with pytest.raises(error, match="Ollama library"):
        await resolve(registry, "small")


async def test_a_registry_that_is_not_there_says_what_to_set(free_port: int) -> None:
    with pytest.raises(Unavailable, match="set --ollama-library-base-url to a mirror"):
        await resolve(Registry(f"http://127.0.0.1:{free_port}"), "small")


async def test_what_cannot_be_served_by_itself_is_told(registry: Registry) -> None:
    registry.add("me/adapter:latest", {MODEL: WEIGHTS, "application/vnd.ollama.image.adapter": b"x"})
    registry.add("me/text:latest", {LICENCE: b"x"})
    for name, words in (("me/adapter", "adapter to another model"), ("me/text", "has no GGUF file")):
        with pytest.raises(BadRequest, match=words):
            await resolve(registry, name)


LAYER = {"mediaType": MODEL, "digest": "sha256:" + "0" * 64, "size": 4}


@pytest.mark.attack("hub")
@pytest.mark.parametrize(
    "manifest",
    [
        b"<html>",
        b"[]",
        b"null",
        b"[" * 100_000,
        json.dumps({"layers": {}}).encode(),
        json.dumps({"layers": [LAYER] * 1001}).encode(),
        json.dumps({"layers": [None]}).encode(),
        json.dumps({"layers": [{**LAYER, "size": -1}]}).encode(),
        json.dumps({"layers": [{**LAYER, "size": True}]}).encode(),
        json.dumps({"layers": [{**LAYER, "size": 1 << 63}]}).encode(),
        json.dumps({"layers": [{**LAYER, "digest": "sha256:../../etc/passwd"}]}).encode(),
        json.dumps({"layers": [{**LAYER, "digest": 7}]}).encode(),
        b" " * (2 << 20),
    ],
)
async def test_a_manifest_that_lies_is_refused(registry: Registry, manifest: bytes) -> None:
    registry.manifests["library/small:latest"] = manifest
    with pytest.raises(Unavailable, match="--ollama-library-base-url"):
        await resolve(registry, "small")
