"""The header of a GGUF file: metadata and the list of tensors. Bounded for hostile bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import attrs

FIRST_READ = 1 << 20
"""Bytes of a file that are read first; most headers are shorter."""
FURTHER_READ = 4 << 20
MOST_HEADER = 256 << 20
"""Bytes. Vocabularies of 256k tokens with merges and scores take 15 MiB."""
MOST_KEYS = 1 << 16
MOST_TENSORS = 1 << 16
"""Fifty times as many as the largest models have; each becomes a Python object."""
MOST_TEXTS = 1 << 22
"""In one array; the largest vocabularies have a sixteenth of that."""
MOST_ARRAYS = 1 << 16
"""Arrays within arrays, in all."""
MOST_SIDES = 8
LONGEST_NAME = 1 << 16
LONGEST_TEXT = 16 << 20
DEEPEST_ARRAY = 4
KEPT_ITEMS = 4096
"""Longer arrays of numbers (scores and types of tokens) become a ``SkippedArray``, and so does every array of texts."""

_ALIGNMENT = 32
"""Alignment of the tensor data in bytes, unless the file states another."""
_MAGIC = b"GGUF"
_TEXT, _ARRAY = 8, 9
_SCALARS: Mapping[int, struct.Struct] = {
    kind: struct.Struct(f"<{code}")
    for kind, code in {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
    }.items()
}  # fmt: skip
_U32, _U64 = _SCALARS[4], _SCALARS[10]

BLOCKS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
"""Type number of a tensor → its name, and how many elements take how many bytes."""

Value: TypeAlias = "int | float | bool | str | tuple[Value, ...] | SkippedArray"


_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "it is a Git LFS pointer in place of the file: run 'git lfs pull' where it was cloned",
    ),
    (b"<!doctype html", "it is an HTML page that was saved under this name: download the file itself"),
    (b"<html", "it is an HTML page that was saved under this name: download the file itself"),
    (b"<?xml", "it is an XML document, such as stores answer in place of a file: download it again"),
    (b"{", "it is a JSON document or safetensors: choose a GGUF file"),
    (b"PK\x03\x04", "it is a ZIP archive or a PyTorch file: choose a GGUF file"),
    (b"\x1f\x8b", "it is compressed (gzip): unpack it"),
    (b"\x28\xb5\x2f\xfd", "it is compressed (zstd): unpack it"),
    (b"tjgg", "it is of the format before GGUF (ggml): convert it, or choose a newer file"),
    (b"lmgg", "it is of the format before GGUF (ggml): convert it, or choose a newer file"),
)
"""The first bytes, in lower case, of files that users take for GGUF files, and what each is."""


class HeaderError(ValueError):
    """These bytes are not a header that we can read; ``str(error)`` is a clause that says why."""


class TruncatedHeader(HeaderError):
    """The header continues beyond the given bytes; at least ``needed`` bytes of the file are needed."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        # The magic of four bytes is read first.
        super().__init__(
            "it is empty, or nearly so: download it again"
            if needed <= 4
            else f"the file ends within its header (at least {needed} bytes are needed): download it again"
        )


@attrs.frozen
class SkippedArray:
    """Stands for an array that was not kept; ``items`` is its length."""

    items: int


