"""Small documents are fetched whole, within bounds, and redirects are followed with care."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import trio

from gpustack.remote.http import BadResponse, ResponseTooLarge
from gpustack.remote.redirect import fetch_document
from tests.server.feed import Feed, serving


@pytest.fixture
def feed() -> Iterator[Feed]:
    with serving(Feed(body=b"here")) as one:
        yield one


async def test_a_document_is_fetched(feed: Feed) -> None:
    answer = await fetch_document(f"{feed.url}/a.yaml", headers={"x-mine": "yes"})
    assert (answer.status, answer.body) == (200, b"here")
    assert feed.asked[0]["x-mine"] == "yes"


async def test_a_redirect_is_followed(feed: Feed) -> None:
    feed.status, feed.headers, feed.pages = 302, {"Location": "/b"}, {"/b": b"there"}
    assert (await fetch_document(f"{feed.url}/a")).body == b"there"


@pytest.mark.attack("hub")
async def test_the_body_of_a_redirect_is_not_waited_for(feed: Feed, nursery: trio.Nursery) -> None:
    """Large, begun and not ended, or broken off: what it leads to is fetched all the same."""
    feed.pages = {"/b": b"there"}
    feed.status, feed.headers, feed.body = 302, {"Location": "/b"}, b"x" * (1 << 20)
    assert (await fetch_document(f"{feed.url}/a")).body == b"there"

    async def answer(stream: trio.SocketStream) -> None:
        asked = await stream.receive_some()
        await stream.send_all(
            b"HTTP/1.1 302 Found\r\nLocation: %b/b\r\nContent-Length: 9\r\n\r\nx" % feed.url.encode()
        )
        if b"broken" not in asked:
            await trio.sleep_forever()

    listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    for path in ("endless", "broken"):
        assert (await fetch_document(f"http://127.0.0.1:{port}/{path}")).body == b"there"


@pytest.mark.attack("hub")
async def test_redirects_without_end_are_not(feed: Feed) -> None:
    feed.status, feed.headers = 302, {"Location": "/again"}
    with pytest.raises(BadResponse, match="more than"):
        await fetch_document(feed.url)
    assert len(feed.paths) < 10


@pytest.mark.attack("hub")
async def test_more_than_the_limit_is_not_read(feed: Feed) -> None:
    feed.body = b"x" * 1000
    with pytest.raises(ResponseTooLarge):
        await fetch_document(feed.url, limit=999)
