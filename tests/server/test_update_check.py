"""New versions are heard of in the background; a feed that is not there is silence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import trio

from gpustack.server.update_check import UpdateCheck, is_development

from .feed import Feed, serving

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def feed() -> Iterator[Feed]:
    with serving(Feed()) as one:
        yield one


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What we ourselves have logged."""
    return [one.getMessage() for one in caplog.records if one.name.startswith("gpustack")]


def check(url: str | None, version: str = "1.0.0") -> UpdateCheck:
    return UpdateCheck(version, url, lambda: NOW, random.Random(1))


@pytest.mark.parametrize("body", [b'{"latest_version": "1.2.0"}', b'{"tag_name": "v1.2.0", "draft": false}'])
async def test_a_newer_version_is_heard_of(feed: Feed, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    feed.body = body
    updates = check(feed.url)
    assert (updates.shown, updates.checked_at) == ("1.0.0", None)
    with caplog.at_level("INFO", logger="gpustack"):
        await updates.look()
        await updates.look()
    assert (updates.shown, updates.checked_at) == ("1.2.0", NOW)
    assert caplog.text.count("Version 1.2.0") == 1
    assert feed.asked[0]["user-agent"].startswith("gpustack/1.0.0 (")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"latest_version": 2}',
        b'{"latest_version": "not a version"}',
        b'{"latest_version": "1.0 <script>"}',
        b'{"latest_version": "' + b"1" * 100 + b'"}',
        b"[" * 60_000,
        b'{"latest_version": "1.1.0", "x": "' + b"x" * 70_000 + b'"}',
    ],
)
async def test_nonsense_is_silence(feed: Feed, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    feed.body = body
    updates = check(feed.url)
    with caplog.at_level("INFO", logger="gpustack"):
        await updates.look()
    assert (updates.shown, updates.checked_at, said(caplog)) == ("1.0.0", None, [])


async def test_an_absent_feed_is_silence(feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    feed.status = 404
    with caplog.at_level("INFO", logger="gpustack"):
        await check(feed.url).look()
        await check("http://127.0.0.1:1/").look()
        await check("http://nowhere.invalid/").look()
    assert said(caplog) == []


async def test_what_was_known_stays_when_the_feed_goes(feed: Feed) -> None:
    feed.body = b'{"latest_version": "1.2.0"}'
    updates = check(feed.url)
    await updates.look()
    feed.status = 503
    await updates.look()
    assert updates.shown == "1.2.0"


@pytest.mark.parametrize("version", ["0.0.0", "0.0.0-rc1", "1.0.0.dev3", "1.0.0+local"])
async def test_a_development_build_never_asks(feed: Feed, version: str) -> None:
    updates = check(feed.url, version)
    assert is_development(version) and not updates.asks and updates.shown == version
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: updates.run(task_status=task_status))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not feed.asked


async def test_nobody_is_asked_unless_there_is_a_feed() -> None:
    assert not check(None).asks


async def test_the_service_has_started_before_it_asks_anybody(feed: Feed) -> None:
    feed.body = b'{"latest_version": "1.2.0"}'
    updates = check(feed.url)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: updates.run(task_status=task_status))
        assert not feed.asked
        with trio.fail_after(20):
            while updates.latest is None:  # noqa: ASYNC110  # nobody is told, that is the point
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert len(feed.asked) == 1