@attrs.frozen
class GgufTensor:
    """A tensor. ``shape`` is innermost first, ``offset`` counts from the end of the header, ``size`` is in bytes.

    ``size`` is ``None`` for a type that ``BLOCKS`` does not have, unless it follows from the next offset.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int | None

    @property
    def elements(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count


@attrs.frozen(kw_only=True)
class GgufHeader:
    """A parsed header. ``size`` is its own length in bytes, without padding."""

    version: int
    metadata: Mapping[str, Value] = attrs.field(repr=False)
    tensors: tuple[GgufTensor, ...] = attrs.field(repr=False)
    size: int

    @property
    def least_file_size(self) -> int:
        """The least number of bytes of a complete file: a last tensor of unknown size counts nothing."""
        if not self.tensors:
            return self.size
        alignment = self.metadata.get("general.alignment")
        step = alignment if isinstance(alignment, int) and alignment > 0 else _ALIGNMENT
        data = -(-self.size // step) * step
        return data + max(one.offset + (one.size or 0) for one in self.tensors)


def _format_of(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    known = next((what for sign, what in _OTHER_FORMATS if start.startswith(sign.lower())), None)
    if known is None and data[8:9] == b"{":
        known = "it is a safetensors file: choose a GGUF file"
    if known is None and data and not data[:256].strip(b"\0"):
        known = "it begins with zeros: it was not fetched whole, or the disk lost it"
    return known or "it does not start as a GGUF file does"


def parse(data: bytes) -> GgufHeader:
    """Parse the header at the start of ``data``, which may be the whole file or only its beginning.

    Takes about 0.1 s for a vocabulary of 256k tokens, and for hostile bytes at most some seconds, and memory of a few
    times the size of ``data``. Raises TruncatedHeader when more bytes are needed, HeaderError when they are no GGUF.
    """
    at = _Cursor(data)
    if data[:4] != _MAGIC[: len(data[:4])]:
        raise HeaderError(_format_of(data))
    at.skip(4)
    version = at.number(_U32)
    if version & 0xFFFF == 0 and version:
        raise HeaderError("it is a big-endian GGUF file, which is not supported")
    if version not in (2, 3):
        raise HeaderError(f"its GGUF version is {version}: versions 2 and 3 are supported")
    tensors, keys = at.number(_U64), at.number(_U64)
    if tensors > MOST_TENSORS or keys > MOST_KEYS:
        raise HeaderError(f"it claims to have {tensors} tensors and {keys} keys")
    metadata: dict[str, Value] = {}
    for _ in range(keys):
        key = at.text(LONGEST_NAME)
        if key in metadata:
            raise HeaderError(f"its key {key[:80]!r} stands there twice")
        metadata[key] = _value(at, at.number(_U32), 0)
    found = [_tensor(at) for _ in range(tensors)]
    return GgufHeader(version=version, metadata=metadata, tensors=_sized(found), size=at.place)


@attrs.define
class _Cursor:
    data: bytes
    place: int = 0
    arrays: int = 0

    def skip(self, count: int) -> int:
        """Move forward by ``count`` bytes and return the former place; raises TruncatedHeader, HeaderError."""
        start, end = self.place, self.place + count
        if end > len(self.data):
            if end > MOST_HEADER:
                raise HeaderError(f"its header claims to be larger than {MOST_HEADER} bytes")
            raise TruncatedHeader(end)
        self.place = end
        return start

    def number(self, form: struct.Struct) -> int:
        value: int = form.unpack_from(self.data, self.skip(form.size))[0]
        return value

    def text(self, longest: int) -> str:
        length = self.number(_U64)
        if length > longest:
            raise HeaderError(f"it has a text of {length} bytes where at most {longest} are allowed")
        start = self.skip(length)
        return self.data[start : start + length].decode("utf-8", "replace")

    def skip_texts(self, count: int) -> None:
        """Skip texts without decoding them: this loop runs hundreds of thousands of times."""
        data, place, read, have = self.data, self.place, _U64.unpack_from, len(self.data)
        for _ in range(count):
            if place + 8 > have:
                self.place = have
                self.skip(place + 8 - have)
            place += 8 + read(data, place)[0]
        self.place = min(place, have)
        self.skip(place - self.place)


def _value(at: _Cursor, kind: int, depth: int) -> Value:
    if kind == _TEXT:
        return at.text(LONGEST_TEXT)
    if kind == _ARRAY:
        return _array(at, depth + 1)
    form = _SCALARS.get(kind)
    if form is None:
        raise HeaderError(f"it has a value of type {kind}, which does not exist")
    return at.number(form)


def _array(at: _Cursor, depth: int) -> Value:
    if depth > DEEPEST_ARRAY:
        raise HeaderError("it nests arrays too deeply")
    kind, count = at.number(_U32), at.number(_U64)
    if kind == _TEXT:
        if count > MOST_TEXTS:
            raise HeaderError(f"it has an array of {count} texts")
        at.skip_texts(count)
        return SkippedArray(count)
    if kind == _ARRAY:
        at.arrays += count
        if count > KEPT_ITEMS or at.arrays > MOST_ARRAYS:
            raise HeaderError(f"it has an array of {count} arrays")
        return tuple(_array(at, depth + 1) for _ in range(count))
    form = _SCALARS.get(kind)
    if form is None:
        raise HeaderError(f"it has an array of type {kind}, which does not exist")
    start = at.skip(form.size * count)
    if count > KEPT_ITEMS:
        return SkippedArray(count)
    return struct.unpack_from(f"<{count}{form.format[1:]}", at.data, start)


def _tensor(at: _Cursor) -> GgufTensor:
    name = at.text(LONGEST_NAME)
    sides = at.number(_U32)
    if sides > MOST_SIDES:
        raise HeaderError(f"its tensor {name[:80]!r} claims to have {sides} dimensions")
    shape = tuple(at.number(_U64) for _ in range(sides))
    kind, offset = at.number(_U32), at.number(_U64)
    elements = 1
    for side in shape:
        elements *= side
    if elements >= 1 << 62:
        raise HeaderError(f"its tensor {name[:80]!r} claims to have {elements} elements")
    block = BLOCKS.get(kind)
    size = None
    if block is not None:
        _, per, taken = block
        size = -(-elements // per) * taken
    return GgufTensor(name, shape, kind, offset, size)


def _sized(tensors: list[GgufTensor]) -> tuple[GgufTensor, ...]:
    """Give tensors of unknown types a size: up to the next offset."""
    if all(tensor.size is not None for tensor in tensors):
        return tuple(tensors)
    starts = sorted({tensor.offset for tensor in tensors})
    following = dict(pairwise(starts))
    return tuple(
        attrs.evolve(tensor, size=following[tensor.offset] - tensor.offset)
        if tensor.size is None and tensor.offset in following
        else tensor
        for tensor in tensors
    )


def next_read(have: int, needed: int) -> int:
    """How many bytes to have next: at least twice as many, since every try parses from the beginning."""
    return min(max(needed, 2 * have, have + FURTHER_READ), MOST_HEADER)


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file on this machine; blocking. Raises HeaderError, OSError."""
    data = b""
    wanted = FIRST_READ
    with path.open("rb") as file:
        while True:
            more = file.read(wanted - len(data))
            data += more
            try:
                return parse(data)
            except TruncatedHeader as cut:
                if not more:
                    raise
                wanted = next_read(len(data), cut.needed)
