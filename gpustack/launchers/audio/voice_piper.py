"""Piper's voices: each a network of its own, loaded when it is first asked for."""

from __future__ import annotations

from typing import Any

from .kind import folder_of, piper_voices
from .voice_process import Sink


class PiperVoices:
    """Every voice of a folder."""

    def __init__(self, model: str) -> None:
        from piper import PiperVoice

        self._files = piper_voices(folder_of(model))
        self.voices = tuple(self._files)
        self._load = PiperVoice.load
        self._loaded: dict[str, Any] = {}
        self._voice(self.voices[0])

    def speak(self, text: str, voice: str, speed: float, sink: Sink) -> None:
        """As ``VoiceLibrary``: sentence by sentence."""
        from piper import SynthesisConfig

        network = self._voice(voice)
        config = SynthesisConfig(length_scale=(network.config.length_scale or 1.0) / speed)
        for chunk in network.synthesize(text, config):
            if not sink(chunk.sample_rate, chunk.audio_int16_bytes):
                return

    def _voice(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._load(self._files[name])
        return self._loaded[name]
