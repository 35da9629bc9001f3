"""Requests for a range of a file, or for its size: redirects followed, and refusals turned into errors."""

from __future__ import annotations

import contextlib
import email.utils
import re
from collections.abc import AsyncIterator, Mapping

import attrs

from gpustack.artifacts.listing import RemoteFile
from gpustack.errors import Forbidden, GpustackError, NotFound, TooManyRequests, Unavailable
from gpustack.remote.http import BadResponse, HttpClient, StreamedResponse, shown
from gpustack.remote.redirect import follow_redirects

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_EXPIRED = (401, 403, 404, 410)
"""How stores answer to a signed URL whose time is over."""


class SourceChanged(Exception):
    """The source has other bytes under this name than it announced, or than were fetched before."""


class TransientError(Exception):
    """The request may succeed later, after ``wait`` seconds if the server says so. ``fault`` is for who gives up."""

    def __init__(self, fault: GpustackError, wait: float | None = None) -> None:
        self.fault, self.wait = fault, wait
        super().__init__(str(fault))


def final_error(error: Exception) -> Exception:
    """The error to raise when ``error`` came and there is no further try."""
    return error.fault if isinstance(error, TransientError) else error


@attrs.frozen
class RedirectTarget:
    """Where an earlier redirect led, and the IP address that answered there (``redirect.refuse_inner`` compares it)."""

    url: str
    address: str | None


@contextlib.asynccontextmanager
async def open_range(
    client: HttpClient, file: RemoteFile, start: int, end: int, *, place: RedirectTarget | None = None
) -> AsyncIterator[StreamedResponse]:
    """Ask for the bytes of ``file`` from ``start`` up to ``end``; the ``url`` of the answer is where it came from.

    ``place`` is where an earlier redirect led: it is asked first, and dropped when it refuses because it has expired.
    Credentials are sent to the host of the file only. Raises SourceChanged, TransientError, RemoteError, and Forbidden,
    NotFound or Unavailable with a sentence.
    """
    wanted = {**file.headers, "range": f"bytes={start}-{end - 1}"}
    shortcuts = [place] if place is not None and place.url != file.url else []
    for at in (*shortcuts, RedirectTarget(file.url, None)):
        async with follow_redirects(
            client, "GET", at.url, headers=wanted, origin=file.url, answered=at.address
        ) as incoming:
            if at is place and incoming.status in _EXPIRED:
                continue
            if incoming.status not in (200, 206):
                raise refusal(incoming, file)
            if incoming.headers.get("content-encoding", "identity") != "identity":
                raise BadResponse(incoming.url, "sends the file in an encoding that nobody asked for")
            yield incoming
            return


def first_byte(incoming: StreamedResponse, file: RemoteFile, start: int, end: int) -> int:
    """The offset in the file at which the answer begins: ``start``, or 0 where the server does not support ranges.

    An answer of status 206 without Content-Range must be as long as the range that was asked for. Raises SourceChanged
    when the whole file has another size than announced, BadResponse for another range.
    """
    if incoming.status == 200:
        if incoming.headers.get("content-length", str(file.size)) != str(file.size):
            raise SourceChanged
        return 0
    if "content-range" not in incoming.headers and incoming.headers.get("content-length") == str(end - start):
        return start
    found = content_range(incoming)
    if found is None or found[0] != start:
        raise BadResponse(incoming.url, "sends another range than it was asked for")
    if found[1] not in (None, file.size):
        raise SourceChanged
    return start


def content_range(incoming: StreamedResponse) -> tuple[int, int | None] | None:
    """The offset of the range in an answer, and the size of the whole file if it is stated; ``None`` without either."""
    found = _CONTENT_RANGE.fullmatch(incoming.headers.get("content-range", ""))
    return None if found is None else (int(found[1]), None if found[3] == "*" else int(found[3]))


def refusal(incoming: StreamedResponse, file: RemoteFile) -> Exception:
    """The error to raise for an answer that does not have the file: SourceChanged, TransientError or one of ours."""
    status, place = incoming.status, shown(incoming.url)
    if status == 416:
        return SourceChanged()
    if status == 429:
        fault = TooManyRequests(f"{place} asks us to come back later: too many requests")
        return TransientError(fault, _retry_after(incoming.headers))
    if status in (408, 425) or status >= 500:
        return TransientError(Unavailable(f"{place} answered {status}"), _retry_after(incoming.headers))
    if status in (401, 403):
        return Forbidden(
            f"{place} does not let us have {file.name} (status {status}): accept the model's terms there, and set "
            "--huggingface-token"
        )
    if status in (404, 410):
        return NotFound(f"{place} does not have {file.name} any more (status {status})")
    return Unavailable(f"{place} answered {status} where {file.name} should be")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait. A date in Retry-After is compared with the Date of the same answer: the server's own clock."""
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(told[:6])
    try:
        until = email.utils.parsedate_to_datetime(told)
        now = email.utils.parsedate_to_datetime(headers.get("date", ""))
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


async def with_size(client: HttpClient, file: RemoteFile) -> RemoteFile:
    """``file`` with its size, and its hash if the hub states it, as a HEAD of it says, or else a GET of its first byte.

    Raises RemoteError, and Forbidden, NotFound, TooManyRequests or Unavailable with a sentence.
    """
    for method, wanted in (("HEAD", {}), ("GET", {"range": "bytes=0-0"})):
        headers = {**file.headers, "accept-encoding": "identity", **wanted}
        async with follow_redirects(client, method, file.url, headers=headers, enough=_is_linked) as incoming:
            if (linked := _linked_size(incoming)) is not None:
                return attrs.evolve(file, size=linked, sha256=_linked_sha256(incoming) or file.sha256)
            if method == "GET" and incoming.status not in (200, 206, 416):
                raise final_error(refusal(incoming, file))
            if (size := stated_size(incoming)) is not None:
                return attrs.evolve(file, size=size)
    raise Unavailable(f"{shown(file.url)} does not tell the size of {file.name}")


def stated_size(incoming: StreamedResponse) -> int | None:
    """The size of the whole file, as an answer to a request for it, or for its first byte, states it."""
    if incoming.status == 416:  # the file is empty
        return 0
    if incoming.status == 206:
        found = content_range(incoming)
        return None if found is None else found[1]
    if incoming.status != 200 or incoming.headers.get("content-encoding", "identity") != "identity":
        return None
    return _number(incoming.headers.get("content-length"))


def _is_linked(incoming: StreamedResponse) -> bool:
    """Whether a hub states the size of the file that it redirects to."""
    return _linked_size(incoming) is not None


def _linked_size(incoming: StreamedResponse) -> int | None:
    return _number(incoming.headers.get("x-linked-size"))


def _number(text: str | None) -> int | None:
    sound = text is not None and text.isascii() and text.isdigit() and len(text) < 19
    return int(text or "") if sound else None


def _linked_sha256(incoming: StreamedResponse) -> str | None:
    """The hash in X-Linked-ETag, by which hubs name a large file."""
    bare = incoming.headers.get("x-linked-etag", "").removeprefix("W/").strip('"').lower()
    return bare if len(bare) == 64 and set(bare) <= set("0123456789abcdef") else None
