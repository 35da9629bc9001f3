"""Kokoro's voices, by kokoro-onnx: one network, and a file with what makes each voice."""

from __future__ import annotations

from .kind import folder_of, kokoro_files
from .voice_process import Sink

_LANGUAGES = {
    "a": "en-us",
    "b": "en-gb",
    "e": "es",
    "f": "fr-fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-br",
    "z": "cmn",
}
"""First letter of a voice's name → the language that it speaks (Kokoro's list of voices)."""
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "\n")


class KokoroVoices:
    """All voices of the file."""

    def __init__(self, model: str) -> None:
        from kokoro_onnx import Kokoro

        files = kokoro_files(folder_of(model))
        if files is None:
            raise ValueError(f"{model} is not there any more")
        self._network = Kokoro(str(files[0]), str(files[1]))
        self.voices = tuple(sorted(self._network.get_voices()))

    def speak(self, text: str, voice: str, speed: float, sink: Sink) -> None:
        """As ``VoiceLibrary``: sentence by sentence. Kokoro speaks from half to twice its usual speed."""
        import numpy as np

        language = _LANGUAGES.get(voice[:1], "en-us")
        for sentence in sentences(text):
            samples, rate = self._network.create(
                sentence, voice=voice, speed=min(max(speed, 0.5), 2.0), lang=language
            )
            spoken = (np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes()
            if not sink(rate, spoken):
                return


def sentences(text: str) -> list[str]:
    """The text cut after each end of a sentence, so that the first is heard before the last is made."""
    found, current = [], ""
    for character in text:
        current += character
        if character in _SENTENCE_ENDS and current.strip():
            found.append(current.strip())
            current = ""
    return [*found, current.strip()] if current.strip() else found
