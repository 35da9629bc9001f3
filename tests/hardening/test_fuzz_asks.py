"""Bodies of users and answers of engines: read as any other reader would, in time that grows with their size alone."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.api.mask import masked
from gpustack.errors import BadRequest
from gpustack.gateway.json_member import members
from gpustack.gateway.meter import EventStreamMeter
from gpustack.gateway.request import LARGE, read_inference_request
from gpustack.gateway.token_usage import UsageScanner
from gpustack.identity.saml.message import decode
from gpustack.text import redacted

from .fuzzing import fuzz

pytestmark = pytest.mark.attack("parser")

WORDS = st.sampled_from(
    ["model", "stream", "stream_options", "include_usage", "a", "", "\\", '"', "{", "}", "ü", "\x00"]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)
PIECES = st.sampled_from(
    [b'"model"', b'"\\u006dodel"', b'"stream"', b'"stream_options"', b'"x"', b":", b",", b"{", b"}", b"[", b"]",
     b"true", b"null", b"1", b'"', b"\\", b'\\"', b'"\\\\"', b" ", b"\n", b"\xff", b"\x00", b"\xef\xbb\xbf",
     b'{"include_usage":true}', b'"\\ud800"', b"//", b"NaN"]
)  # fmt: skip
ALMOST_JSON = st.lists(PIECES, max_size=24).map(b"".join) | st.lists(PIECES, max_size=16).map(
    lambda found: b'{"model":"m",' + b"".join(found) + b"}"
)


def pairs(body: bytes) -> list[tuple[str, Any]]:
    """The members of the outermost object, repeated ones too, as Python's own reader sees them."""
    seen = json.loads(body, object_pairs_hook=lambda found: found)
    assert isinstance(seen, list)
    return seen


@fuzz(300)
@given(st.lists(st.tuples(WORDS, JSON), max_size=6), st.sampled_from([None, 2]), st.booleans())
def test_members_are_those_of_any_reader_of_json(
    found: list[tuple[str, Any]], indent: int | None, escaped: bool
) -> None:
    parts = [
        json.dumps(key, ensure_ascii=escaped) + " : " + json.dumps(value, indent=indent, ensure_ascii=escaped)
        for key, value in found
    ]
    body = ("{" + " ,".join(parts) + "}").encode()
    assert [(key, json.loads(body[start:end])) for key, start, end in members(body)] == found


@fuzz(400)
@given(ALMOST_JSON)
def test_a_body_names_the_one_model_that_an_engine_would_read(body: bytes) -> None:
    """Also beyond the size from which bodies are not parsed as a whole, and whatever comes of the splice."""
    for given_ in (body, body + b" " * (LARGE + 1 - len(body))):
        try:
            ask = read_inference_request(given_)
        except BadRequest as error:
            assert str(error)
            continue
        try:
            named = [value for key, value in pairs(ask.body) if key == "model"]
        except (ValueError, AssertionError):
            assert len(given_) > LARGE  # not looked at as a whole: no engine takes it either
            continue
        assert named == [ask.model]
        options = [value for key, value in pairs(ask.body) if key == "stream_options"]
        assert len(options) <= 1
        if ask.hide_usage:
            assert [value for key, value in options[0] if key == "include_usage"][-1] is True


STREAM = st.lists(
    st.sampled_from(
        [b'data: {"choices":[{"delta":{}}]}', b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
         b"\n", b"\r", b"\r\n", b"\n\n", b"data:", b'"usage"', b'"usage":{', b'"usage":{"prompt_tokens":', b"9" * 30,
         b"}", b": ping", b"data: [DONE]", b"\xff", b"x" * 300, b'"usage":{"a":' * 40, b"\x00", b"event: error"]
    ),
    max_size=20,
)  # fmt: skip


@fuzz(400)
@given(STREAM.map(b"".join), st.lists(st.integers(0, 3000), max_size=40), st.booleans())
def test_a_stream_comes_to_the_same_however_it_is_cut(data: bytes, cuts: list[int], hide: bool) -> None:
    def passed(edges: list[int]) -> tuple[bytes, Any]:
        meter, out = EventStreamMeter(hide), b""
        for start, end in zip([0, *edges], [*edges, len(data)], strict=True):
            out += meter.take(data[start:end])
        return out + meter.rest(), meter.usage()

    whole, usage = passed([])
    out, seen = passed(sorted(min(cut, len(data)) for cut in cuts))
    assert out == whole
    assert hide or out == data
    # What is counted may differ: an engine that writes "usage" everywhere is not looked at everywhere.
    for counted in (usage, seen):
        if counted is not None:
            assert 0 <= counted.prompt <= 1 << 31 and 0 <= counted.completion <= 1 << 31


def grown(half: bytes) -> None:
    """An event that has come half, and then comes by the byte."""
    meter = EventStreamMeter(True)
    meter.take(half + b"x" * 500_000)
    for _ in range(20_000):
        meter.take(b"x")


def scanned(unit: bytes) -> None:
    scan = UsageScanner()
    for _ in range(300):
        scan.feed((unit * 7000)[: 64 << 10])


def undeclared(xml: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(base64.b64encode(xml).decode())


QUOTES = b'\\"' * 100_000
COSTS: dict[str, Callable[[], object]] = {
    "a string of quotes without an end": lambda: list(members(b'{"model":"x","a":"' + QUOTES)),
    "the same in a list": lambda: list(members(b'{"model":"x","a":["' + QUOTES)),
    "backslashes without an end": lambda: list(members(b'{"model":"x","a":"' + b"\\" * 200_001)),
    "a nest of what looks like usage": lambda: scanned(b'"usage":{'),
    "a nest of lists of it": lambda: scanned(b'"usage":{"a":['),
    "usage that breaks off": lambda: scanned(b'"usage":{"usage":1,'),
    "an event that comes by the byte": lambda: grown(b""),
    "one with half a line's end": lambda: grown(b"\r"),
    "a text of dashes": lambda: masked("-" * 200_000),
    "a flag of secrets": lambda: masked("-" + "token" * 40_000),
    "flags without values": lambda: masked("-token-" * 30_000),
    "words without a flag": lambda: masked("a" * 200_000 + "-" * 10),
    "a declaration of encodings": lambda: undeclared(b"<?xml " + b'encoding="x" ' * 12_000),
    "lines of a log like secrets": lambda: redacted(
        "bearer " * 30_000 + "://" * 30_000 + "gpustack_" * 30_000
    ),
}


@pytest.mark.attack("flood")
@pytest.mark.parametrize("kind", sorted(COSTS))
def test_what_is_malformed_costs_no_more_than_its_size(kind: str) -> None:
    """Each took minutes of the processor once, all in the one thread that serves everybody; now a second at most."""
    before = time.process_time()
    COSTS[kind]()
    assert time.process_time() - before < 20
