"""The paths ``/v1/audio/transcriptions`` and ``/v1/audio/translations``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpustack.launchers.service import field
from gpustack.launchers.service.app import Handler
from gpustack.launchers.service.call import EVENTS, ServiceCall, refuse_field
from gpustack.launchers.service.form import UploadedForm, uploaded_form
from gpustack.launchers.service.work import WorkQueue

from .subtitle import FORMATS, rendered, usage_of
from .transcriber import Transcriber
from .transcript import Transcript, TranscriptionSettings

_GRANULARITIES = ("segment", "word")


class TranscriptionPaths:
    """Answers with what is spoken in an uploaded file, at once or as a stream of events."""

    def __init__(self, transcriber: Transcriber, work: WorkQueue) -> None:
        self._transcriber = transcriber
        self._work = work

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("POST", "/v1/audio/transcriptions"): self._transcribe,
            ("POST", "/v1/audio/translations"): self._translate,
        }

    async def _transcribe(self, call: ServiceCall) -> None:
        await self._answer(call, "transcribe")

    async def _translate(self, call: ServiceCall) -> None:
        await self._answer(call, "translate")

    async def _answer(self, call: ServiceCall, task: str) -> None:
        async with uploaded_form(call) as form:
            file = form.file("file").file
            fields = form.fields
            shape = field.choice(fields, "response_format", FORMATS, "json")
            granularities = _granularities(form, shape)
            settings = _settings(fields, task, words="word" in granularities)
            self._transcriber.check(settings)
            stream = field.flag(fields, "stream")
            if stream and shape not in ("json", "text"):
                refuse_field("stream", "goes with the response_format json or text")
            found = Transcript()
            async with self._work.turn():
                made = self._work.items(self._transcriber.segments(file, settings, found))
                try:
                    if stream:
                        await self._stream(call, made, found)
                    else:
                        async for _ in made:
                            pass
                finally:
                    self._work.count("audio_seconds", found.duration)
            if not stream:
                await self._whole(call, found, shape, task, granularities)

    async def _whole(
        self, call: ServiceCall, found: Transcript, shape: str, task: str, granularities: tuple[str, ...]
    ) -> None:
        body, kind = rendered(found, shape, task=task, granularities=granularities)
        if isinstance(body, bytes):
            await call.answer_bytes(body, kind)
        else:
            await call.answer(body)

    async def _stream(self, call: ServiceCall, made: Any, found: Transcript) -> None:
        """Events as of OpenAI's API. What is wrong with the file is told before the stream begins."""
        first = True
        async for segment in made:
            if not call.began:
                await call.begin(EVENTS)
            delta = segment.text.lstrip() if first else segment.text
            first = False
            await call.event({"type": "transcript.text.delta", "delta": delta})
        if not call.began:
            await call.begin(EVENTS)
        await call.event({"type": "transcript.text.done", "text": found.text, "usage": usage_of(found)})
        await call.end()


def _settings(fields: Mapping[str, Any], task: str, *, words: bool) -> TranscriptionSettings:
    language = field.text(fields, "language", most=20)
    temperature = field.number(fields, "temperature", least=0.0, most=1.0)
    return TranscriptionSettings(
        task=task,
        language=language.lower().partition("-")[0] if language else None,
        prompt=field.text(fields, "prompt", most=4096),
        hotwords=field.text(fields, "hotwords", most=4096),
        temperature=temperature or 0.0,
        words=words,
    )


def _granularities(form: UploadedForm, shape: str) -> tuple[str, ...]:
    given = form.fields.get("timestamp_granularities", [])
    wanted = tuple(given) if isinstance(given, list) else (given,)
    for word in wanted:
        if word not in _GRANULARITIES:
            refuse_field("timestamp_granularities[]", f"must be of {', '.join(_GRANULARITIES)}")
    if wanted and shape != "verbose_json":
        refuse_field("timestamp_granularities[]", "goes with the response_format verbose_json alone")
    return wanted or ("segment",)
