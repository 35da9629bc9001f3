"""One call to a provider: bounded in size and time, JSON both ways, redirects not followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.remote.http import BadResponse, open_client_aside

_SHOWN = 300
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@attrs.frozen
class JsonAnswer:
    """A status, and the JSON that came with it."""

    status: int
    document: Any = attrs.field(repr=False)


async def fetch_json(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    limit: int,
    deadline: float,
) -> JsonAnswer:
    """Ask and read the answer. Raises ``RemoteError``, also for a redirect: what is sent is meant for ``url`` alone."""
    async with await open_client_aside() as client:
        answer = await client.request(
            method,
            url,
            headers={"accept": "application/json", **(headers or {})},
            body=body,
            limit=limit,
            deadline=deadline,
        )
    if answer.status in _REDIRECTS:
        raise BadResponse(url, f"answered {answer.status}: a redirect, which is not followed here")
    return JsonAnswer(answer.status, answer.json())


def said(error: object, description: object) -> str:
    """What a provider says is wrong, fit to be shown: bounded, and without what is not printable."""
    texts = [text for text in (error, description) if isinstance(text, str) and text.strip()]
    shown = ": ".join(" ".join(text[:_SHOWN].split()) for text in texts)
    return "".join(char if char.isprintable() else "?" for char in shown) or "nothing more"
