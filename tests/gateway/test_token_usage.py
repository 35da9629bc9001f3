"""Usage is found wherever an engine writes it and wherever its answer is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.gateway.token_usage import TokenUsage, UsageScanner

SAID: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def _scanned(data: bytes, *cuts: int) -> TokenUsage | None:
    scan = UsageScanner()
    start = 0
    for cut in [*sorted(cuts), len(data)]:
        scan.feed(data[start:cut])
        start = cut
    return scan.found


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        (SAID, (3, 5)),
        ({"prompt_tokens": 3, "total_tokens": 8}, (3, 5)),
        ({"prompt_tokens": 3, "total_tokens": 3}, (3, 0)),
        ({"total_tokens": 8}, (8, 0)),
        ({"prompt_tokens": 3, "completion_tokens": None}, (3, 0)),
        ({"completion_tokens": 5}, (0, 5)),
        ({"prompt_tokens": 9, "total_tokens": 3}, (9, 0)),
        ({**SAID, "prompt_tokens_details": {"cached_tokens": 1}, "note": 'a } in " text'}, (3, 5)),
    ],
)
def test_what_engines_say_is_counted(said: dict[str, Any], counted: tuple[int, int]) -> None:
    found = _scanned(json.dumps({"id": "x", "usage": said, "timings": {"n": 1}}).encode())
    assert found == TokenUsage(*counted, True)


@pytest.mark.parametrize(
    "said",
    [None, [], "8", 8, {}, {"prompt_tokens": -1}, {"prompt_tokens": True}, {"total_tokens": 10**30},
     {"prompt_tokens": "3", "completion_tokens": [5]}],
)  # fmt: skip
def test_what_cannot_be_true_is_not_counted(said: object) -> None:
    """One absurd number would spoil the sums of a day, or be more than a database takes."""
    assert _scanned(json.dumps({"usage": said}).encode()) is None


def test_usage_before_a_long_answer_is_found() -> None:
    """llama.cpp writes the usage of embeddings before their vectors."""
    vectors = [{"embedding": [0.123456789] * 1000}] * 20
    data = json.dumps({"usage": SAID, "data": vectors}).encode()
    assert _scanned(data, *range(0, len(data), 65536)) == TokenUsage(3, 5, True)


def test_the_last_of_many_counts() -> None:
    counts = [{**SAID, "completion_tokens": n} for n in range(50)]
    data = b"".join(b"data: %b\n\n" % json.dumps({"usage": one}).encode() for one in counts)
    assert _scanned(data) == TokenUsage(3, 49, True)
    assert _scanned(data, *range(0, len(data), 7)) == TokenUsage(3, 49, True)
    assert _scanned(data + b'data: {"usage": null}\n\n') == TokenUsage(3, 49, True)


def test_text_is_not_taken_for_usage() -> None:
    text = 'the "usage": {"prompt_tokens": 99, "completion_tokens": 99} of it'
    data = json.dumps({"choices": [{"message": {"content": text}}], "usage": SAID, "more": text}).encode()
    assert _scanned(data) == TokenUsage(3, 5, True)
    assert _scanned(json.dumps({"content": text}).encode()) is None


@pytest.mark.parametrize("deep", [b'{"a":' * 5000, b"[" * 9000, b'{"a":' + b"[" * 9000])
def test_nesting_without_end_is_survived(deep: bytes) -> None:
    scan = UsageScanner()
    for _ in range(10):
        scan.feed(b'{"usage": ' + deep)
    scan.feed(json.dumps({"usage": SAID}).encode())
    assert scan.found == TokenUsage(3, 5, True)


def test_an_object_that_never_ends_is_not_kept() -> None:
    scan = UsageScanner()
    scan.feed(b'"usage": {"a": "')
    for _ in range(100):
        scan.feed(b"x" * 4096)
    assert len(repr(scan)) < 50_000


@given(st.data())
def test_where_the_answer_is_cut_does_not_matter(data: st.DataObject) -> None:
    body = json.dumps({"usage": None, "a": "usage", "x": {"usage": SAID}, "text": '"usage": {}'}).encode()
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=20))
    assert _scanned(body, *cuts) == TokenUsage(3, 5, True)
