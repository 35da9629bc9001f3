"""Sound that declares what would take far too much memory is refused in a sentence, before anything is made of it."""

from __future__ import annotations

import io
import wave
from typing import Any

import pytest

from tests.needs import requires_module

RATE = 16_000


@pytest.fixture(scope="module")
def sound() -> Any:
    requires_module("av", pip="--group dev")
    from gpustack.launchers.audio import sound

    return sound


def wav(samples: int, rate: int = RATE, channels: int = 1) -> io.BytesIO:
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(channels)
        made.setsampwidth(2)
        made.setframerate(rate)
        made.writeframes(bytes(2 * samples * channels))
    return io.BytesIO(file.getvalue())


def slow_flac() -> io.BytesIO:
    """A few hundred samples, a second each."""
    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=1, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 400), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return io.BytesIO(file.getvalue())


def refused(sound: Any, file: io.BytesIO) -> str:
    with pytest.raises(sound.UnreadableSound) as caught:
        list(sound.blocks(file, most_seconds=1e9))
    return str(caught.value)


def test_a_frame_that_lasts_minutes_is_refused(sound: Any) -> None:
    assert refused(sound, slow_flac()) == "A single frame of the sound lasts longer than 60 s"


def test_too_many_channels_are_refused(sound: Any) -> None:
    assert "more than 16 channels" in refused(sound, wav(100, channels=20))


def test_a_rate_that_no_sound_has_is_refused(sound: Any) -> None:
    assert "samples a second; 768000 are the most" in refused(sound, wav(100, rate=1_000_000))


def test_no_block_is_longer_than_asked_for_and_nothing_is_lost(sound: Any) -> None:
    lengths = [len(block) for block in sound.blocks(wav(40 * 10, rate=10), 100.0, block_seconds=0.5)]
    assert max(lengths) <= RATE // 2
    assert sum(lengths) == pytest.approx(40 * RATE, rel=0.05)
