"""How large a file is where a listing does not say: the file itself is asked, as the hub's own client does."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.range_request import TransientError, refusal, told_range
from gpustack.errors import Unavailable
from gpustack.remote.http import BadResponse, HttpClient, StreamedResponse, shown
from gpustack.remote.redirect import MOST, headers_for, next_url, refuse_inner

_FIRST_BYTE = {"range": "bytes=0-0"}


async def with_size(client: HttpClient, file: RemoteFile) -> RemoteFile:
    """``file`` with the size, and the hash if it is told, that a HEAD or else a GET of it tells.

    Raises RemoteError, and Forbidden, NotFound, TooManyRequests or Unavailable with a sentence.
    """
    for method, asked in (("HEAD", {}), ("GET", _FIRST_BYTE)):
        size, sha256 = await _told(client, method, file, asked)
        if size is not None:
            return attrs.evolve(file, size=size, sha256=sha256 or file.sha256)
    raise Unavailable(f"{shown(file.url)} does not tell the size of {file.name}")


async def _told(
    client: HttpClient, method: str, file: RemoteFile, asked: Mapping[str, str]
) -> tuple[int | None, str | None]:
    url, answered = file.url, None
    wanted = {**file.headers, "accept-encoding": "identity", **asked}
    for _ in range(MOST + 1):
        connected = await refuse_inner(url, file.url, answered)
        async with client.stream(
            method, url, headers=headers_for(url, file.url, wanted), connected=connected
        ) as incoming:
            linked = _number(incoming.headers.get("x-linked-size"))
            if linked is not None:
                return linked, _hash(incoming.headers.get("x-linked-etag", ""))
            if incoming.status in (301, 302, 303, 307, 308):
                answered = incoming.address
                url = next_url(url, incoming.headers.get("location"))
                continue
            if method == "GET" and incoming.status not in (200, 206, 416):
                raise _fault(refusal(incoming, file))
            return _size(incoming), None
    raise BadResponse(file.url, f"redirects more than {MOST} times")


def _size(incoming: StreamedResponse) -> int | None:
    if incoming.status == 416:  # there is no first byte
        return 0
    if incoming.status == 206:
        found = told_range(incoming)
        return None if found is None else found[1]
    if incoming.status != 200 or incoming.headers.get("content-encoding", "identity") != "identity":
        return None
    return _number(incoming.headers.get("content-length"))


def _number(text: str | None) -> int | None:
    sound = text is not None and text.isascii() and text.isdigit() and len(text) < 19
    return int(text or "") if sound else None


def _hash(etag: str) -> str | None:
    """Hubs announce a large file by its SHA-256."""
    bare = etag.removeprefix("W/").strip('"').lower()
    return bare if len(bare) == 64 and set(bare) <= set("0123456789abcdef") else None


def _fault(error: Exception) -> Exception:
    return error.fault if isinstance(error, TransientError) else error
