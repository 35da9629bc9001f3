"""Model files are fetched once however many ask, survive every end of the process, and are found again."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.cache import Cache, CacheSettings, DownloadProgress, LocalFiles
from gpustack.artifacts.disk import NoSpace
from gpustack.artifacts.fetch import FetchRules
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import Forbidden, Invalid, NotFound, Unavailable
from tests.child import child, environment, said
from tests.fakes.hub import Hub

KIB = 1024
BIG = random.Random(7).randbytes(600 * KIB)
RULES = FetchRules(segment_size=128 * KIB, block=16 * KIB, first_wait=0.001, longest_wait=0.01, attempts=4)
SOURCE = ModelSource(
    kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m", huggingface_filename="*Q4*.gguf"
)
FILES: dict[str, bytes | Path] = {
    "m-Q4-00001-of-00002.gguf": BIG,
    "m-Q4-00002-of-00002.gguf": b"rest",
    "mmproj-f16.gguf": b"proj",
    "m-Q8.gguf": b"eight",
}
SIZE = len(BIG) + 8

FETCHING = """
import sys, random, trio
from pathlib import Path
from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.artifacts.fetch import FetchRules
from gpustack.domain.artifact import ModelSource, SourceKind
root, url = sys.argv[1:]
source = ModelSource(
    kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m", huggingface_filename="*Q4*.gguf"
)
rules = FetchRules(segment_size=1 << 17, block=1 << 14, save_period=0.01)
cache = Cache(root=Path(root), rng=random.Random(1), settings=CacheSettings(endpoint=url, rules=rules, period=0.01))
print("ready", flush=True)
def hear(progress):
    print(progress.done, flush=True)
