"""Counts an answer as it passes by, and hides the event of a stream that only we asked for."""

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
        """Note a piece, return what goes on now."""

    def rest(self) -> bytes:
        """What is still held back at the end of a whole answer."""

    def usage(self) -> TokenUsage | None:
        """What was used, as far as is known by now."""


class EventUsageReader(Protocol):
    """Reads whole events for what they say of usage."""

    def read(self, events: bytes) -> None:
        """Note what they say."""

    def found(self, events: int) -> TokenUsage | None:
        """What was used as far as is known by now; ``events`` have gone by."""


@attrs.define
class BodyMeter:
    """For an answer that is no stream of events."""

    _scan: UsageScanner = attrs.field(factory=UsageScanner)

    def take(self, data: bytes) -> bytes:
        self._scan.feed(data)
        return data

    def rest(self) -> bytes:
        return b""

    def usage(self) -> TokenUsage | None:
        return self._scan.found


@attrs.define
class EventStreamMeter:
    """For a stream of server-sent events.

    An event goes on when it is whole: half of one is of no use to a client, and when the engine dies inside it
    an error can follow that a client can read. With ``hide`` the event that carries nothing but usage is left out;
    with ``edits`` what clients stumble over in a stream of completions is mended. Every other byte goes on as it
    came. An event of more than 1 MiB goes on in pieces, unseen.
    """

    _hide: bool
    _edits: bool = True
    _reader: EventUsageReader | None = None
    """What reads usage, where it is not simply the last that counts."""
    _watch: Stopwatch | None = None
    """Set where the client wants usage, and how fast it was with it."""
    _open: bytes = b""
    _inside: bool = False
    _events: int = 0
    _waiting: bytes = b""
    """The event that ends an answer of llama.cpp: what comes next belongs into it."""
    _scan: UsageScanner = attrs.field(factory=UsageScanner)

    def take(self, data: bytes) -> bytes:
        if self._watch is not None:
            self._watch.begin()
        whole = self._open + data if self._open else data
        cut = last_end(whole, len(self._open))
        if not cut:
            if len(whole) <= _EVENT_LIMIT:
                self._open = whole
                return b""
            self._open, self._inside = b"", True
            self._scan.feed(whole)
            return self._released() + whole
        done, self._open = (whole, b"") if cut == len(whole) else (whole[:cut], whole[cut:])
        self._events += done.count(b"\ndata:") + done.count(b"\rdata:") + done.startswith(b"data:")
        self._inside = False
        return self._edited(done)

    def rest(self) -> bytes:
        left, self._open = self._open, b""
        # An end without its empty line: clients differ in what they make of it, but it is what the engine said.
        return (self._edited(left) if left else b"") + self._released()

    @property
    def gap(self) -> bytes:
        """What must come before an event of ours: what has waited, and the end of an event that went on in part."""
        return self._waiting or (b"\n\n" if self._inside else b"")

    def usage(self) -> TokenUsage | None:
        """The usage the engine said, else the number of events that went by: one a token, near enough."""
        found = self._scan.found if self._reader is None else self._reader.found(self._events)
        if found is not None:
            return found
        return TokenUsage(0, self._events, False) if self._events else None

    def _edited(self, done: bytes) -> bytes:
        """Whole events as they go on: for nearly all of them no more than a few searches."""
        if b'"usage"' in done:
            done = self._told(done)
        elif self._waiting:
            done = self._released() + done
        if self._hide and b'"finish_reason":"' in done:
            done = self._held_back(done)
        if not self._edits:
            return done
        if has_null(done):
            done = with_text_for_null(done)
        if self._reader is not None and b"data: null" in done:
            done = without_nothing(done)
        return done

    def _told(self, done: bytes) -> bytes:
        """Read what they say of usage; it goes on only to a client that asked for it."""
        if self._reader is None:
            self._scan.feed(done)
        else:
            self._reader.read(done)
        if self._hide:
            return without_usage(self._released() + done)
        return done if self._watch is None else self._watch.told_in(done)

    def _held_back(self, done: bytes) -> bytes:
        """Without its last event, where that ends an answer and what belongs into it is still to come."""
        at = done.rfind(b"\ndata: ", 0, max(len(done) - 2, 0)) + 1
        if not awaits_usage(done[at:]):
            return done
        self._waiting = done[at:]
        return done[:at]

    def _released(self) -> bytes:
        waiting, self._waiting = self._waiting, b""
        return waiting
