"""The paths ``/v1/audio/speech`` and ``/v1/voices``."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Mapping
from typing import Any

from gpustack.launchers.service import field
from gpustack.launchers.service.app import Handler
from gpustack.launchers.service.call import EVENTS, ServiceCall, refuse_field
from gpustack.launchers.service.work import WorkQueue

from .encoder import FORMATS, SoundEncoder
from .speaker import SpeakerPool

_BODY_LIMIT = 1 << 20
_SHOWN = 8
_SLOWEST, _FASTEST = 0.25, 4.0
DEFAULT = "default"
_KNOWS_ITS_LENGTH = ("wav", "flac")
"""Formats whose head tells how long they are: sent when they are whole, unless a stream is asked for."""


class SpeechPaths:
    """Speaks a text, sending the sound while it is made."""

    def __init__(self, speakers: SpeakerPool, work: WorkQueue, *, voice: str | None, most: int) -> None:
        """``voice``: for requests that name none; ``most``: characters of a text."""
        self._speakers = speakers
        self._work = work
        self._default = voice or speakers.voices[0]
        self._most = most

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {("POST", "/v1/audio/speech"): self._speak, ("GET", "/v1/voices"): self._voices}

    async def _voices(self, call: ServiceCall) -> None:
        await call.answer({"voices": list(self._speakers.voices)})

    async def _speak(self, call: ServiceCall) -> None:
        fields = await call.document(_BODY_LIMIT)
        text = field.text(fields, "input", most=self._most)
        if text is None or not text.strip():
            refuse_field("input", "must be the text to speak")
        voice = self._voice(fields)
        speed = field.number(fields, "speed", least=_SLOWEST, most=_FASTEST, default=1.0) or 1.0
        name = field.choice(fields, "response_format", FORMATS, "mp3")
        shape = field.choice(fields, "stream_format", ("audio", "sse"), "")
        stream = field.flag(fields, "stream") or bool(shape)
        encoder = SoundEncoder(name, whole=name in _KNOWS_ITS_LENGTH and not stream)
        async with self._work.turn(), self._speakers.speaking(text, voice, speed) as pieces:
            async for piece in pieces:
                self._work.count("speech_seconds", len(piece.samples) / 2 / piece.rate)
                await self._send(call, name, shape, encoder.add(piece.samples, piece.rate))
        await self._send(call, name, shape, encoder.end())
        if shape == "sse":
            await call.event({"type": "speech.audio.done"})
        if not call.began:
            await call.begin(FORMATS[name].media_type)
        await call.end()

    async def _send(self, call: ServiceCall, name: str, shape: str, sound: bytes) -> None:
        if not sound:
            return
        if not call.began:
            await call.begin(EVENTS if shape == "sse" else FORMATS[name].media_type)
        if shape == "sse":
            await call.event({"type": "speech.audio.delta", "audio": base64.b64encode(sound).decode()})
        else:
            await call.more(sound)

    def _voice(self, fields: Mapping[str, Any]) -> str:
        """The voice by its name, written small or large. Raises ``ServiceFault`` for an unknown one."""
        given = fields.get("voice")
        if isinstance(given, dict):
            given = given.get("id")
        if given in (None, "", DEFAULT):
            return self._default
        voices = {voice.lower(): voice for voice in self._speakers.voices}
        if not isinstance(given, str) or given.lower() not in voices:
            near = difflib.get_close_matches(str(given)[:100].lower(), voices, n=_SHOWN)
            shown = ", ".join(voices[one] for one in near) or ", ".join(self._speakers.voices[:_SHOWN])
            more = " and more: see /v1/voices" if len(voices) > _SHOWN else ""
            refuse_field("voice", f"is none that this model has: there are {shown}{more}")
        return voices[given.lower()]