print(trio.run(lambda: cache.ensure(source, progress=hear)).main_path, flush=True)
"""


@pytest.fixture
def cache(hub: Hub, tmp_path: Path) -> Cache:
    hub.add("me/m", FILES)
    return make(hub, tmp_path / "cache")


def make(hub: Hub, root: Path) -> Cache:
    return Cache(
        root=root,
        rng=random.Random(1),
        settings=CacheSettings(endpoint=hub.url, rules=RULES, period=0.01),
    )


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def sent(hub: Hub) -> int:
    return sum(request.sent for request in hub.bodies())


async def test_a_source_comes_with_all_its_files(cache: Cache, hub: Hub) -> None:
    heard: list[DownloadProgress] = []
    found = await cache.ensure(SOURCE, progress=heard.append)
    folder = cache.root / "huggingface/me/m"
    assert found == LocalFiles(
        paths=tuple(str(folder / name) for name in sorted(FILES) if "Q8" not in name),
        main_path=str(folder / "m-Q4-00001-of-00002.gguf"),
        mmproj_path=str(folder / "mmproj-f16.gguf"),
        size=SIZE,
    )
    assert content(found.main_path) == BIG
    assert heard[-1] == DownloadProgress(done=SIZE, total=SIZE, origin="hub")
    assert heard[-1].percent == 100.0
    assert sent(hub) == SIZE
    assert cache._here == {} and cache._still_to_come == {}
    assert repr(cache) == f"<Cache {cache.root}: 0 files arriving, <FileLocks: 0 held, 0 waiting>>"


async def test_what_is_here_needs_no_network(cache: Cache, hub: Hub) -> None:
    first = await cache.ensure(SOURCE)
    hub.log.clear()
    again = make(hub, cache.root)
    heard: list[DownloadProgress] = []
    assert await again.ensure(SOURCE, progress=heard.append) == first
    assert hub.log == []
    assert [progress.percent for progress in heard] == [100.0]


async def test_a_file_removed_by_hand_is_fetched_again(cache: Cache, hub: Hub) -> None:
    first = await cache.ensure(SOURCE)
    await trio.Path(first.paths[1]).unlink()
    hub.log.clear()
    assert await cache.ensure(SOURCE) == first
    assert sent(hub) == len(b"rest")


async def test_a_file_altered_by_hand_is_fetched_again(cache: Cache, hub: Hub) -> None:
    first = await cache.ensure(SOURCE)
    await trio.Path(first.paths[1]).write_bytes(b"RUST")
    assert await cache.ensure(SOURCE) == first
    assert content(first.paths[1]) == b"rest"


async def test_a_right_file_put_there_by_hand_is_taken(cache: Cache, hub: Hub) -> None:
    path = cache.root / "huggingface/me/m/m-Q4-00001-of-00002.gguf"
    await trio.Path(path.parent).mkdir(parents=True)
    await trio.Path(path).write_bytes(BIG)
    assert (await cache.ensure(SOURCE)).main_path == str(path)
    assert sent(hub) == SIZE - len(BIG)


async def test_however_many_ask_it_is_fetched_once_and_all_hear_how_far_it_is(cache: Cache, hub: Hub) -> None:
    hub.fail("hold", path="m-Q4-00001*", at=100 * KIB)
    heard: list[list[DownloadProgress]] = [[] for _ in range(5)]
    midway = [trio.Event() for _ in heard]
    found: list[LocalFiles] = []

    async def ask(who: int) -> None:
        def hear(progress: DownloadProgress) -> None:
            heard[who].append(progress)
            if 0 < progress.done < SIZE:
                midway[who].set()

        found.append(await cache.ensure(SOURCE, progress=hear))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for who in range(5):
                nursery.start_soon(ask, who)
            for event in midway:
                await event.wait()
            hub.release()
    assert len(set(found)) == 1
    assert sent(hub) == SIZE
    assert all(mine[-1].percent == 100.0 for mine in heard)


async def test_when_the_first_who_asked_is_cancelled_the_next_goes_on(cache: Cache, hub: Hub) -> None:
    hub.fail("hold", path="m-Q4-00001*", at=100 * KIB)
    first = trio.CancelScope()
    begun = trio.Event()
    found: list[LocalFiles] = []

    def hear(progress: DownloadProgress) -> None:
        if progress.done >= 64 * KIB:
            begun.set()

    async def ask_first() -> None:
        with first:
            await cache.ensure(SOURCE, progress=hear)

    async def ask_second() -> None:
        found.append(await cache.ensure(SOURCE))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_first)
            await begun.wait()
            nursery.start_soon(ask_second)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
    assert content(found[0].main_path) == BIG
    assert sent(hub) < SIZE + len(BIG)


async def test_a_process_killed_in_the_middle_leaves_what_it_had_and_no_lock(cache: Cache, hub: Hub) -> None:
    hub.fail("hold", path="m-Q4-00001*", at=100 * KIB, times=1)
    sidecar = cache.root / "huggingface/me/m/m-Q4-00001-of-00002.gguf.part.json"
    with child(["-c", FETCHING, str(cache.root), hub.url], env=environment()) as process:
        assert said(process) == "ready"
        while int(said(process)) < 400 * KIB:
            pass
        with trio.fail_after(30):
            while not sidecar.exists():  # noqa: ASYNC110  # another process makes it
                await trio.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    hub.release()
    hub.log.clear()
    with trio.fail_after(60):
        found = await cache.ensure(SOURCE)
    assert content(found.main_path) == BIG
    assert sent(hub) < SIZE


async def test_two_processes_fetch_it_once(cache: Cache, hub: Hub) -> None:
    hub.fail("hold", path="m-Q4-00001*", at=100 * KIB)
    with child(["-c", FETCHING, str(cache.root), hub.url], env=environment()) as process:
        assert said(process) == "ready"
        await trio.to_thread.run_sync(hub.wait, lambda: hub.holding == 1)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache.ensure, SOURCE)
                await trio.to_thread.run_sync(hub.wait, lambda: _listings(hub) == 2)
                hub.release()
        while not (line := said(process)).startswith("/"):
            pass
    assert line == str(cache.root / "huggingface/me/m/m-Q4-00001-of-00002.gguf")
    assert sent(hub) == SIZE


def _listings(hub: Hub) -> int:
    return sum(request.path == "/api/models/me/m" and request.complete for request in hub.log)


async def test_files_go_into_a_folder_of_the_users_choice(cache: Cache, tmp_path: Path) -> None:
    found = await cache.ensure(SOURCE, local_dir=str(tmp_path / "mine"))
    assert found.main_path == str(tmp_path / "mine/m-Q4-00001-of-00002.gguf")
    assert content(found.main_path) == BIG
    with pytest.raises(Invalid, match="local_dir must be an absolute path"):
        await cache.ensure(SOURCE, local_dir="mine")


@pytest.mark.attack("worker")
@pytest.mark.parametrize("place", ["", "mine", "cache/../mine"])
async def test_only_what_arrives_in_the_cache_itself_is_shared(
    cache: Cache, hub: Hub, tmp_path: Path, nursery: trio.Nursery, place: str
) -> None:
    hub.fail("hold", path="m-Q4-00001*", at=100 * KIB)
    local_dir = str(tmp_path / place) if place else None
    nursery.start_soon(lambda: cache.ensure(SOURCE, local_dir=local_dir))
    await trio.to_thread.run_sync(hub.wait, lambda: hub.holding == 1)
    found = await cache.shared(hashlib.sha256(BIG).hexdigest())
    assert (found is None) is bool(place)
    hub.release()


async def test_a_local_path_is_used_where_it_lies(cache: Cache, tiny_model: Path, hub: Hub) -> None:
    heard: list[DownloadProgress] = []
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(tiny_model))
    found = await cache.ensure(source, progress=heard.append)
    assert found == LocalFiles(
        paths=(str(tiny_model),), main_path=str(tiny_model), size=len(content(str(tiny_model)))
    )
    assert heard[-1].percent == 100.0
    assert not (cache.root / "huggingface").exists()
    gone = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=f"{tiny_model}.gone")
    with pytest.raises(NotFound, match="does not exist on this worker"):
        await cache.ensure(gone)


async def test_too_little_space_is_told_before_the_first_byte(cache: Cache, hub: Hub, tmp_path: Path) -> None:
    hollow = tmp_path / "hollow.gguf"
    with hollow.open("wb") as file:
        file.truncate(1 << 43)
    hub.add("me/m", {"big-Q4.gguf": hollow})
    said = r"me/m/\*Q4\*\.gguf needs 8\.0 TiB more in .* are free and 256\.0 MiB are kept .*--cache-dir"
    with pytest.raises(NoSpace, match=said):
        await cache.ensure(SOURCE)
    assert hub.bodies() == []
    assert cache._still_to_come == {}


async def test_a_gated_repository_says_what_to_set(cache: Cache, hub: Hub) -> None:
    hub.add("me/m", FILES, gated=True)
    with pytest.raises(Forbidden, match="--huggingface-token"):
        await cache.ensure(SOURCE)
    hub.tokens["hf_secret"] = {"*"}
    assert content((await cache.ensure(SOURCE, token="hf_secret")).main_path) == BIG


async def test_a_cache_that_cannot_be_written_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.add("me/m", FILES)
    (tmp_path / "cache").write_text("")
    with pytest.raises(Unavailable, match="cannot be kept in"):
        await make(hub, tmp_path / "cache").ensure(SOURCE)


async def test_removed_files_are_gone_and_can_be_fetched_again(cache: Cache, hub: Hub) -> None:
    first = await cache.ensure(SOURCE)
    await cache.remove(first.paths)
    assert [path.name for path in cache.root.iterdir()] == [".gpustack"]
    await cache.remove(first.paths)
    assert await cache.ensure(SOURCE) == first


@pytest.mark.attack("traversal")
@pytest.mark.parametrize("whole", [True, False])
async def test_what_is_half_here_goes_when_it_is_not_wanted_any_more(
    cache: Cache, hub: Hub, whole: bool
) -> None:
    """The first part is complete by then, of the second some bytes are here."""
    hub.fail("hold", path="m-Q4-00002*", at=2)
    folder = cache.root / "huggingface/me/m"
    first, second = folder / "m-Q4-00001-of-00002.gguf", folder / "m-Q4-00002-of-00002.gguf.part"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.ensure, SOURCE)
            while not (hub.holding and first.exists() and second.exists()):  # noqa: ASYNC110  # threads' doings
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    hub.release()
    assert second.exists()
    await cache.drop_unfinished(SOURCE, whole=whole)
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert left == (set() if whole else {"m-Q4-00001-of-00002.gguf"})
    await cache.ensure(SOURCE)
    await cache.drop_unfinished(SOURCE, whole=True)
    assert (folder / "m-Q4-00001-of-00002.gguf").exists(), "where all has come, nothing is unfinished"


async def test_what_somebody_else_fetches_is_left_to_them(cache: Cache, hub: Hub) -> None:
    hub.fail("hold", path="m-Q4-00001*", at=10)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.ensure, SOURCE)
            while not (hub.holding and list(cache.root.rglob("*.part"))):  # noqa: ASYNC110  # threads' doings
                await trio.sleep(0.01)
            await make(hub, cache.root).drop_unfinished(SOURCE, whole=True)
            assert list(cache.root.rglob("*.part"))
            hub.release()


async def test_nothing_outside_is_removed(cache: Cache, tmp_path: Path, tiny_model: Path) -> None:
    mine = tmp_path / "mine"
    found = await cache.ensure(SOURCE, local_dir=str(mine))
    for path in (str(tiny_model), found.main_path, f"{cache.root}/../mine/mmproj-f16.gguf"):
        with pytest.raises(Forbidden, match="does not lie within the model cache"):
            await cache.remove([path])
    await cache.remove(found.paths, local_dir=str(mine))
    assert list(mine.iterdir()) == []
    assert content(str(tiny_model))


def test_the_root_must_be_absolute() -> None:
    with pytest.raises(Invalid, match="absolute"):
        Cache(root=Path("cache"), rng=random.Random(1))
