"""The header of a safetensors file: its tensors, with type, shape and place. Bounded for hostile bytes.

Format: 8 bytes with the length of a JSON object, the object, then the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import attrs
import orjson

from gpustack.artifacts.headers.gguf import HeaderError, TruncatedHeader

FIRST_READ = 64 << 10
"""Bytes of a file that are read first: the header of a shard of a few gigabytes is shorter, but for models of many
experts."""
MOST_HEADER = 16 << 20
"""Bytes. Ten times as long as those of the largest models (one file with thousands of experts)."""
MOST_TENSORS = 1 << 17
_MOST_SIDES = 8
_LARGEST = 1 << 62
_LENGTH = struct.Struct("<Q")

TYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@attrs.frozen
class SafetensorsTensor:
    """One tensor: ``size`` is in bytes, as it lies in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        """How many numbers it has, as its shape says. Packed types hold several weights in one."""
        count = 1
        for side in self.shape:
            count *= side
        return count


@attrs.frozen
class SafetensorsHeader:
    """All tensors of one file, and what the file must have at least, in bytes."""

    tensors: tuple[SafetensorsTensor, ...]
    least_file_size: int


def header_length(data: bytes) -> int:
    """The length of the whole header, with the 8 bytes before it. Raises HeaderError, TruncatedHeader."""
    if len(data) < _LENGTH.size:
        raise TruncatedHeader(_LENGTH.size)
    (length,) = _LENGTH.unpack_from(data)
    if data[:1] in (b"<", b"v") and length > MOST_HEADER:
        raise HeaderError("it is a text (an HTML page or a Git LFS pointer) that was saved under this name")
    if not 2 <= length <= MOST_HEADER:
        raise HeaderError(f"it claims a header of {length} bytes")
    return _LENGTH.size + int(length)


def parse(data: bytes) -> SafetensorsHeader:
    """The header at the start of ``data``. Raises HeaderError, and TruncatedHeader when ``data`` ends within it."""
    end = header_length(data)
    if len(data) < end:
        raise TruncatedHeader(end)
    try:
        document = orjson.loads(memoryview(data)[_LENGTH.size : end])
    except orjson.JSONDecodeError as error:
        raise HeaderError("its header is no JSON") from error
    if not isinstance(document, dict):
        raise HeaderError("its header is no JSON object")
    if len(document) > MOST_TENSORS:
        raise HeaderError(f"it claims to have {len(document)} tensors")
    furthest, tensors = 0, []
    for name, said in document.items():
        if name == "__metadata__":
            continue
        tensor, upto = _tensor(name, said)
        tensors.append(tensor)
        furthest = max(furthest, upto)
    if sum(tensor.size for tensor in tensors) != furthest:
        raise HeaderError("its tensors overlap, or leave holes between them")
    return SafetensorsHeader(tuple(tensors), end + furthest)


def _tensor(name: str, said: Any) -> tuple[SafetensorsTensor, int]:
    """A tensor, and where its bytes end, counted from the end of the header."""
    what = name[:80]
    if not isinstance(said, dict):
        raise HeaderError(f"it does not describe the tensor {what!r}")
    dtype, shape, offsets = said.get("dtype"), said.get("shape"), said.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in TYPE_BITS:
        raise HeaderError(f"the type of the tensor {what!r} is not known ({str(dtype)[:20]!r})")
    if not isinstance(shape, list) or len(shape) > _MOST_SIDES or not all(_is_size(side) for side in shape):
        raise HeaderError(f"the shape of the tensor {what!r} is impossible")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(at) for at in offsets):
        raise HeaderError(f"the place of the tensor {what!r} is impossible")
    size = offsets[1] - offsets[0]
    tensor = SafetensorsTensor(name, dtype, tuple(shape), size)
    if size != -(-tensor.elements * TYPE_BITS[dtype] // 8):
        raise HeaderError(f"the tensor {what!r} has another size than its shape says")
    return tensor, offsets[1]


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST
