"""A worker takes model files from another one before the hub, and gives its own to nobody without a ticket."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.domain.artifact import FileState, ModelSource, SourceKind
from gpustack.domain.report import FileHolder
from gpustack.identity.file_ticket import LIFETIME, issue_ticket, reader_of
from gpustack.worker import file_server
from tests.fakes.hub import Hub
from tests.worker.conftest import Start
from tests.worker.daemon import Daemon, ask, utc_now
from tests.worker.server import FORWARD_KEY, FakeServer
from tests.worker.test_model_file import file_of

SIZE = 8_000_000
BODY = b"GGUF" + random.Random(5).randbytes(SIZE - 4)
DIGEST = hashlib.sha256(BODY).hexdigest()
SOURCE = ModelSource(
    kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/model", huggingface_filename="tiny.gguf"
)


@attrs.define
class Pair:
    """A worker ``giver`` with a server of its own, and the server of another one that is told of it."""

    giver: Daemon
    giver_server: FakeServer
    server: FakeServer

    def holder(self, **fields: object) -> FileHolder:
        ticket = issue_ticket(FORWARD_KEY, 1, utc_now().timestamp())
        made = FileHolder(name="giver", host="127.0.0.1", port=self.giver.port, ticket=ticket)
        return attrs.evolve(made, **fields)


@pytest.fixture
async def pair(nursery: trio.Nursery, server: FakeServer, start: Start, hub: Hub, tmp_path: Path) -> Pair:
    hub.add("me/model", {"tiny.gguf": BODY})
    other = FakeServer()
    await other.start(nursery)
    giver = await Daemon(server=other, folder=tmp_path / "giver", endpoint=hub.url).start(nursery)
    return Pair(giver, other, server)


async def given(pair: Pair) -> None:
    """The giver has the file."""
    pair.giver_server.put(file_of(SOURCE))
    await pair.giver_server.until(lambda: pair.giver_server.file().state is FileState.READY)


async def fetched(pair: Pair) -> None:
    await pair.server.until(lambda: pair.server.file().state is FileState.READY)
    (path,) = pair.server.file().resolved_paths
    assert await trio.Path(path).read_bytes() == BODY


async def test_what_a_worker_has_does_not_come_from_the_hub_again(
    pair: Pair, server: FakeServer, start: Start, hub: Hub
) -> None:
    await given(pair)
    hub.log.clear()
    server.holders = [pair.holder()]
    server.put(file_of(SOURCE))
    await start(endpoint=hub.url)
    await fetched(pair)
    assert hub.bodies() == []
    assert server.file().fetched_from == "giver"
    assert server.asked_for_holders == 1


async def test_what_is_still_coming_to_a_worker_is_passed_on_as_it_comes(
    pair: Pair, server: FakeServer, start: Start, hub: Hub
) -> None:
    """Two that begin together fetch it from the hub once."""
    hub.fail("hold", path="*tiny.gguf", at=SIZE // 2)
    server.holders = [pair.holder(fetching=True)]
    server.put(file_of(SOURCE))
    await start(endpoint=hub.url)
    await server.until(lambda: server.asked_for_holders == 1)  # it asks before the other has begun
    pair.giver_server.put(file_of(SOURCE))
    await server.until(lambda: (server.file().download_progress or 0) > 30)
    hub.release()
    await fetched(pair)
    await pair.giver_server.until(lambda: pair.giver_server.file().state is FileState.READY)
    assert sum(request.sent for request in hub.bodies()) == SIZE
    assert (server.file().fetched_from, pair.giver_server.file().fetched_from) == ("giver", "hub")


async def test_when_a_worker_goes_away_midway_the_hub_gives_the_rest(
    pair: Pair, server: FakeServer, start: Start, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await given(pair)
    hub.log.clear()
    stopped = trio.Event()
    whole = file_server._taken

    async def some(exchange: object, block: bytes) -> bool:
        if stopped.is_set():
            return False  # the answer is left unfinished
        stopped.set()
        return await whole(exchange, block)  # type: ignore[arg-type]

    monkeypatch.setattr(file_server, "_taken", some)
    server.holders = [pair.holder()]
    server.put(file_of(SOURCE))
    await start(endpoint=hub.url)
    await fetched(pair)
    came = sum(request.sent for request in hub.bodies())
    assert 0 < came < SIZE  # what the worker gave was not fetched again


@pytest.mark.parametrize("fault", ["nobody", "ticket", "absent", "corrupt"])
async def test_a_worker_that_cannot_give_it_costs_nothing_but_the_question(
    pair: Pair, server: FakeServer, start: Start, hub: Hub, fault: str, free_port: int
) -> None:
    if fault != "absent":
        await given(pair)
    holder = pair.holder()
    if fault == "nobody":
        holder = attrs.evolve(holder, port=free_port)
    if fault == "ticket":
        holder = attrs.evolve(holder, ticket=issue_ticket("another key", 1, utc_now().timestamp()))
    if fault == "corrupt":
        spoil(pair)
    server.holders = [holder]
    server.put(file_of(SOURCE))
    await start(endpoint=hub.url)
    await fetched(pair)
    assert server.file().fetched_from == "hub"


@contextlib.contextmanager
def same_times(pair: Pair) -> Iterator[Path]:
    """The giver's file; it may be altered within the block without a trace in its times."""
    path = Path(pair.giver_server.file().resolved_paths[0])
    before = path.stat()
    yield path
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def spoil(pair: Pair) -> None:
    """A disk error: the file has other bytes than were verified."""
    with same_times(pair) as path, path.open("r+b") as target:
        target.seek(SIZE // 2)
        target.write(b"!!!!")


# --- who may read what


async def read(
    pair: Pair, path: str, *, key: str | None = None, wanted: str = "bytes=0-9"
) -> tuple[int, bytes]:
    ticket = issue_ticket(FORWARD_KEY, 1, utc_now().timestamp()) if key is None else key
    headers = {"authorization": f"Bearer {ticket}", "range": wanted}
    return await ask(pair.giver.port, path, headers=headers)


async def test_a_range_of_a_file_is_read_with_a_ticket(pair: Pair) -> None:
    await given(pair)
    assert await read(pair, f"/modelFiles/{DIGEST}") == (206, BODY[:10])
    assert await read(pair, f"/modelFiles/{DIGEST}", wanted=f"bytes={SIZE - 3}-{SIZE + 90}") == (
        206,
        BODY[-3:],
    )


@pytest.mark.attack("worker")
@pytest.mark.parametrize("key", ["", "wrong", FORWARD_KEY, "gpustack_files_1_99999999999_" + "0" * 64])
async def test_without_a_ticket_nothing_is_read(pair: Pair, key: str) -> None:
    await given(pair)
    assert (await read(pair, f"/modelFiles/{DIGEST}", key=key))[0] == 401


@pytest.mark.attack("worker")
async def test_a_ticket_opens_nothing_but_model_files(pair: Pair) -> None:
    await given(pair)
    for path in ("/proxy/v1/models", "/serveLogs/1", "/run", "/modelFacts"):
        assert (await read(pair, path))[0] == 401


@pytest.mark.attack("traversal")
@pytest.mark.parametrize(
    "name", ["", "etc/passwd", "../../etc/passwd", "%2e%2e/x", "/etc/passwd", "0" * 64, DIGEST.upper()]
)
async def test_only_files_of_the_cache_are_found(pair: Pair, name: str) -> None:
    await given(pair)
    assert (await read(pair, f"/modelFiles/{name}"))[0] in (400, 404)


@pytest.mark.attack("traversal")
async def test_a_file_that_was_replaced_by_a_link_is_not_given(pair: Pair, tmp_path: Path) -> None:
    await given(pair)
    (tmp_path / "secret").write_bytes(BODY)
    with same_times(pair) as path:
        path.unlink()
        path.symlink_to(tmp_path / "secret")
    assert (await read(pair, f"/modelFiles/{DIGEST}"))[0] == 404


@pytest.mark.parametrize("wanted", ["", "bytes=5", "bytes=9-5", "bytes=0-1,3-4", "bytes=-5", "lines=0-9"])
async def test_what_is_no_single_range_is_refused(pair: Pair, wanted: str) -> None:
    await given(pair)
    assert (await read(pair, f"/modelFiles/{DIGEST}", wanted=wanted))[0] == 400


@pytest.mark.attack("flood")
async def test_no_more_is_served_at_once_than_leaves_room_for_requests(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await given(pair)
    monkeypatch.setattr(file_server, "_MOST_STREAMS", 0)
    assert (await read(pair, f"/modelFiles/{DIGEST}"))[0] == 503


def test_a_ticket_is_of_one_key_and_ends() -> None:
    ticket = issue_ticket("a key", 7, 1000.0)
    assert reader_of(ticket, "a key", 1000.0) == 7
    assert reader_of(ticket, "a key", 1000.0 + LIFETIME) is None
    assert reader_of(ticket, "another key", 1000.0) is None
    assert reader_of(ticket.replace("_7_", "_8_"), "a key", 1000.0) is None
    assert reader_of("", "a key", 0.0) is None
