"""Files that the hub keeps in Xet come by its client, checked; where that fails they come plainly."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.domain.artifact import ModelSource, SourceKind
from tests.fakes.cas import Cas, running_cas
from tests.fakes.hub import Hub

CONTENT = os.urandom(11 << 20)  # the hub calls files large from some size on
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = ModelSource(
    kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/model", huggingface_filename="model.gguf"
)


@pytest.fixture
def cas(hub: Hub) -> Iterator[Cas]:
    hub.add("me/model", {"model.gguf": CONTENT})
    with running_cas() as cas:
        hub.xet = cas.headers
        yield cas


async def fetched(tmp_path: Path, hub: Hub, *, xet: bool = True) -> bytes:
    cache = Cache(tmp_path / "cache", random.Random(1), CacheSettings(endpoint=hub.url, xet=xet))
    with trio.fail_after(60):
        files = await cache.ensure(SOURCE)
    found = trio.Path(files.main_path)
    assert {path.name for path in await found.parent.iterdir()} == {"model.gguf"}
    return await found.read_bytes()


async def test_a_file_in_xet_comes_from_there(tmp_path: Path, hub: Hub, cas: Cas) -> None:
    cas.files[SHA256] = CONTENT
    assert await fetched(tmp_path, hub) == CONTENT
    assert cas.log.count("block") == 1
    assert not hub.bodies("*model.gguf")


async def test_without_the_option_nobody_asks_there(tmp_path: Path, hub: Hub, cas: Cas) -> None:
    cas.files[SHA256] = CONTENT
    assert await fetched(tmp_path, hub, xet=False) == CONTENT
    assert cas.log == []


async def test_a_file_that_is_not_in_xet_comes_plainly(tmp_path: Path, hub: Hub, cas: Cas) -> None:
    assert await fetched(tmp_path, hub) == CONTENT
    assert hub.bodies("*model.gguf")


@pytest.mark.attack("hub")
async def test_wrong_bytes_from_there_are_not_kept(
    tmp_path: Path, hub: Hub, cas: Cas, caplog: pytest.LogCaptureFixture
) -> None:
    cas.files[SHA256] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    assert await fetched(tmp_path, hub) == CONTENT
    assert "Not fetched by Xet but as a plain file: name=model.gguf reason=" in caplog.text
    assert hub.bodies("*model.gguf")


async def test_a_stop_ends_the_client_and_leaves_nothing(tmp_path: Path, hub: Hub, cas: Cas) -> None:
    cas.files[SHA256] = CONTENT
    cas.holds = True
    cache = Cache(tmp_path / "cache", random.Random(1), CacheSettings(endpoint=hub.url, xet=True))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.ensure, SOURCE)
            await trio.to_thread.run_sync(cas.held.wait, 30)
            nursery.cancel_scope.cancel()
    cas.released.set()
    folder = tmp_path / "cache/huggingface/me/model"
    assert not list(await trio.Path(folder).iterdir())
