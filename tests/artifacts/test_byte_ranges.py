"""Sets of bytes: what is there and what is missing always make the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.artifacts.partial import ByteRanges

SIZE = 40
_range = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(_range, max_size=12))
def test_there_and_missing_make_the_whole(parts: list[tuple[int, int]]) -> None:
    ranges = ByteRanges.of(parts)
    there = {byte for start, end in parts for byte in range(start, end)}
    missing = {byte for start, end in ranges.missing(SIZE) for byte in range(start, end)}
    assert missing == set(range(SIZE)) - there
    assert ranges.size == len(there)
    assert all(
        end < following for (_, end), (following, _) in zip(ranges.parts, ranges.parts[1:], strict=False)
    )


@given(st.lists(_range, max_size=12))
def test_the_order_of_arrival_does_not_matter(parts: list[tuple[int, int]]) -> None:
    one_by_one = ByteRanges()
    for start, end in parts:
        one_by_one = one_by_one.plus(start, end)
    assert one_by_one == ByteRanges.of(reversed(parts))


@pytest.mark.parametrize("part", [(-1, 2), (3, 2)])
def test_a_range_that_is_none_is_refused(part: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no range"):
        ByteRanges.of([part])


def test_what_lies_beyond_the_end_is_not_missing() -> None:
    assert ByteRanges.of([(0, 10), (20, 30)]).missing(5) == ()
    assert ByteRanges.of([(2, 10)]).missing(5) == ((0, 2),)
    assert ByteRanges().missing(0) == ()
