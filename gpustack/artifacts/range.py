"""Which bytes of a file are there: disjoint ranges, in order."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

Range = tuple[int, int]
"""From the first byte up to but without the second number."""


@attrs.frozen
class ByteRanges:
    """A set of bytes, kept as sorted ranges that neither touch nor overlap."""

    parts: tuple[Range, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[Range]) -> ByteRanges:
        """From ranges in any order, overlapping or empty; raises ValueError on a negative or reversed one."""
        merged: list[Range] = []
        for start, end in sorted(parts):
            if start < 0 or end < start:
                raise ValueError(f"no range: {start} to {end}")
            if start == end:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return cls(tuple(merged))

    def plus(self, start: int, end: int) -> ByteRanges:
        """With the bytes from ``start`` up to ``end`` added."""
        return ByteRanges.of((*self.parts, (start, end)))

    @property
    def size(self) -> int:
        """How many bytes."""
        return sum(end - start for start, end in self.parts)

    def missing(self, size: int) -> tuple[Range, ...]:
        """The ranges of a file of ``size`` bytes that are not in here."""
        gaps, at = [], 0
        for start, end in self.parts:
            if start >= size:
                break
            if at < start:
                gaps.append((at, start))
            at = max(at, end)
        if at < size:
            gaps.append((at, size))
        return tuple(gaps)
