"""Whisper by faster-whisper: what is spoken in a sound, segment by segment as it is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any

from gpustack.launchers.service.call import ServiceFault, refuse_field

from .sound import RATE, UnreadableSound, blocks
from .transcript import SpokenSegment, SpokenWord, Transcript, TranscriptionSettings

_CONTEXT = 200
"""Characters of the text before that are given to the next block, so that names are written alike."""


class Transcriber:
    """A loaded Whisper. Several requests may be worked on at a time, each in a thread of its caller."""

    def __init__(
        self,
        folder: str,
        *,
        device: tuple[str, int],
        compute_type: str,
        cpu_threads: int,
        workers: int,
        beam_size: int,
        vad: bool,
        most_seconds: float,
    ) -> None:
        """Loads the model. Blocking; raises ``RuntimeError``, ``ValueError`` or ``OSError`` of the library."""
        os.environ.setdefault(
            "HF_HUB_OFFLINE", "1"
        )  # what is missing in the folder is not fetched from elsewhere
        from faster_whisper import WhisperModel

        self._model = WhisperModel(
            folder,
            device=device[0],
            device_index=device[1],
            compute_type=compute_type,
            cpu_threads=cpu_threads,
            num_workers=workers,
            local_files_only=True,
        )
        self._beam_size = beam_size
        self._vad = vad
        self._most_seconds = most_seconds
        self.languages: tuple[str, ...] = tuple(self._model.supported_languages)

    def check(self, settings: TranscriptionSettings) -> None:
        """Raises ``ServiceFault`` for what this model cannot do."""
        if settings.language is not None and settings.language not in self.languages:
            refuse_field("language", f"is none that this model knows: {', '.join(self.languages[:20])}, …")
        if settings.task == "translate" and not self._model.model.is_multilingual:
            raise ServiceFault("This model knows English alone, and does not translate")

    def segments(
        self, file: IO[bytes], settings: TranscriptionSettings, found: Transcript
    ) -> Iterator[SpokenSegment]:
        """The segments, each as soon as it is found; ``found`` is filled meanwhile. Raises ``ServiceFault``.

        Blocking. Nothing more is worked on once the iterator is left alone.
        """
        try:
            for block in blocks(file, self._most_seconds):
                yield from self._of_block(block, settings, found)
                found.duration += len(block) / RATE
        except UnreadableSound as error:
            raise ServiceFault(str(error), param="file") from error

    def _of_block(
        self, block: Any, settings: TranscriptionSettings, found: Transcript
    ) -> Iterator[SpokenSegment]:
        offset = found.duration
        prompt = found.text[-_CONTEXT:] if found.segments else settings.prompt
        made, info = self._model.transcribe(
            block,
            task=settings.task,
            language=found.language or settings.language,
            initial_prompt=prompt or None,
            hotwords=settings.hotwords,
            beam_size=self._beam_size,
            word_timestamps=settings.words,
            vad_filter=self._vad,
            **({"temperature": settings.temperature} if settings.temperature else {}),
        )
        if not found.language and info.duration_after_vad > 0:
            found.language = info.language
        for one in made:
            segment = _segment(one, offset)
            found.segments.append(segment)
            yield segment


def _segment(one: Any, offset: float) -> SpokenSegment:
    words = tuple(
        SpokenWord(word=word.word, start=_at(word.start, offset), end=_at(word.end, offset))
        for word in one.words or ()
    )
    return SpokenSegment(
        start=_at(one.start, offset),
        end=_at(one.end, offset),
        text=one.text,
        tokens=tuple(int(token) for token in one.tokens),
        temperature=one.temperature,
        avg_logprob=one.avg_logprob,
        compression_ratio=one.compression_ratio,
        no_speech_prob=one.no_speech_prob,
        words=words,
    )


def _at(seconds: float, offset: float) -> float:
    return round(float(seconds) + offset, 3)
