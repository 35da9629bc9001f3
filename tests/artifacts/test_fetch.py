"""A file arrives whole and right, whatever the network does meanwhile."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.artifacts.disk import CorruptFile
from gpustack.artifacts.fetch import FetchRules, fetch
from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.partial import kept_bytes, part_of
from gpustack.artifacts.peer import NO_PEERS, PeerGroup
from gpustack.errors import Forbidden, GpustackError, NotFound, TooManyRequests, Unavailable
from gpustack.remote.http import BadResponse, Timeouts, open_client
from tests.fakes.hub import Hub

KIB = 1024
BIG = random.Random(7).randbytes(900 * KIB)
RULES = FetchRules(segment_size=128 * KIB, block=16 * KIB, first_wait=0.001, longest_wait=0.01, attempts=4)
NAME = "m.gguf"


def announced(hub: Hub, content: bytes = BIG, name: str = NAME) -> RemoteFile:
    """Put ``content`` on the hub and return what a listing would tell of it."""
    commit = hub.add("me/m", {name: content})
    return RemoteFile(
        name=name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        url=f"{hub.url}/me/m/resolve/{commit}/{name}",
    )


async def bring(
    file: RemoteFile,
    target: Path,
    *,
    rules: FetchRules = RULES,
    stall: float = 20.0,
    on_progress: Callable[[int], None] = lambda done: None,
    peers: PeerGroup = NO_PEERS,
    origins: Counter[str] | None = None,
) -> bytes:
    with trio.fail_after(60):
        async with open_client(timeouts=Timeouts(stall=stall)) as client:
            await fetch(
                file,
                target,
                client=client,
                rng=random.Random(1),
                rules=rules,
                on_progress=on_progress,
                peers=peers,
                origins=origins,
            )
        return await trio.Path(target).read_bytes()


def everything(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def litter(target: Path) -> list[str]:
    return [name for name in everything(target) if name != target.name]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "files" / NAME


async def test_a_file_comes_in_ranges_and_nothing_is_left_over(hub: Hub, target: Path) -> None:
    seen: list[int] = []
    assert await bring(announced(hub), target, on_progress=seen.append) == BIG
    assert litter(target) == []
    assert sum(request.sent for request in hub.bodies()) == len(BIG)
    assert {request.range for request in hub.bodies()} >= {"bytes=0-131071", "bytes=131072-262143"}
    assert (seen[0], seen[-1]) == (0, len(BIG))


async def test_a_small_file_and_an_empty_one_come_too(hub: Hub, target: Path) -> None:
    assert await bring(announced(hub, b"tiny"), target) == b"tiny"
    assert await bring(announced(hub, b"{}", "config.json"), target.with_name("config.json")) == b"{}"
    assert await bring(announced(hub, b"", "empty.gguf"), target.with_name("empty.gguf")) == b""


@pytest.mark.attack("secret")
async def test_the_token_goes_to_the_hub_and_not_to_its_content_network(hub: Hub, target: Path) -> None:
    hub.tokens["hf_secret"] = {"*"}
    file = attrs.evolve(announced(hub), headers={"authorization": "Bearer hf_secret"})
    hub.repositories["me/m"].gated = True
    assert await bring(file, target) == BIG
    assert {(request.route, request.authorized) for request in hub.log} == {("resolve", True), ("cdn", False)}


async def test_a_signed_address_is_used_again_and_given_up_when_it_runs_out(hub: Hub, target: Path) -> None:
    file = announced(hub)
    rules = attrs.evolve(RULES, segments=1)
    await bring(file, target, rules=rules)
    assert [request.route for request in hub.log].count("resolve") == 1
    hub.log.clear()
    expiring = hub.fail("refuse", path=NAME, status=403, times=0)

    def expire(done: int) -> None:
        if 0 < done < 2 * RULES.segment_size and not any(request.status == 403 for request in hub.log):
            expiring.times = 1

    assert await bring(file, target.with_name("again"), rules=rules, on_progress=expire) == BIG
    assert [request.route for request in hub.log].count("resolve") == 2


@pytest.mark.parametrize("kind", ["reset", "truncate"])
async def test_a_connection_that_breaks_again_and_again_costs_nothing_but_time(
    hub: Hub, target: Path, kind: str
) -> None:
    file = announced(hub)
    hub.fail(kind, path=NAME, at=50 * KIB, times=10)  # type: ignore[arg-type]
    assert await bring(file, target) == BIG
    # what had reached us before the break is not asked for again, however small
    again = sum(request.sent for request in hub.bodies()) - len(BIG)
    assert again == 0 if kind == "truncate" else again < len(BIG)


@pytest.mark.attack("hub")
async def test_a_connection_that_stalls_is_given_up_and_the_rest_asked_for_anew(
    hub: Hub, target: Path
) -> None:
    file = announced(hub)
    hub.fail("hold", path=NAME, at=10 * KIB)
    assert await bring(file, target, stall=0.5) == BIG


async def test_a_server_that_is_busy_is_waited_for_as_long_as_it_says(hub: Hub, target: Path) -> None:
    file = announced(hub)
    hub.fail("refuse", path=NAME, status=429, retry_after=0, times=2)
    hub.fail("refuse", path=NAME, status=503, retry_after=0, times=1)
    assert await bring(file, target) == BIG
    assert [request.status for request in hub.log[:3]].count(200) == 0


@pytest.mark.parametrize(("status", "kind"), [(429, TooManyRequests), (503, Unavailable), (500, Unavailable)])
async def test_a_server_that_stays_busy_is_given_up_and_what_came_is_kept(
    hub: Hub, target: Path, status: int, kind: type[GpustackError]
) -> None:
    file = announced(hub)
    hub.fail("refuse", path=NAME, status=status, times=1000)
    with pytest.raises(kind, match=r"m\.gguf could not be fetched in 4 tries: .*; what has come is kept"):
        await bring(file, target)
    assert part_of(target).exists()
    hub.faults.clear()
    assert await bring(file, target) == BIG


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (401, Forbidden, "--huggingface-token"),
        (403, Forbidden, "terms"),
        (404, NotFound, "any more"),
        (400, Unavailable, "answered 400"),
    ],
)
async def test_a_refusal_for_good_is_told_at_once(
    hub: Hub, target: Path, status: int, kind: type[GpustackError], word: str
) -> None:
    file = announced(hub)
    hub.fail("refuse", path=NAME, status=status, times=1000)
    with pytest.raises(kind, match=word):
        await bring(file, target)
    assert len(hub.log) == 1


async def test_a_server_that_does_not_know_ranges_sends_all_of_it_once(hub: Hub, target: Path) -> None:
    file = announced(hub)
    hub.fail("ignore_range", path=NAME, times=1000)
    assert await bring(file, target) == BIG
    assert [(request.status, request.sent) for request in hub.bodies()] == [(200, len(BIG))]


async def test_a_range_ignored_in_the_middle_does_no_harm(hub: Hub, target: Path) -> None:
    file = announced(hub)
    rules = attrs.evolve(RULES, segments=1)
    ignoring = hub.fail("ignore_range", path=NAME, times=0)

    def ignore(done: int) -> None:
        ignoring.times = 1 if 3 * RULES.segment_size <= done < 4 * RULES.segment_size else 0

    assert await bring(file, target, rules=rules, on_progress=ignore) == BIG
    assert 200 in {request.status for request in hub.bodies()}


async def test_bytes_that_came_out_wrong_are_fetched_anew(hub: Hub, target: Path) -> None:
    file = announced(hub)
    hub.fail("corrupt", path=NAME, at=5)
    assert await bring(file, target) == BIG
    assert litter(target) == []


@pytest.mark.attack("hub")
async def test_bytes_that_stay_wrong_are_told_and_removed(hub: Hub, target: Path) -> None:
    file = attrs.evolve(announced(hub), sha256="0" * 64)
    with pytest.raises(CorruptFile, match=r"was fetched .* twice and both times was not what is announced"):
        await bring(file, target)
    assert everything(target) == []


@pytest.mark.attack("hub")
async def test_the_hash_of_a_small_file_is_checked_too(hub: Hub, target: Path) -> None:
    content = b'{"a": 1}'
    commit = hub.add("me/m", {"config.json": content})
    right = hub.repositories["me/m"].commits[commit]["config.json"].blob
    url = f"{hub.url}/me/m/resolve/{commit}/config.json"
    file = RemoteFile(name="config.json", size=len(content), git_sha1=right, url=url)
    assert await bring(file, target) == content
    with pytest.raises(CorruptFile):
        await bring(attrs.evolve(file, git_sha1="1" * 40), target.with_name("other"))


@pytest.mark.attack("hub")
async def test_a_file_of_another_size_than_announced_is_told(hub: Hub, target: Path) -> None:
    file = attrs.evolve(announced(hub), size=len(BIG) + 1)
    with pytest.raises(Unavailable, match="keeps changing"):
        await bring(file, target)


async def test_a_file_that_changes_on_the_way_is_begun_anew(hub: Hub, target: Path) -> None:
    """The same address has other content, of the same size, after the first pieces; no hash would tell."""
    new = BIG[::-1]
    old = announced(hub)
    file = attrs.evolve(old, sha256=None, url=f"{hub.url}/me/m/resolve/main/{NAME}")
    expiring = hub.fail("refuse", path=NAME, status=403, times=0)

    def change(done: int) -> None:
        if done > RULES.segment_size and len(hub.repositories["me/m"].commits) == 1:
            hub.add("me/m", {NAME: new})
            expiring.times = 1  # so that the hub is asked again

    assert await bring(file, target, rules=attrs.evolve(RULES, segments=1), on_progress=change) == new


async def test_a_cancelled_fetch_goes_on_where_it_was(hub: Hub, target: Path) -> None:
    file = announced(hub)
    async with open_client() as client:
        with trio.fail_after(30), trio.CancelScope() as scope:

            def stop(done: int) -> None:
                if done >= len(BIG) // 2:
                    scope.cancel()

            await fetch(file, target, client=client, rng=random.Random(1), rules=RULES, on_progress=stop)
        assert scope.cancelled_caught
    kept = kept_bytes(file, target)
    assert len(BIG) // 2 <= kept < len(BIG)
    assert NAME not in everything(target)
    hub.log.clear()
    seen: list[int] = []
    assert await bring(file, target, on_progress=seen.append) == BIG
    assert seen[0] == kept
    assert sum(request.sent for request in hub.bodies()) == len(BIG) - kept


@pytest.mark.parametrize(
    "spoil",
    [
        lambda note: b"",
        lambda note: b"[]",
        lambda note: b"{",
        lambda note: json.dumps({**note, "done": [[0, 1 << 60]]}).encode(),
        lambda note: json.dumps({**note, "done": [["x"]]}).encode(),
        lambda note: json.dumps({**note, "done": [[5, 2]]}).encode(),
        lambda note: json.dumps({**note, "identity": "another"}).encode(),
        lambda note: json.dumps({key: value for key, value in note.items() if key != "etag"}).encode(),
        lambda note: json.dumps({**note, "etag": '"another"'}).encode(),
    ],
)
async def test_a_spoilt_note_costs_the_bytes_and_no_more(
    hub: Hub, target: Path, spoil: Callable[[dict[str, object]], bytes]
) -> None:
    file = announced(hub)
    hub.fail("refuse", path=NAME, status=503, times=1000)
    with pytest.raises(Unavailable):
        await bring(file, target)
    hub.faults.clear()
    sidecar = target.with_name(NAME + ".part.json")
    note = {**json.loads(sidecar.read_text()), "done": [[0, 10]], "etag": None}
    sidecar.write_bytes(spoil(note))
    part_of(target).write_bytes(BIG[:10] + bytes(len(BIG) - 10))
    assert await bring(file, target) == BIG


@pytest.mark.attack("ssrf")
async def test_a_redirect_out_of_the_web_is_not_followed(hub: Hub, target: Path) -> None:
    file = announced(hub)
    hub.cdn_url = "ftp://127.0.0.1"
    with pytest.raises(BadResponse, match="only http and https"):
        await bring(file, target)


@pytest.mark.attack("hub")
async def test_redirects_without_end_are_given_up(hub: Hub, target: Path) -> None:
    file = announced(hub)
    hub.cdn_url = f"{hub.url}/me/m/resolve/main/{NAME}?"
    with pytest.raises(BadResponse, match="redirects more than"):
        await bring(file, target)


async def test_a_target_that_cannot_be_written_is_an_error_of_the_disk(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        await bring(announced(hub), tmp_path / "file" / NAME)


@pytest.mark.parametrize("hashed", [True, False])
async def test_tags_that_differ_with_each_answer_do_not_matter_where_the_hash_is_told(
    hub: Hub, target: Path, hashed: bool
) -> None:
    numbers = itertools.count()
    hub.tags = lambda: f"edge-{next(numbers)}"
    file = announced(hub) if hashed else attrs.evolve(announced(hub), sha256=None)
    if hashed:
        assert await bring(file, target) == BIG
        assert sum(request.sent for request in hub.bodies()) == len(BIG)
    else:  # nothing else would tell that the content changed
        with pytest.raises(Unavailable, match="keeps changing"):
            await bring(file, target)


async def test_ranges_that_do_not_say_which_they_are_are_taken_by_their_length(
    hub: Hub, target: Path
) -> None:
    file = announced(hub)
    hub.tells_ranges = False
    assert await bring(file, target) == BIG
    assert sum(request.sent for request in hub.bodies()) == len(BIG)
    assert {request.status for request in hub.bodies()} == {206}


# --- other workers


@attrs.define
class Trickling:
    """A peer that sends one piece of each range, and then is never quite silent."""

    name: str = "slow"
    piece: bytes = BIG[:KIB]
    asked: int = 0

    @asynccontextmanager
    async def open_range(self, file: RemoteFile, start: int, end: int) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked += 1
        yield self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield self.piece
        while True:
            await trio.sleep(19)
            yield b"!"


@attrs.define
class Wrong(Trickling):
    """A peer with other bytes."""

    name: str = "wrong"

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield bytes(RULES.segment_size)


IMPATIENT = attrs.evolve(RULES, segments=1, peer_patience=0.0, peer_speed=1 << 40)
"""Whoever waits at all is too slow."""


@pytest.mark.attack("worker")
async def test_a_worker_that_sends_a_byte_now_and_then_is_left_for_the_hub(hub: Hub, target: Path) -> None:
    peer, origins = Trickling(), Counter[str]()
    peers = PeerGroup([peer])
    assert await bring(announced(hub), target, rules=IMPATIENT, peers=peers, origins=origins) == BIG
    assert (peer.asked, origins) == (1, {"slow": KIB, "hub": len(BIG) - KIB}), "what came is kept"
    other = announced(hub, BIG[::-1], "other.gguf")
    assert await bring(other, target.with_name("other.gguf"), rules=IMPATIENT, peers=peers) == BIG[::-1]
    assert peer.asked == 1, "nor is it asked for another file"


@pytest.mark.attack("worker")
async def test_a_worker_whose_bytes_were_wrong_is_not_asked_for_another_file(hub: Hub, target: Path) -> None:
    peer = Wrong()
    peers = PeerGroup([peer])
    assert await bring(announced(hub), target, peers=peers) == BIG
    assert (asked := peer.asked) > 0
    other = announced(hub, BIG[::-1], "other.gguf")
    assert await bring(other, target.with_name("other.gguf"), peers=peers) == BIG[::-1]
    assert peer.asked == asked
