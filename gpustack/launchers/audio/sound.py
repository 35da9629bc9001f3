"""Reads sound of any usual format, from a file that somebody has sent: mono, 16 kHz, in blocks of bounded length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import av
import numpy as np

RATE = 16_000
BLOCK_SECONDS = 600.0
"""The memory that a transcription takes grows with what it is given at a time; a longer sound is cut where it is
quietest in the last seconds of a block."""
_FRAME_SECONDS = 60.0
_MOST_CHANNELS = 16
_MOST_RATE = 768_000
"""Of a frame, as the file declares it. Real ones are far below; a few bytes that declare more would have the resampler
take gigabytes, before the length of what it made could be looked at."""
_CUT_WITHIN = 30.0
_WINDOW = RATE // 10

_FORMATS = (
    "wav", "w64", "aiff", "au", "caf", "flac", "mp3", "aac", "ogg", "opus", "matroska,webm", "webm",
    "mov,mp4,m4a,3gp,3g2,mj2", "mp4", "mpeg", "mpegts", "amr", "asf", "avi", "ac3", "wv", "tta", "ape",
)  # fmt: skip
"""The formats that are read. Playlists and lists of files are none of them: they would have us open addresses."""

Samples = np.ndarray[Any, np.dtype[np.float32]]


class UnreadableSound(Exception):
    """``str()`` says why."""


def blocks(file: IO[bytes], most_seconds: float, block_seconds: float = BLOCK_SECONDS) -> Iterator[Samples]:
    """The sound, in blocks of at most ``block_seconds``, decoded as it is asked for. Raises ``UnreadableSound``."""
    most = int(block_seconds * RATE)
    kept: list[Samples] = []
    length, total = 0, 0
    for samples in _decoded(file):
        kept.append(samples)
        length += len(samples)
        total += len(samples)
        if total > most_seconds * RATE:
            raise UnreadableSound(f"The sound is longer than {most_seconds:g} s, the most that is taken here")
        if length >= most:
            rest = np.concatenate(kept)
            while len(rest) >= most:
                cut = _quietest(rest[:most])
                yield rest[:cut]
                rest = rest[cut:]
            kept, length = [rest], len(rest)
    if length:
        yield np.concatenate(kept)
    elif not total:
        raise UnreadableSound("There is no sound in the file")


def _decoded(file: IO[bytes]) -> Iterator[Samples]:
    options = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "none"}
    try:
        with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise UnreadableSound("The file holds no sound")
            stream.thread_type = "NONE"
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            for frame in _frames(container, stream):
                _check(frame)
                for resampled in resampler.resample(frame):
                    yield resampled.to_ndarray().reshape(-1)
            for resampled in resampler.resample(None):
                yield resampled.to_ndarray().reshape(-1)
    except av.error.FFmpegError as error:
        raise UnreadableSound(f"The file cannot be read as sound: {error.strerror or error}") from error


def _check(frame: Any) -> None:
    """Raises ``UnreadableSound`` for a frame that would take too much memory to resample."""
    if not 0 < frame.sample_rate <= _MOST_RATE:
        raise UnreadableSound(
            f"The sound declares {frame.sample_rate} samples a second; {_MOST_RATE} are the most"
        )
    if frame.samples > _FRAME_SECONDS * frame.sample_rate:
        raise UnreadableSound(f"A single frame of the sound lasts longer than {_FRAME_SECONDS:g} s")
    if len(frame.layout.channels) > _MOST_CHANNELS:
        raise UnreadableSound(
            f"The sound has more than {_MOST_CHANNELS} channels, the most that are taken here"
        )


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """The frames that can be decoded; a broken one is passed over, unless none is whole."""
    whole, broken = 0, None
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                whole += 1
                frame.pts = None  # what is missing in between is not to be filled up
                yield frame
        except av.error.InvalidDataError as error:
            broken = error
    if broken is not None and not whole:
        raise broken


def _quietest(block: Samples) -> int:
    """Where to cut: the middle of the quietest tenth of a second near the end."""
    tail = block[-int(_CUT_WITHIN * RATE) :]
    windows = tail[: len(tail) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    quietest = int(np.argmin(np.square(windows).mean(axis=1)))
    return len(block) - len(tail) + quietest * _WINDOW + _WINDOW // 2
