"""Model files that the server's records ask for: fetched once, told of, and removed."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.artifacts import cache
from gpustack.artifacts.cache import SPARE
from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.lifecycle import InstanceState as S
from tests.fakes.hub import Hub
from tests.worker.conftest import Start
from tests.worker.daemon import custom_model, instance_of, utc_now
from tests.worker.server import FakeServer

SIZE = 8_000_000


def on_hub(hub: Hub) -> ModelSource:
    hub.add("me/model", {"tiny.gguf": b"GGUF" + os.urandom(SIZE - 4)})
    return ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/model", huggingface_filename="tiny.gguf"
    )


def named(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


def file_of(source: ModelSource, key: int = 1, **fields: object) -> ModelFile:
    record = ModelFile(id=key, worker_id=1, source=source, source_index=source.index)
    return attrs.evolve(record, **fields)


async def test_a_file_a_user_asks_for_is_fetched(server: FakeServer, start: Start, hub: Hub) -> None:
    server.put(file_of(on_hub(hub)))
    await start(endpoint=hub.url)
    await server.until(lambda: server.file().state is FileState.READY)
    (path,) = server.file().resolved_paths
    assert trio.Path(path).suffix == ".gguf"
    assert (await trio.Path(path).stat()).st_size == SIZE == server.file().size


async def test_it_is_fetched_once_however_many_want_it(server: FakeServer, start: Start, hub: Hub) -> None:
    """Two instances and a user."""
    source = on_hub(hub)
    server.put(model := custom_model("--name", "{model_path}", source=source))
    server.put(instance_of(model, 1))
    server.put(instance_of(model, 2))
    server.put(file_of(source))
    await start(endpoint=hub.url)
    await server.until_state(S.RUNNING, 1)
    await server.until_state(S.RUNNING, 2)
    assert hub.full_downloads("*tiny.gguf") == 1
    assert len(server.assigned.files) == 1


async def test_how_far_it_is_is_told(server: FakeServer, start: Start, hub: Hub) -> None:
    source = on_hub(hub)
    hub.fail("hold", path="*tiny.gguf", at=SIZE // 2)
    server.put(model := custom_model("--name", "{model_path}", source=source))
    server.put(instance_of(model))
    await start(endpoint=hub.url)
    await server.until(lambda: (server.instance().download_progress or 0) > 10)
    assert server.instance().state is S.DOWNLOADING
    await server.until(lambda: (server.file().download_progress or 0) > 10)
    assert server.file().size == SIZE
    hub.release()
    await server.until_state(S.RUNNING)
    assert not server.refused


async def test_a_file_that_cannot_be_had_says_why_and_is_fetched_when_asked_again(
    server: FakeServer, start: Start, hub: Hub
) -> None:
    source = on_hub(hub)
    missing = attrs.evolve(source, huggingface_repo_id="me/other")
    server.put(file_of(missing))
    await start(endpoint=hub.url)
    await server.until(lambda: server.file().state is FileState.ERROR)
    assert "me/other" in server.file().state_message
    hub.add("me/other", {"tiny.gguf": b"GGUF" + os.urandom(100)})
    server.put(attrs.evolve(server.file(), state=FileState.DOWNLOADING, state_message=""))
    await server.until(lambda: server.file().state is FileState.READY)


async def test_a_deleted_file_is_removed_and_then_its_record_goes(
    server: FakeServer, start: Start, hub: Hub
) -> None:
    server.put(file_of(on_hub(hub)))
    await start(endpoint=hub.url)
    await server.until(lambda: server.file().state is FileState.READY)
    (path,) = server.file().resolved_paths
    server.put(attrs.evolve(server.file(), deleted_at=utc_now()))
    await server.until(lambda: not server.assigned.files)
    assert not await trio.Path(path).exists()


async def test_a_file_that_is_kept_on_deletion_only_loses_its_record(
    server: FakeServer, start: Start, hub: Hub
) -> None:
    server.put(file_of(on_hub(hub), cleanup_on_delete=False))
    await start(endpoint=hub.url)
    await server.until(lambda: server.file().state is FileState.READY)
    (path,) = server.file().resolved_paths
    server.put(attrs.evolve(server.file(), deleted_at=utc_now()))
    await server.until(lambda: not server.assigned.files)
    assert await trio.Path(path).exists()


@pytest.mark.parametrize("cleanup", [True, False])
async def test_a_file_deleted_while_it_is_fetched_is_fetched_no_further_and_leaves_nothing_half(
    server: FakeServer, start: Start, hub: Hub, tmp_path: Path, cleanup: bool
) -> None:
    hub_file = on_hub(hub)
    hub.fail("hold", path="*tiny.gguf", at=SIZE // 2)
    server.put(file_of(hub_file, cleanup_on_delete=cleanup))
    await start(endpoint=hub.url)
    await server.until(lambda: (server.file().download_progress or 0) > 10)
    assert named(tmp_path, "*.part")
    server.put(attrs.evolve(server.file(), deleted_at=utc_now()))
    await server.until(lambda: not server.assigned.files)
    hub.release()
    assert not named(tmp_path, "tiny.gguf*")


async def test_what_lies_at_a_local_path_is_never_removed(
    server: FakeServer, start: Start, tmp_path: Path
) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(own))
    server.put(file_of(source, deleted_at=utc_now(), state=FileState.READY, resolved_paths=(str(own),)))
    await start()
    await server.until(lambda: not server.assigned.files)
    assert own.exists()


async def test_a_removal_that_is_refused_is_said_and_not_tried_for_ever(
    server: FakeServer, start: Start, hub: Hub, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.gguf"
    elsewhere.write_bytes(b"GGUF")
    record = file_of(on_hub(hub), state=FileState.READY, resolved_paths=(str(elsewhere),))
    server.put(attrs.evolve(record, deleted_at=utc_now()))
    await start()
    await server.until(lambda: server.file().state is FileState.ERROR)
    assert "model cache" in server.file().state_message
    assert elsewhere.exists()
    assert len(server.file_reports) == 1


# --- room on the disk


def little(monkeypatch: pytest.MonkeyPatch, folder: Path, room: int) -> None:
    """The disk has ``room`` bytes for model files."""

    def free(place: Path) -> int:
        used = sum(path.stat().st_size for path in folder.rglob("*.gguf*") if path.is_file())
        return SPARE + room - used

    monkeypatch.setattr(cache, "free_bytes", free)


async def test_files_that_nobody_uses_make_room_where_that_is_wanted(
    server: FakeServer, start: Start, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little(monkeypatch, tmp_path, SIZE + SIZE // 2)
    old = on_hub(hub)
    server.put(file_of(old, last_used_at=utc_now()))
    await start(endpoint=hub.url, evicts=True)
    await server.until(lambda: server.file().state is FileState.READY)
    (path,) = server.file().resolved_paths
    hub.add("me/next", {"next.gguf": b"GGUF" + os.urandom(SIZE - 4)})
    new = attrs.evolve(old, huggingface_repo_id="me/next", huggingface_filename="next.gguf")
    server.put(file_of(new, 2))
    await server.until(lambda: server.file(2).state is FileState.READY)
    await server.until(lambda: 1 not in server.assigned.files)
    assert not await trio.Path(path).exists()
    assert server.file(2).state_message.startswith(
        "Made room by removing me/model/tiny.gguf (7.6 MiB, last used "
    )
    (told,) = [report.evicted for key, report in server.file_reports if key == 1 and report.evicted]
    assert told == "Removed to make room for me/next/next.gguf, which needed 3.8 MiB more"


@pytest.mark.parametrize(
    ("evicts", "fields", "said"),
    [
        (False, {}, "with gpustack files evict"),
        (True, {"pinned": True}, "removes nothing: there is nothing that nobody uses; 1 source is pinned"),
    ],
)
async def test_files_stay_where_they_are_pinned_or_nobody_asked(
    server: FakeServer,
    start: Start,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evicts: bool,
    fields: dict[str, object],
    said: str,
) -> None:
    little(monkeypatch, tmp_path, SIZE + SIZE // 2)
    old = on_hub(hub)
    server.put(file_of(old, **fields))
    await start(endpoint=hub.url, evicts=evicts)
    await server.until(lambda: server.file().state is FileState.READY)
    (path,) = server.file().resolved_paths
    hub.add("me/next", {"next.gguf": b"GGUF" + os.urandom(SIZE - 4)})
    new = attrs.evolve(old, huggingface_repo_id="me/next", huggingface_filename="next.gguf")
    server.put(file_of(new, 2))
    await server.until(lambda: server.file(2).state is FileState.ERROR)
    assert said in server.file(2).state_message and "needs 7.6 MiB more" in server.file(2).state_message
    assert await trio.Path(path).exists()


async def test_when_files_were_used_last_is_told(server: FakeServer, start: Start, hub: Hub) -> None:
    source = on_hub(hub)
    server.put(file_of(source))
    await start(endpoint=hub.url)
    await server.until(lambda: server.file().state is FileState.READY)
    assert server.file().last_used_at is None
    server.put(model := custom_model("--name", "{model_path}", source=source))
    server.put(instance_of(model))
    await server.until_state(S.RUNNING)
    await server.until(lambda: server.file().last_used_at is not None)
    began = server.file().last_used_at
    server.change(deleted_at=utc_now())
    await server.until(lambda: server.file().last_used_at != began)
