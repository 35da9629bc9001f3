"""Server-sent events as bytes: where they end, and the few edits that are made to them on their way to a client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

# A line ends in CRLF, LF or CR. A CR that is the last byte so far may be half a CRLF: it ends no line yet.
_LINE_END: Final = rb"(?:\r\n|\n|\r(?=[^\n]))"
_EVENT_END: Final = re.compile(_LINE_END + _LINE_END)
_LINE: Final = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_FINISH: Final = b'"finish_reason":"'
_LLAMA_CPP: Final = re.compile(rb'"system_fingerprint":"b[0-9]+-')
_NOTHING: Final = b"data: null"


def last_end(data: bytes, searched: int) -> int:
    """The offset of the end of the last whole event, 0 when none is whole.

    No event ends within the first ``searched`` bytes, but the up to four bytes of an end may begin there.
    """
    start = max(searched - 4, 0)
    if data.find(b"\r", start) < 0:
        at = data.rfind(b"\n\n", start)
        return at + 2 if at >= 0 else 0
    end = 0
    for match in _EVENT_END.finditer(data, start):
        end = match.end()
    return end


def events_of(data: bytes) -> Iterator[bytes]:
    """The events with their ends; the last may have none."""
    start = 0
    for match in _EVENT_END.finditer(data):
        yield data[start : match.end()]
        start = match.end()
    if start < len(data):
        yield data[start:]


def document_of(event: bytes) -> dict[str, Any] | None:
    """The JSON object that an event carries, if it carries one."""
    return _object(
        b"\n".join([line[5:].strip() for line in _LINE.findall(event) if line.startswith(b"data:")])
    )


def awaits_usage(event: bytes) -> bool:
    """Whether llama.cpp ends an answer with this event, and tells its usage and timings in the next."""
    return _FINISH in event and b'"timings"' not in event and _LLAMA_CPP.search(event) is not None


def without_usage(events: bytes) -> bytes:
    """The events without the usage that only we asked for.

    llama.cpp puts its ``timings`` into the event of usage too. Without a request for usage they would stand in the
    event before, which ends the answer: they are moved there.
    """
    kept: list[bytes] = []
    for event in events_of(events):
        if b'"usage"' not in event:
            kept.append(event)
            continue
        left = _kept(event)
        if not left and kept and awaits_usage(kept[-1]):
            timings = (document_of(event) or {}).get("timings")
            kept[-1] = _with_member(kept[-1], "timings", timings)
        kept.append(left)
    return b"".join(kept)


def without_nothing(events: bytes) -> bytes:
    """Without events whose data is ``null``: llama.cpp begins a stream for a list of prompts with one, and clients that
    look for the choices in it fail."""
    return b"".join([event for event in events_of(events) if event.strip() != _NOTHING])


def with_text_for_null(events: bytes) -> bytes:
    """With an empty text where the ``content`` of a delta is ``null``: some clients would show the word."""
    return b"".join([_with_text(event) if has_null(event) else event for event in events_of(events)])


def has_null(events: bytes) -> bool:
    """Whether they may have ``null`` as a ``content``."""
    return b'"content":null' in events or b'"content": null' in events


def _with_text(event: bytes) -> bytes:
    document = document_of(event)
    choices = None if document is None else document.get("choices")
    changed = False
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if isinstance(delta, dict) and delta.get("content", "") is None:
            delta["content"] = ""
            changed = True
    return event if not changed or document is None else _with_document(event, document)


def _with_document(event: bytes, document: dict[str, Any]) -> bytes:
    """The event with another document, written to its first line of data; its other lines of data are dropped."""
    written = _written(document)
    if written is None:
        return event
    lines = []
    for line in _LINE.findall(event):
        if not line.startswith(b"data:"):
            lines.append(line)
        elif written:
            lines.append(b"data: " + written + line[len(line.rstrip(b"\r\n")) :])
            written = b""
    return b"".join(lines)


def _with_member(event: bytes, name: str, value: object) -> bytes:
    end = event.rfind(b"}")
    written = _written(value) if isinstance(value, dict) else None
    if written is None or end < 0 or event[end + 1 :].strip():
        return event
    return b'%b,"%b":%b%b' % (event[:end], name.encode(), written, event[end:])


def _written(document: dict[str, Any]) -> bytes | None:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # it reads deeper than it writes
        return None


def _kept(event: bytes) -> bytes:
    """The part of an event that the client asked for: all of it, nothing, or some lines where an engine left out the
    empty line between two events."""
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
    """Whether a document has usage and nothing else that a client waits for."""
    document = _object(payload)
    return (
        document is not None
        and isinstance(document.get("usage"), dict)
        and not document.get("choices")
        and "error" not in document
    )


def _object(payload: bytes) -> dict[str, Any] | None:
    try:
        document: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
