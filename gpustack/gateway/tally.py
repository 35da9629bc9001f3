"""Counts an answer as it passes by, and hides the event of a stream that only we asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

import attrs
import orjson

from gpustack.gateway.usage import Usage, UsageScan

_EVENT_LIMIT: Final = 1 << 20
# A line ends in CRLF, LF or CR. A CR at the very end of what has come may be half a CRLF: it ends nothing yet.
_LINE_END: Final = rb"(?:\r\n|\n|\r(?=[^\n]))"
_EVENT_END: Final = re.compile(_LINE_END + _LINE_END)
_LINE: Final = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")


class Tally(Protocol):
    """Sees every piece of an answer on its way to the client."""

    def take(self, data: bytes) -> bytes:
        """Note a piece, return what goes on now."""

    def rest(self) -> bytes:
        """What is still held back at the end of a whole answer."""

    def usage(self) -> Usage | None:
        """What was used, as far as is known by now."""


@attrs.define
class PlainTally:
    """For an answer that is no stream of events."""

    _scan: UsageScan = attrs.field(factory=UsageScan)

    def take(self, data: bytes) -> bytes:
        self._scan.feed(data)
        return data

    def rest(self) -> bytes:
        return b""

    def usage(self) -> Usage | None:
        return self._scan.found


@attrs.define
class EventTally:
    """For a stream of server-sent events.

    An event goes on when it is whole: half of one is of no use to a client, and when the engine dies inside it
    an error can follow that a client can read. With ``hide`` the event that carries nothing but usage is left out;
    every other byte goes on as it came. An event of more than 1 MiB goes on in pieces, unseen.
    """

    _hide: bool
    _open: bytes = b""
    _inside: bool = False
    _events: int = 0
    _scan: UsageScan = attrs.field(factory=UsageScan)

    def take(self, data: bytes) -> bytes:
        self._scan.feed(data)
        whole = self._open + data if self._open else data
        cut = _last_end(whole, len(self._open))
        if not cut:
            if len(whole) <= _EVENT_LIMIT:
                self._open = whole
                return b""
            self._open, self._inside = b"", True
            return whole
        done, self._open = (whole, b"") if cut == len(whole) else (whole[:cut], whole[cut:])
        self._events += done.count(b"\ndata:") + done.count(b"\rdata:") + done.startswith(b"data:")
        self._inside = False
        return _without_usage(done) if self._hide and b'"usage"' in done else done

    def rest(self) -> bytes:
        left, self._open = self._open, b""
        # An end without its empty line: clients differ in what they make of it, but it is what the engine said.
        return _without_usage(left) if self._hide and b'"usage"' in left else left

    @property
    def gap(self) -> bytes:
        """What must come before an event of ours: the end of one that has gone on in part."""
        return b"\n\n" if self._inside else b""

    def usage(self) -> Usage | None:
        """The usage the engine said, else the number of events that went by: one a token, near enough."""
        if self._scan.found is not None:
            return self._scan.found
        return Usage(0, self._events, False) if self._events else None


def _last_end(data: bytes, searched: int) -> int:
    """Where the last whole event ends, 0 when none does.

    The first ``searched`` bytes hold no end, but may hold the beginning of one: of the four bytes of the longest.
    """
    start = max(searched - 4, 0)
    if data.find(b"\r", start) < 0:
        at = data.rfind(b"\n\n", start)
        return at + 2 if at >= 0 else 0
    end = 0
    for match in _EVENT_END.finditer(data, start):
        end = match.end()
    return end


def _events_of(data: bytes) -> Iterator[bytes]:
    """The events with their ends; the last may have none."""
    start = 0
    for match in _EVENT_END.finditer(data):
        yield data[start : match.end()]
        start = match.end()
    if start < len(data):
        yield data[start:]


def _without_usage(events: bytes) -> bytes:
    return b"".join([_kept(event) if b'"usage"' in event else event for event in _events_of(events)])


def _kept(event: bytes) -> bytes:
    """What of an event the client asked for: all of it, or nothing; or some lines, where an engine forgot that an
    empty line goes between two events."""
    lines = _LINE.findall(event)
    payloads = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    if _is_usage_alone(b"\n".join(payloads)):
        return b""
    if len(payloads) < 2 or not any(map(_is_usage_alone, payloads)):
        return event
    return b"".join(
        [line for line in lines if not (line.startswith(b"data:") and _is_usage_alone(line[5:].strip()))]
    )


def _is_usage_alone(payload: bytes) -> bool:
    """Whether a document says what was used and nothing else that a client waits for."""
    try:
        document: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return (
        isinstance(document, dict)
        and isinstance(document.get("usage"), dict)
        and not document.get("choices")
        and "error" not in document
    )
