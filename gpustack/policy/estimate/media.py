"""The memory that models of speech and of images take, by the size of their files."""

from __future__ import annotations

import math

from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import GIB, MIB
from gpustack.engines.vox_box import speaks_without_files

_WHISPER: tuple[tuple[int, int, int], ...] = (
    (100 * MIB, 1 * GIB, 3 * GIB // 2),
    (200 * MIB, 1 * GIB, 3 * GIB // 2),
    (500 * MIB, 2 * GIB, 3 * GIB),
    (3 * GIB // 2, 5 * GIB, 15 * GIB // 2),
    (1600 * GIB // 1000, 6 * GIB, 9 * GIB),
    (3100 * GIB // 1000, 10 * GIB, 15 * GIB),
)
"""Bytes of files up to which → of video memory; of host memory without a device. The table of the existing product for
faster-whisper, whose smallest row is a bound for the tiny model, and whose last is for the largest."""
_ESPEAK = 64 * MIB
_VOICES = 256 * MIB
_VOICE_FACTOR = 2
"""An ONNX network as onnxruntime holds it: its weights once as read and once as laid out for the CPU."""


def speech_needs(model: Model, facts: ModelFacts | None) -> tuple[int, int] | None:
    """Bytes of video memory (0: it uses no device) and of host memory without a device; ``None`` where the size of
    the files is not known."""
    if speaks_without_files(model):
        return 0, _ESPEAK
    size = None if facts is None else facts.file_size
    if size is None:
        return None
    speaks = Category.TEXT_TO_SPEECH in model.categories or (
        facts is not None and facts.category is Category.TEXT_TO_SPEECH
    )
    if speaks:
        return 0, _VOICES + _VOICE_FACTOR * size
    vram, ram = next(((vram, ram) for most, vram, ram in _WHISPER if size <= most), (0, 0))
    return (vram, ram) if vram else (3 * size + GIB, 5 * size)


_IMAGE_FACTOR = 1.1
_IMAGE_SURPLUS = 3 * GIB
"""For what is computed with beside the weights: an image of 1024 x 1024 pixels of a larger pipeline."""
_HOST = 2 * GIB
"""Of the host beside a device: torch with its libraries."""


def image_needs(facts: ModelFacts | None) -> tuple[int, int, int] | None:
    """Bytes of video memory, of host memory beside a device, and of host memory without one, where the weights are
    computed with twice as wide; ``None`` where the size of the files is not known."""
    size = None if facts is None else (facts.weights or facts.file_size)
    if size is None:
        return None
    weights = math.ceil(size * _IMAGE_FACTOR)
    return weights + _IMAGE_SURPLUS, _HOST, 2 * weights + _IMAGE_SURPLUS + _HOST
