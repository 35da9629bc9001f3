"""Small documents from elsewhere, read whole: bounded in size and time, redirects followed with care."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from gpustack.nursery.limiter import threads
from gpustack.remote.http import BadResponse, HttpClient, HttpResponse, RemoteTimeout, open_client
from gpustack.remote.redirect import MOST, headers_for, next_url, refuse_inner

LARGEST = 4 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_openings = threads("opening clients", 1)


async def open_client_aside(**settings: object) -> HttpClient:
    """``open_client`` in a thread: the first one imports for long, and nobody's tokens are to wait for it."""
    return await _openings.run(lambda: open_client(**settings))  # type: ignore[arg-type]  # passed on as they are


async def fetch_document(
    url: str, *, headers: Mapping[str, str] | None = None, limit: int = LARGEST, deadline: float = 30.0
) -> HttpResponse:
    """The last answer behind ``url``, whatever its status. Raises RemoteError. Cancellable at any time."""
    with trio.move_on_after(deadline):
        async with await open_client_aside() as client:
            current = url
            answered: str | None = None
            for _ in range(MOST + 1):
                connected = await refuse_inner(current, url, answered)
                sent = headers_for(current, url, headers or {})
                answer = await client.request(
                    "GET", current, headers=sent, limit=limit, deadline=deadline, connected=connected
                )
                if answer.status not in _REDIRECTS:
                    return answer
                answered = answer.address
                current = next_url(current, answer.headers.get("location"))
            raise BadResponse(url, f"redirects more than {MOST} times")
    raise RemoteTimeout(url, f"did not answer within {deadline:g} s")
