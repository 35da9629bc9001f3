"""A sound for models that hear."""

from __future__ import annotations

import io
import math
import struct
import wave

RATE = 16_000


def tone(seconds: float, pitch: float = 440.0) -> bytes:
    """A WAV file of one tone."""
    samples = [int(8000 * math.sin(2 * math.pi * pitch * n / RATE)) for n in range(int(seconds * RATE))]
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return file.getvalue()
