"""Meters an answer as it passes by: reads its usage, and edits a stream of completions for its client."""

from __future__ import annotations

from typing import Final, Protocol

import attrs

from gpustack.gateway.speed import Stopwatch
from gpustack.gateway.sse import (
    awaits_usage,
    has_null,
    last_end,
    with_text_for_null,
    without_nothing,
    without_usage,
)
from gpustack.gateway.token_usage import TokenUsage, UsageScanner

_EVENT_LIMIT: Final = 1 << 20


class UsageMeter(Protocol):
    """Sees every piece of an answer on its way to the client."""

    def take(self, data: bytes) -> bytes:
        """Read a piece; returns the bytes to send to the client now."""

    def rest(self) -> bytes:
        """The bytes still held back, when the answer has ended as it should."""

    def usage(self) -> TokenUsage | None:
        """The usage as far as it is known; ``None`` where nothing is."""

    def so_far(self) -> int:
        """The tokens of the answer until now, about: the events of a stream, 0 of another answer."""


class EventUsageReader(Protocol):
    """Reads usage from whole events."""

    def read(self, events: bytes) -> None:
        """Read them."""

    def found(self, events: int) -> TokenUsage | None:
        """The usage as far as it is known, after so many events."""


@attrs.define
class BodyMeter:
    """For an answer that is not a stream of events."""

    _scanner: UsageScanner = attrs.field(factory=UsageScanner)

    def take(self, data: bytes) -> bytes:
        self._scanner.feed(data)
        return data

    def rest(self) -> bytes:
        return b""

    def usage(self) -> TokenUsage | None:
        return self._scanner.found

    def so_far(self) -> int:
        return 0


@attrs.define
class EventStreamMeter:
    """For a stream of server-sent events.

    An event is sent on when it is whole: half of one is useless to a client, and when the engine fails inside it, an
    error event can follow that a client can read. With ``hide`` the event that has nothing but usage is left out; with
    ``edits`` things that clients of completions stumble over are replaced. All other bytes go on as they came. An event
    of more than 1 MiB goes on in pieces and is not read.
    """

    _hide: bool
    _edits: bool = True
    _reader: EventUsageReader | None = None
    """What reads usage, where the last usage object is not the right one."""
    _stopwatch: Stopwatch | None = None
    """Set where the client asked for usage: the speed is added to it."""
    _counts: bool = True
    """Whether events stand for tokens where the engine tells no usage."""
    _open: bytes = b""
    _inside: bool = False
    _events: int = 0
    _waiting: bytes = b""
    """The event with which llama.cpp ends an answer, held back because the timings in the next one belong into it."""
    _scanner: UsageScanner = attrs.field(factory=UsageScanner)

    def take(self, data: bytes) -> bytes:
        if self._stopwatch is not None:
            self._stopwatch.begin()
        whole = self._open + data if self._open else data
        cut = last_end(whole, len(self._open))
        if not cut:
            if len(whole) <= _EVENT_LIMIT:
                self._open = whole
                return b""
            self._open, self._inside = b"", True
            self._scanner.feed(whole)
            return self._take_waiting() + whole
        done, self._open = (whole, b"") if cut == len(whole) else (whole[:cut], whole[cut:])
        self._events += done.count(b"\ndata:") + done.count(b"\rdata:") + done.startswith(b"data:")
        self._inside = False
        return self._edited(done)

    def rest(self) -> bytes:
        left, self._open = self._open, b""
        # A last event without its empty line: it goes on as the engine sent it, although clients read it differently.
        return (self._edited(left) if left else b"") + self._take_waiting()

    @property
    def gap(self) -> bytes:
        """What must be sent before an event of ours: an event held back, or the end of one that was sent in part."""
        return self._waiting or (b"\n\n" if self._inside else b"")

    def usage(self) -> TokenUsage | None:
        """The usage that the engine told, else the number of events where that is about one for each token."""
        found = self._scanner.found if self._reader is None else self._reader.found(self._events)
        if found is not None:
            return found
        return TokenUsage(0, self._events, False) if self._events and self._counts else None

    def so_far(self) -> int:
        return self._events if self._counts else 0

    def _edited(self, done: bytes) -> bytes:
        """The events as the client gets them. Nearly all cost a few searches and stay as they are."""
        if b'"usage"' in done:
            done = self._read_usage(done)
        elif self._waiting:
            done = self._take_waiting() + done
        if self._hide and b'"finish_reason":"' in done:
            done = self._without_last(done)
        if not self._edits:
            return done
        if has_null(done):
            done = with_text_for_null(done)
        if self._reader is not None and b"data: null" in done:
            done = without_nothing(done)
        return done

    def _read_usage(self, done: bytes) -> bytes:
        """Read the usage in them, which goes on only to a client that asked for it."""
        if self._reader is None:
            self._scanner.feed(done)
        else:
            self._reader.read(done)
        if self._hide:
            return without_usage(self._take_waiting() + done)
        return done if self._stopwatch is None else self._stopwatch.with_speed(done)

    def _without_last(self, done: bytes) -> bytes:
        """Without the last event, where that ends an answer and its timings are still to come."""
        at = done.rfind(b"\ndata: ", 0, max(len(done) - 2, 0)) + 1
        if not awaits_usage(done[at:]):
            return done
        self._waiting = done[at:]
        return done[:at]

    def _take_waiting(self) -> bytes:
        waiting, self._waiting = self._waiting, b""
        return waiting
