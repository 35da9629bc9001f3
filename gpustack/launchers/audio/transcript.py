"""The values of a transcription: what is asked for, and what was heard when."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class TranscriptionSettings:
    """What a request asks for. ``language``: a code, ``None`` to find it out. ``temperature`` 0 rises by itself."""

    task: str = "transcribe"
    language: str | None = None
    prompt: str | None = None
    hotwords: str | None = None
    temperature: float = 0.0
    words: bool = False


@attrs.frozen(kw_only=True)
class SpokenWord:
    """A word and when it is spoken. Seconds."""

    word: str
    start: float
    end: float


@attrs.frozen(kw_only=True)
class SpokenSegment:
    """A stretch of speech, usually a sentence. Seconds from the beginning of the sound."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    temperature: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None
    words: tuple[SpokenWord, ...] = ()


@attrs.define
class Transcript:
    """What is known of a transcription so far: the language, and the seconds of sound that were worked on."""

    language: str = ""
    duration: float = 0.0
    segments: list[SpokenSegment] = attrs.field(factory=list)

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments).strip()
