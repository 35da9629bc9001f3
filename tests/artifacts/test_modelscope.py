"""A repository of ModelScope is listed by its API, fetched in ranges over its redirect, and checked by its hashes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.artifacts.fetch import FetchRules
from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.artifacts.listing import Listing
from gpustack.artifacts.source import ModelScopeAccess, SourceSettings, source_for
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import FileFormat
from gpustack.errors import (
    BadRequest,
    Forbidden,
    GpustackError,
    Invalid,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from tests.fakes.modelscope import ModelScopeSite, running_modelscope
from tests.models import make_tiny_llm

WEIGHTS = bytes(range(256)) * 1024
REPO = {
    "README.md": b"#",
    ".gitattributes": b"*",
    "configuration.json": b"{}",
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickled",
    "modeling.py": b"print()",
    "sub folder/tokenizer+1.json": b"{}",
}


@pytest.fixture
def site() -> Iterator[ModelScopeSite]:
    with running_modelscope() as running:
        running.add("me/m", REPO)
        yield running


def named(repo: str, path: str | None = None, revision: str | None = None) -> ModelSource:
    return ModelSource(
        kind=SourceKind.MODEL_SCOPE,
        model_scope_model_id=repo,
        model_scope_file_path=path,
        revision=revision,
    )


async def resolve(site: ModelScopeSite, source: ModelSource, token: str | None = None) -> Listing:
    settings = SourceSettings(
        model_scope=ModelScopeAccess(endpoint=site.url, token=token), token="hf_of_another_hub"
    )
    with trio.fail_after(60):
        return await source_for(source.kind).resolve(source, settings)


async def test_a_repository_is_listed_with_what_an_engine_reads_of_it(site: ModelScopeSite) -> None:
    found = await resolve(site, named("me/m"))
    assert (found.folder, found.main) == ("model_scope/me/m", None)
    assert [file.name for file in found.files] == [
        "config.json",
        "configuration.json",
        "model.safetensors",
        "sub folder/tokenizer+1.json",
    ]
    assert found.file("model.safetensors").size == len(WEIGHTS)
    assert all(file.sha256 for file in found.files)
    assert not any(came for _, _, came in site.log)  # the token of the other hub is not for this one


async def test_its_files_come_in_ranges_over_the_redirect_and_are_checked(
    site: ModelScopeSite, tmp_path: Path
) -> None:
    site.private["me/m"] = "ms-token"
    access = ModelScopeAccess(endpoint=site.url, token="ms-token")
    rules = FetchRules(segments=4, segment_size=64 << 10)
    cache = Cache(tmp_path, random.Random(1), CacheSettings(model_scope=access, rules=rules))
    found = await cache.ensure(named("me/m"))
    assert found.main_path == str(tmp_path / "model_scope/me/m")
    assert await (trio.Path(found.main_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert await (trio.Path(found.main_path) / "sub folder/tokenizer+1.json").read_bytes() == b"{}"
    assert len({wanted for path, wanted, _ in site.log if path.startswith("/oss")}) > 2
    site.log.clear()
    assert await cache.ensure(named("me/m")) == found
    assert site.log == []


async def test_a_file_that_is_another_than_announced_is_refused(site: ModelScopeSite, tmp_path: Path) -> None:
    access = ModelScopeAccess(endpoint=site.url)
    cache = Cache(tmp_path, random.Random(1), CacheSettings(model_scope=access))
    listed = await resolve(site, named("me/m"))
    site.files["me/m", "master"]["model.safetensors"] = WEIGHTS[:-1] + b"!"
    source = source_for(SourceKind.MODEL_SCOPE)
    assert (
        await source.resolve(named("me/m"), SourceSettings(model_scope=access))
    ).revision != listed.revision
    entry = site.files["me/m", "master"]
    site.hashes = False
    found = await cache.ensure(named("me/m"))
    assert (Path(found.main_path) / "model.safetensors").read_bytes() == entry["model.safetensors"]


async def test_facts_of_a_gguf_file_are_read_from_its_first_bytes(
    site: ModelScopeSite, tmp_path: Path
) -> None:
    whole = make_tiny_llm(tmp_path / "tiny.gguf").read_bytes()
    site.add("me/g", {"tiny-Q8_0.gguf": whole, "README.md": b"#"})
    reader = FactsReader(
        clock=trio.current_time, rng=random.Random(1), model_scope=ModelScopeAccess(endpoint=site.url)
    )
    facts = await reader.read(named("me/g", "*Q8_0*"))
    assert (facts.format, facts.architecture, facts.file_size) == (FileFormat.GGUF, "llama", len(whole))


async def test_a_revision_has_a_folder_of_its_own(site: ModelScopeSite) -> None:
    site.add("me/m", {"config.json": b"{ }", "model.safetensors": b"x"}, revision="v1")
    found = await resolve(site, named("me/m", revision="v1"))
    assert found.folder == "model_scope/me/m@v1"
    assert {file.size for file in found.files} == {3, 1}


async def test_a_private_repository_needs_the_token(site: ModelScopeSite) -> None:
    site.private["me/m"] = "ms-token"
    with pytest.raises(NotFound, match=r"no repository me/m on .*private: set MODELSCOPE_API_TOKEN"):
        await resolve(site, named("me/m"))
    with pytest.raises(NotFound, match="that MODELSCOPE_API_TOKEN may see"):
        await resolve(site, named("me/m"), token="wrong")
    found = await resolve(site, named("me/m"), token="ms-token")
    assert "ms-token" not in repr(found)


@pytest.mark.parametrize(
    ("status", "kind"), [(429, TooManyRequests), (500, Unavailable), (403, Forbidden), (404, NotFound)]
)
async def test_a_site_that_refuses_is_told(
    site: ModelScopeSite, status: int, kind: type[GpustackError]
) -> None:
    site.status = status
    with pytest.raises(kind, match=r"me/m|too many requests"):
        await resolve(site, named("me/m"))


@pytest.mark.attack("hub")
@pytest.mark.parametrize(
    "files",
    [
        None,
        {},
        [{}],
        [{"Path": 1, "Size": 1}],
        [{"Path": "a", "Size": -1}],
        [{"Path": "a", "Size": "1"}],
        ["a"],
    ],
)
async def test_something_that_is_no_modelscope_is_told(
    site: ModelScopeSite, files: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.fakes import modelscope

    def listed(handler: modelscope._Handler) -> None:
        handler.say(200, {"Code": 200, "Success": True, "Data": {"Files": files}})

    monkeypatch.setattr(modelscope._Handler, "do_GET", listed)
    with pytest.raises(Unavailable, match="does not answer like ModelScope: check MODELSCOPE_ENDPOINT"):
        await resolve(site, named("me/m"))


@pytest.mark.attack("traversal")
async def test_a_name_that_leads_out_of_the_folder_is_refused(site: ModelScopeSite) -> None:
    site.add("me/out", {"../../x.safetensors": b"x"})
    with pytest.raises(BadRequest, match="not allowed here"):
        await resolve(site, named("me/out"))


async def test_an_odd_name_of_a_file_that_nobody_wants_costs_nothing(site: ModelScopeSite) -> None:
    site.add("me/odd", {"model.safetensors": b"x", f"{'图' * 90}.png": b"x", "a\\b.md": b"x"})
    assert [file.name for file in (await resolve(site, named("me/odd"))).files] == ["model.safetensors"]


@pytest.mark.attack("traversal")
@pytest.mark.parametrize("repo", ["", "m", "a/b/c", "../x", "a/..", "a b/c", "http://x/y", "me/m?x"])
async def test_a_name_that_is_no_repository_is_refused_before_anybody_is_asked(
    site: ModelScopeSite, repo: str
) -> None:
    with pytest.raises(Invalid, match="model_scope_model_id"):
        await resolve(site, named(repo))
    assert site.log == []
