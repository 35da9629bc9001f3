"""A long form is kept on the disk while it is passed on: memory stays flat, and another replica gets all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.errors import BadRequest
from gpustack.gateway.form import FormScanner, read_form
from gpustack.gateway.spooled_body import IN_MEMORY
from tests.fakes.running import RunningEngine
from tests.gateway.test_form import FILE, KIND, MODEL, form, part
from tests.http1.wire import Script

from .conftest import MakeWorld
from .world import World, busy

StartEngine = Callable[..., RunningEngine]
StartScript = Callable[..., Awaitable[Script]]

HEADERS = [(b"content-type", KIND)]
pieces = st.sampled_from(
    [MODEL, FILE, part('name="file"', b""), b"--b", b"--b--\r\n", b"\r\n", b"\r\n\r\n", b"--", b"x", b"\n"]
)


@given(st.lists(pieces, max_size=8), st.booleans(), st.lists(st.integers(0, 2000), max_size=6))
def test_a_form_is_read_the_same_however_it_is_cut(parts: list[bytes], ended: bool, cuts: list[int]) -> None:
    body = form(*parts) if ended else b"".join(parts)
    whole = cut = None
    with contextlib.suppress(BadRequest):
        whole = read_form(body, HEADERS).model
    with contextlib.suppress(BadRequest):
        scanner, start = FormScanner(HEADERS), 0
        for end in [*sorted(min(one, len(body)) for one in cuts), len(body)]:
            scanner.feed(body[start:end])
            start = end
        cut = scanner.request().model
    assert whole == cut


def long_form(size: int) -> bytes:
    return form(part('name="file"; filename="a.wav"', bytes(range(256)) * (size // 256)), MODEL).replace(
        b"tiny", b"m"
    )


def sent(world: World, body: bytes) -> bytes:
    raw = world.request(body, "/v1/audio/transcriptions")
    return raw.replace(b"content-type: application/json", b"content-type: " + KIND)


@pytest.mark.parametrize("size", [1000, IN_MEMORY - 4096, 2 * IN_MEMORY, 6 * IN_MEMORY])
async def test_a_replica_that_fails_is_replaced_by_one_that_gets_the_whole_form(
    world: World, fake_engine: StartEngine, scripted: StartScript, size: int
) -> None:
    failing, engine = await scripted(b""), fake_engine()
    await world.deploy("m", failing.port, engine.port)
    first = world.endpoints.route("m")
    assert first is not None
    body = long_form(size)
    client = await world.connect()
    with busy(world.endpoints, first.endpoints[1]):
        answer = await client.ask(sent(world, body))
    await client.close()
    assert answer.status == 200
    assert engine.seen()["last"]["body"]["form"].encode("latin-1") == body


async def test_a_form_that_is_too_large_is_refused_before_it_comes(world: World) -> None:
    raw = sent(world, long_form(1000))
    head, _, _ = raw.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    client = await world.connect()
    answer = await client.ask(b"\r\n".join([*lines, b"content-length: 600000000", b"", b""]))
    await client.close()
    assert answer.status == 413


async def test_where_the_disk_cannot_keep_it_that_is_told(
    make_world: MakeWorld, fake_engine: StartEngine, tmp_path: Path
) -> None:
    world = await make_world(spool=tmp_path / "nowhere")
    await world.deploy("m", fake_engine().port)
    client = await world.connect()
    answer = await client.ask(sent(world, long_form(2 * IN_MEMORY)))
    await client.close()
    assert answer.status == 503
    assert b"cannot be kept while it is passed on" in answer.body


@pytest.mark.parametrize("at", [0, 1, 5])
async def test_forms_leave_room_on_the_disk_for_the_database(
    make_world: MakeWorld, fake_engine: StartEngine, tmp_path: Path, at: int
) -> None:
    """It may fill up before a form comes, or meanwhile."""
    asked: list[Path] = []

    def free(folder: Path) -> int:
        asked.append(folder)
        return 100 << 20 if len(asked) > at else 1 << 40

    spool = tmp_path / "spool"
    spool.mkdir()
    engine = fake_engine()
    world = await make_world(spool=spool, free=free)
    await world.deploy("m", engine.port)
    client = await world.connect()
    answer = await client.ask(sent(world, long_form(6 * IN_MEMORY)))
    await client.close()
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"30")
    assert b"The disk of the server has no room for the file" in answer.body
    assert asked == [spool] * (at + 1)
    assert not list(spool.iterdir())
    assert engine.seen()["requests"] == 0
