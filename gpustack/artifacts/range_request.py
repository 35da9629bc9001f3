"""One request for a range of a file, with the redirects on its way and the answers that are none."""

from __future__ import annotations

import contextlib
import email.utils
import re
from collections.abc import AsyncIterator, Mapping

import attrs

from gpustack.artifacts.listing import RemoteFile
from gpustack.errors import Forbidden, GpustackError, NotFound, TooManyRequests, Unavailable
from gpustack.remote.http import BadResponse, HttpClient, StreamedResponse, shown
from gpustack.remote.redirect import MOST, headers_for, next_url, refuse_inner

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_EXPIRED = (401, 403, 404, 410)


class SourceChanged(Exception):
    """The source has other bytes under the same name than were announced or seen before."""


class TransientError(Exception):
    """Worth another try, after ``wait`` seconds if told. ``fault`` is what to raise when there is none."""

    def __init__(self, fault: GpustackError, wait: float | None = None) -> None:
        self.fault, self.wait = fault, wait
        super().__init__(str(fault))


@attrs.frozen
class RedirectTarget:
    """Where an earlier redirect led, and the IP address that answered there: next time it leads no further inside."""

    url: str
    address: str | None


@contextlib.asynccontextmanager
async def open_range(
    client: HttpClient, file: RemoteFile, start: int, end: int, *, place: RedirectTarget | None = None
) -> AsyncIterator[StreamedResponse]:
    """Ask for the bytes of ``file`` from ``start`` up to ``end``; the answer's ``url`` is where they came from.

    ``place`` is where an earlier redirect led: asked first, and given up when it has run out. Credentials go to the
    file's own host only. Raises Changed, Again, RemoteError, and Forbidden, NotFound or Unavailable with a sentence.
    """
    url, answered = (place.url, place.address) if place else (file.url, None)
    for _ in range(MOST + 1):
        connected = await refuse_inner(url, file.url, answered)
        wanted = {**file.headers, "range": f"bytes={start}-{end - 1}"}
        async with client.stream(
            "GET", url, headers=headers_for(url, file.url, wanted), connected=connected
        ) as incoming:
            if incoming.status in (301, 302, 303, 307, 308):
                answered = incoming.address
                url = next_url(url, incoming.headers.get("location"))
                await incoming.read()  # keeps the connection
                continue
            if place is not None and url == place.url != file.url and incoming.status in _EXPIRED:
                url, place = file.url, None
                continue
            if incoming.status not in (200, 206):
                raise refusal(incoming, file)
            if incoming.headers.get("content-encoding", "identity") != "identity":
                raise BadResponse(incoming.url, "sends the file in an encoding that nobody asked for")
            yield incoming
            return
    raise BadResponse(file.url, f"redirects more than {MOST} times")


def first_byte(incoming: StreamedResponse, file: RemoteFile, start: int, end: int) -> int:
    """Where in the file the answer begins: at ``start``, or at 0 where the server does not know ranges.

    A range that does not say which one it is must be as long as the one asked for, up to ``end``. Raises Changed when
    the whole has another size than announced, BadReply when it is another range.
    """
    if incoming.status == 200:
        if incoming.headers.get("content-length", str(file.size)) != str(file.size):
            raise SourceChanged
        return 0
    if "content-range" not in incoming.headers and incoming.headers.get("content-length") == str(end - start):
        return start
    found = told_range(incoming)
    if found is None or found[0] != start:
        raise BadResponse(incoming.url, "sends another range than it was asked for")
    if found[1] not in (None, file.size):
        raise SourceChanged
    return start


def told_range(incoming: StreamedResponse) -> tuple[int, int | None] | None:
    """Where the range of an answer begins, and how large the whole is where that is told; ``None`` if nothing is."""
    found = _CONTENT_RANGE.fullmatch(incoming.headers.get("content-range", ""))
    return None if found is None else (int(found[1]), None if found[3] == "*" else int(found[3]))


def refusal(incoming: StreamedResponse, file: RemoteFile) -> Exception:
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
    """Seconds to wait, told as such or as a time by the other side's own clock."""
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(told[:6])
    try:
        until = email.utils.parsedate_to_datetime(told)
        now = email.utils.parsedate_to_datetime(headers.get("date", ""))
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
