"""A transcript in the forms that clients ask for: JSON, text, SubRip and WebVTT."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

from .transcript import SpokenSegment, Transcript

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")


def rendered(
    transcript: Transcript, form: str, *, task: str, granularities: Collection[str]
) -> tuple[bytes | dict[str, Any], str]:
    """The answer, a document or bytes, and its media type."""
    match form:
        case "text":
            return f"{transcript.text}\n".encode(), "text/plain; charset=utf-8"
        case "srt":
            return srt(transcript.segments).encode(), "application/x-subrip; charset=utf-8"
        case "vtt":
            return vtt(transcript.segments).encode(), "text/vtt; charset=utf-8"
        case "verbose_json":
            return _verbose(transcript, task, granularities), "application/json"
    return {"text": transcript.text, "usage": usage_of(transcript)}, "application/json"


def usage_of(transcript: Transcript) -> dict[str, Any]:
    """As OpenAI's API counts Whisper: by seconds of sound, begun ones counted whole."""
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def srt(segments: Iterable[SpokenSegment]) -> str:
    """SubRip."""
    cues = (
        f"{number}\n{_clock(one.start, ',')} --> {_clock(one.end, ',')}\n{_line(one)}\n"
        for number, one in enumerate(segments, 1)
    )
    return "\n".join(cues)


def vtt(segments: Iterable[SpokenSegment]) -> str:
    """WebVTT."""
    cues = (
        f"{_clock(one.start, '.')} --> {_clock(one.end, '.')}\n"
        f"{_line(one).replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}\n"
        for one in segments
    )
    return "\n".join(["WEBVTT\n", *cues])


def _line(segment: SpokenSegment) -> str:
    """The text as one line: an empty line or an arrow would end the cue."""
    return " ".join(segment.text.split()).replace("-->", "->")


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"


def _verbose(transcript: Transcript, task: str, granularities: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "task": task,
        "language": transcript.language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "usage": usage_of(transcript),
    }
    if "segment" in granularities:
        found["segments"] = [
            {
                "id": number,
                "seek": round(one.start * 100),
                "start": one.start,
                "end": one.end,
                "text": one.text,
                "tokens": list(one.tokens),
                "temperature": one.temperature,
                "avg_logprob": one.avg_logprob,
                "compression_ratio": one.compression_ratio,
                "no_speech_prob": one.no_speech_prob,
            }
            for number, one in enumerate(transcript.segments)
        ]
    if "word" in granularities:
        found["words"] = [
            {"word": word.word.strip(), "start": word.start, "end": word.end}
            for one in transcript.segments
            for word in one.words
        ]
    return found
