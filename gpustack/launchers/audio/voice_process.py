"""A process that speaks: it loads one kind of voices and turns texts into samples.

    python -m gpustack.launchers.audio.voice_process KIND MODEL

It is a process of its own because of the licences of the libraries that it loads (espeak-ng, also as a part of Piper
and Kokoro, is under the GPL), and because a fault of theirs must not end the server. It ends when its input ends.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable
from typing import Any, Protocol

from .voice_protocol import STOP, FrameKind, frame

Sink = Callable[[int, bytes], bool]
"""Takes the samples per second and samples; says whether to go on."""
_INPUT, _OUTPUT = 0, 1


class VoiceLibrary(Protocol):
    """A loaded library or network that speaks."""

    voices: tuple[str, ...]

    def speak(self, text: str, voice: str, speed: float, sink: Sink) -> None:
        """Speak, handing over samples as they are made, until the sink says no. Raises ``ValueError`` or
        ``RuntimeError`` with a sentence."""


def load(kind: str, model: str) -> VoiceLibrary:
    """Raises ``ImportError`` where the library is not installed, and whatever that raises at a broken model."""
    if kind == "piper":
        from .voice_piper import PiperVoices

        return PiperVoices(model)
    if kind == "kokoro":
        from .voice_kokoro import KokoroVoices

        return KokoroVoices(model)
    from .voice_espeak import EspeakVoices

    return EspeakVoices()


def main(kind: str, model: str) -> int:
    output = os.dup(_OUTPUT)
    os.dup2(2, _OUTPUT)  # what libraries print must not get between the frames
    try:
        library = load(kind, model)
    except Exception as error:  # noqa: BLE001  # whatever a foreign library raises ends here, as one sentence
        _send(output, FrameKind.FAULT, f"The voices cannot be loaded: {_said(error)}".encode())
        return 1
    _send(output, FrameKind.READY, json.dumps({"voices": library.voices}).encode())
    requests = _Requests()
    while (line := requests.next_line()) is not None:
        if line != STOP:
            _speak(library, json.loads(line), output, requests)
    return 0


def _speak(library: VoiceLibrary, request: Any, output: int, requests: _Requests) -> None:
    told: list[int] = []

    def sink(rate: int, samples: bytes) -> bool:
        if not told:
            told.append(rate)
            _send(output, FrameKind.RATE, b"%d" % rate)
        _send(output, FrameKind.SOUND, samples)
        return not requests.has_more()

    try:
        library.speak(request["text"], request["voice"], request["speed"], sink)
    except Exception as error:  # noqa: BLE001  # as above: the text is refused, the next one may be fine
        _send(output, FrameKind.FAULT, f"The text cannot be spoken: {_said(error)}".encode())
    else:
        _send(output, FrameKind.END, b"")


class _Requests:
    """Lines of the input, read without a buffer that would hide from ``has_more`` what has come."""

    def __init__(self) -> None:
        self._read = b""

    def next_line(self) -> bytes | None:
        while b"\n" not in self._read:
            piece = os.read(_INPUT, 1 << 16)
            if not piece:
                return None
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line + b"\n"

    def has_more(self) -> bool:
        """Whether a line (only ``stop`` can be one), or the end of the input, has come."""
        return bool(self._read) or bool(select.select([_INPUT], [], [], 0)[0])


def _send(output: int, kind: FrameKind, content: bytes) -> None:
    rest = memoryview(frame(kind, content))
    while rest:
        rest = rest[os.write(output, rest) :]


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
