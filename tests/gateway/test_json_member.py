"""Members of an object are found in its bytes, as a parser would."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpustack.gateway.json_member import members

texts = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(
    ["model", "stream", '"', "\\", '\\"', "{", "}]", ",", ":", "\\u006d"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def _written(pairs: list[tuple[str, Any]], space: str, ascii_only: bool) -> bytes:
    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, separators=(f"{space},{space}", f"{space}:{space}"))

    inner = f"{space},{space}".join(f"{dump(key)}{space}:{space}{dump(value)}" for key, value in pairs)
    return f"{space}{{{space}{inner}{space}}}{space}".encode()


@given(
    st.lists(st.tuples(texts, values), max_size=5),
    st.sampled_from(["", " ", "\r\n\t "]),
    st.booleans(),
)
def test_every_member_is_found_with_its_value_repeated_ones_too(
    pairs: list[tuple[str, Any]], space: str, ascii_only: bool
) -> None:
    body = _written(pairs, space, ascii_only)
    assert [key for key, _, _ in members(body)] == [key for key, _ in pairs]
    for (_, start, end), (_, value) in zip(members(body), pairs, strict=True):
        assert body[start:end] == body[start:end].strip()
        assert json.loads(body[start:end]) == value


@given(st.binary(max_size=64))
def test_what_is_not_json_ends_quietly(body: bytes) -> None:
    for _, start, end in members(body):
        assert 0 < start <= end <= len(body)


def test_a_key_spelt_with_escapes_is_that_key() -> None:
    assert [key for key, _, _ in members(rb'{"\u006dodel": 1, "model": 2}')] == ["model", "model"]


def test_deep_nesting_takes_no_memory() -> None:
    body = b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b', "model": "m"}'
    tracemalloc.start()
    try:
        assert [key for key, _, _ in members(body)] == ["deep", "model"]
        assert tracemalloc.get_traced_memory()[1] < 5 * len(body)
    finally:
        tracemalloc.stop()
