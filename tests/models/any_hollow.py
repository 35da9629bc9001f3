"""Hollow GGUFs of any architecture: keys and tensors as they are given, over a hole in a sparse file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import gguf
import numpy as np

Value: TypeAlias = bool | int | float | str | Sequence[bool | int | float]
Kind = gguf.GGMLQuantizationType

_FLAT = re.compile(
    r"norm|bias|ssm_|gate_inp|lerp|shortconv\.conv|scale|sinks|exp_probs|rel_b|hc_|ape|compress"
    r"|time_mix_(?!key|value|receptance|gate|output)"
)
"""Tensors that quantisers leave at 32 bits."""
_WHOLE_NAMES = ("general.", "tokenizer.", "xielu.")
_ALIGNMENT = 32


def write_hollow(
    path: Path, architecture: str, keys: Mapping[str, Value], tensors: Mapping[str, Sequence[int]]
) -> int:
    """Write a file without words and return the bytes of its weights: Q4_0 where a row allows it.

    ``keys`` are named within the architecture, ``tensors`` with their sides as llama.cpp has them, the row first.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("no_vocab")
    for key, value in keys.items():
        _add(writer, key if key.startswith(_WHOLE_NAMES) else f"{architecture}.{key}", value)
    hole = weights = 0
    for name, sides in tensors.items():
        kind = _kind(name, sides)
        size = tensor_bytes(name, sides)
        writer.add_tensor_info(name, tuple(reversed(sides)), np.dtype(np.float32), size, raw_dtype=kind)
        weights += size
        hole += -(-size // _ALIGNMENT) * _ALIGNMENT
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, -(-path.stat().st_size // _ALIGNMENT) * _ALIGNMENT + hole)
    return weights


def tensor_bytes(name: str, sides: Sequence[int]) -> int:
    """Bytes of a tensor of this name and shape in such a file."""
    block, size = gguf.GGML_QUANT_SIZES[_kind(name, sides)]
    return math.prod(sides) // block * size


def _kind(name: str, sides: Sequence[int]) -> Kind:
    if len(sides) < 2 or _FLAT.search(name):
        return Kind.F32
    return Kind.Q4_0 if sides[0] % 32 == 0 else Kind.F16


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))
