"""Reads usage off an answer as it passes by, and hides the event of a stream that only we asked for."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

_TAIL = 8192
_EVENT_LIMIT = 1 << 20


@attrs.frozen
class Usage:
    """Tokens of one request. ``measured`` is false when the engine did not say and events were counted instead."""

    prompt: int
    completion: int
    measured: bool


@attrs.define
class PlainTally:
    """For an answer in one piece: its end holds the usage."""

    _tail: bytes = b""

    def take(self, data: bytes) -> bytes:
        """Note a piece; all of it goes on."""
        self._tail = data[-_TAIL:] if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
        return data

    def rest(self) -> bytes:
        """What is still held back at the end: nothing."""
        return b""

    def usage(self) -> Usage | None:
        """The usage, once all has passed; ``None`` when there is none."""
        return _usage_in(self._tail)


@attrs.define
class StreamTally:
    """For a stream of server-sent events.

    With ``hide`` the event without choices that carries the usage is left out; for that, an event is held back until
    it is whole, which delays nobody: half an event is of no use to a client.
    """

    hide: bool
    _open: bytes = b""
    _tail: bytes = b""
    _events: int = 0

    def take(self, data: bytes) -> bytes:
        """Note a piece, return what goes on now."""
        self._events += data.count(b"data:")
        if not self.hide:
            self._tail = data[-_TAIL:] if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
            return data
        whole = self._open + data if self._open else data
        cut = whole.rfind(b"\n\n") + 2
        if cut == 1:
            # No end of an event yet. One that is absurdly long is passed on unseen rather than kept.
            if len(whole) > _EVENT_LIMIT:
                self._open = b""
                return whole
            self._open = whole
            return b""
        self._open = whole[cut:]
        done = whole[:cut]
        return self._without_usage(done) if b'"usage"' in done else done

    def rest(self) -> bytes:
        """What is still held back at the end of the stream."""
        left, self._open = self._open, b""
        return left

    def usage(self) -> Usage | None:
        """The usage the engine said, else the number of events that passed (one a token)."""
        said = _usage_in(self._tail)
        if said is not None:
            return said
        return Usage(0, self._events, False) if self._events else None

    def _without_usage(self, events: bytes) -> bytes:
        kept = []
        for event in events.split(b"\n\n"):
            if b'"usage"' in event and event.startswith(b"data:"):
                self._tail = event[-_TAIL:]
                if _is_usage_only(event):
                    continue
            kept.append(event)
        return b"\n\n".join(kept)


def _is_usage_only(event: bytes) -> bool:
    try:
        document = orjson.loads(event[len(b"data:") :])
    except orjson.JSONDecodeError:
        return False
    return (
        isinstance(document, dict)
        and document.get("choices") == []
        and isinstance(document.get("usage"), dict)
    )


def _usage_in(tail: bytes) -> Usage | None:
    """The last usage object in the bytes; they may begin in the midst of a document."""
    at = len(tail)
    while (at := tail.rfind(b'"usage"', 0, at)) >= 0:
        found = _object_after(tail, at + len(b'"usage"'))
        if found is not None:
            return _read(found)
    return None


def _object_after(data: bytes, at: int) -> dict[str, Any] | None:
    start = data.find(b"{", at)
    if start < 0 or data[at:start].strip() != b":":
        return None
    depth = 0
    for index in range(start, len(data)):
        if data[index] == 0x7B:
            depth += 1
        elif data[index] == 0x7D:
            depth -= 1
            if depth == 0:
                try:
                    found = orjson.loads(data[start : index + 1])
                except orjson.JSONDecodeError:
                    return None
                return found if isinstance(found, dict) else None
    return None


def _read(usage: dict[str, Any]) -> Usage:
    """behaviour of the product before us: prompt, else total; completion as given, else the difference."""
    prompt, completion, total = (usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    first = _count(prompt) if isinstance(prompt, int) else _count(total)
    return Usage(
        first, _count(completion) if isinstance(completion, int) else max(_count(total) - first, 0), True
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
