"""Turns samples into a file of sound, piece by piece as they come."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import attrs
import av
import numpy as np

RATE = 24_000
"""Samples per second of all that is sent: what clients of OpenAI's API expect of raw samples."""
_UNKNOWN = 0xFFFFFFFF


@attrs.frozen(kw_only=True)
class SoundFormat:
    """A format of the API: its media type; container, codec and options of FFmpeg; empty where it is written here."""

    media_type: str
    container: str = ""
    codec: str = ""
    options: dict[str, str] = attrs.field(factory=dict)
    sample_format: str = "s16"
    bit_rate: int | None = None


FORMATS = {
    "mp3": SoundFormat(
        media_type="audio/mpeg",
        container="mp3",
        codec="libmp3lame",
        options={"write_xing": "0", "id3v2_version": "0"},
        sample_format="s16p",
        bit_rate=96_000,
    ),
    "opus": SoundFormat(media_type="audio/ogg", container="ogg", codec="libopus", bit_rate=48_000),
    "aac": SoundFormat(
        media_type="audio/aac", container="adts", codec="aac", sample_format="fltp", bit_rate=96_000
    ),
    "flac": SoundFormat(media_type="audio/flac", container="flac", codec="flac"),
    "wav": SoundFormat(media_type="audio/wav"),
    "pcm": SoundFormat(media_type=f"audio/pcm;rate={RATE};channels=1"),
}


class SoundEncoder:
    """One file. Blocking, and quick: milliseconds for a second of sound."""

    def __init__(self, name: str, *, whole: bool = False) -> None:
        """``whole``: nothing is handed out before the end, and heads that tell a length tell it."""
        self._format = FORMATS[name]
        self._head = name == "wav"
        self._whole = bytearray() if whole else None
        self._resampler: Any = None
        self._rate = 0
        self._out = io.BytesIO() if whole else _Pipe()
        self._container: Any = None
        self._stream: Any = None
        if self._format.container:
            self._open()

    def add(self, samples: bytes, rate: int) -> bytes:
        """What is ready to be sent after these samples."""
        return b"".join(self._encoded(frame) for frame in self._resampled(samples, rate))

    def end(self) -> bytes:
        """The rest of the file."""
        last = b"".join(self._encoded(frame) for frame in self._flushed())
        if self._container is None:
            if self._whole is None:
                return (self._wav_head(_UNKNOWN) if self._head else b"") + last
            sound = bytes(self._whole)
            return (self._wav_head(len(sound)) if self._head else b"") + sound
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return last + (self._out.getvalue() if isinstance(self._out, io.BytesIO) else self._out.taken())

    def _open(self) -> None:
        self._container = av.open(
            self._out, mode="w", format=self._format.container, options=self._format.options
        )
        self._stream = self._container.add_stream(self._format.codec, rate=RATE)
        self._stream.layout = "mono"
        self._stream.format = self._format.sample_format
        if self._format.bit_rate is not None:
            self._stream.bit_rate = self._format.bit_rate

    def _resampled(self, samples: bytes, rate: int) -> Iterator[Any]:
        if rate != self._rate:
            yield from self._flushed()
            self._rate = rate
            self._resampler = av.AudioResampler(format=self._format.sample_format, layout="mono", rate=RATE)
        if len(samples) < 2:
            return
        frame = av.AudioFrame.from_ndarray(
            np.frombuffer(samples, dtype="<i2").reshape(1, -1), format="s16", layout="mono"
        )
        frame.sample_rate = rate
        yield from self._resampler.resample(frame)

    def _flushed(self) -> Iterator[Any]:
        if self._resampler is not None:
            yield from self._resampler.resample(None)
            self._resampler = None
            self._rate = 0

    def _encoded(self, frame: Any) -> bytes:
        if self._container is None:
            samples: bytes = frame.to_ndarray().astype("<i2").tobytes()
            if self._whole is not None:
                self._whole += samples
                return b""
            head, self._head = (self._wav_head(_UNKNOWN) if self._head else b""), False
            return head + samples
        frame.pts = None
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        return b"" if isinstance(self._out, io.BytesIO) else self._out.taken()

    def _wav_head(self, length: int) -> bytes:
        """RIFF; a length that is not known yet is the greatest, as players take it."""
        rest = length if length == _UNKNOWN else length + 36
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF",
            rest,
            b"WAVE",
            b"fmt ",
            16,
            1,
            1,
            RATE,
            2 * RATE,
            2,
            16,
            b"data",
            length,
        )


class _Pipe:
    """Where FFmpeg writes: nothing can be changed later, so it writes what can be sent at once."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last call."""
        found = bytes(self._written)
        self._written.clear()
        return found
