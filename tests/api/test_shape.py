"""JSON is read strictly, with every fault named, and what is read back is what was meant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.api.route import read_document
from gpustack.api.shape import Array, AttrsObject, Boolean, Document, Integer, Nullable, Text, shape_of
from gpustack.domain.document import encode
from gpustack.domain.report import InstanceReport, JoinRequest, StatusReport
from gpustack.errors import GpustackError

from .world import STATUS


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen(kw_only=True)
class Part:
    size: int
    colour: Colour = Colour.RED


@attrs.frozen(kw_only=True)
class Whole_:
    parts: tuple[Part, ...] = ()
    by_index: Mapping[int, float] = attrs.field(factory=dict)
    at: datetime | None = None


def read(shape: Any, value: Any) -> tuple[Any, list[str]]:
    faults: list[str] = []
    return shape.read(value, "x", faults), faults


@pytest.mark.parametrize(
    ("shape", "value", "fault"),
    [
        (Integer(), True, "x: must be a whole number"),
        (Integer(), 1.0, "x: must be a whole number"),
        (Integer(), 2**63, "x: must be at least"),
        (Integer(least=0, most=9), 10, "x: must be from 0 to 9"),
        (Integer(least=0), -1, "x: must be at least 0"),
        (Boolean(), "false", "x: must be true or false"),
        (Boolean(), 1, "x: must be true or false"),
        (Text(), 5, "x: must be text"),
        (Text(), "a\0b", "x: must not contain NUL characters"),
        (Text(shortest=1), "", "x: must not be empty"),
        (Text(longest=2), "abc", "x: must have at most 2 characters"),
        (shape_of(float), "1", "x: must be a number"),
        (shape_of(datetime), "2026-01-01T00:00:00", "x: must be an instant with its offset"),
        (shape_of(datetime), "0001-01-01T00:00:00+14:00", "x: must be an instant with its offset"),
        (shape_of(datetime), 17, "x: must be an instant with its offset"),
        (shape_of(Colour), "green", "x: must be one of red, blue"),
        (shape_of(Colour), [], "x: must be one of red, blue"),
        (shape_of(tuple[int, ...]), {"0": 1}, "x: must be a list"),
        (Array(Integer(), 2), [1, 2, 3], "x: must have at most 2 items"),
        (shape_of(tuple[int, ...]), [1, "b"], "x[1]: must be a whole number"),
        (shape_of(Mapping[str, str]), ["a"], "x: must be an object"),
        (shape_of(Mapping[str, str]), {"a": 1}, "x.a: must be text"),
        (shape_of(Mapping[int, int]), {"a": 1}, "x: key 'a' must be a whole number"),
        (shape_of(Mapping[str, int]), {"a\0": 1}, "x: key 'a\\x00' must not contain NUL characters"),
        (shape_of(Part), {}, "x.size: is missing"),
        (shape_of(Part), None, "x: must be an object"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(shape: Any, value: Any, fault: str) -> None:
    _, faults = read(shape, value)
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_a_nested_document_becomes_its_value() -> None:
    document = {
        "parts": [{"size": 1}, {"size": 2, "colour": "blue", "of a newer version": 1}],
        "by_index": {"7": 1},
        "at": "2026-01-02T05:04:05+02:00",
    }
    made, faults = read(shape_of(Whole_), document)
    assert not faults
    assert made == Whole_(
        parts=(Part(size=1), Part(size=2, colour=Colour.BLUE)),
        by_index={7: 1.0},
        at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def test_all_faults_are_told_at_once() -> None:
    shape = Document(name="D", fields={"a": Integer(), "b": Boolean()}, required=("a", "c"))
    _, faults = read(shape, {"a": "1", "b": "no"})
    assert faults == ["x.c: is missing", "x.a: must be a whole number", "x.b: must be true or false"]


def test_a_document_holds_only_what_was_sent() -> None:
    shape = Document(name="D", fields={"a": Nullable(Integer()), "b": Boolean(), "c": Nullable(Text(), "")})
    assert read(shape, {"a": None, "c": None, "unknown": 1}) == ({"a": None, "c": ""}, [])


@pytest.mark.parametrize(
    "value",
    [
        StatusReport(status=STATUS, ip="10.0.0.1", labels={"os": "linux"}),
        JoinRequest(name="w", worker_uuid="u"),
        InstanceReport(port=1, ports=(1, 2), last_restart_time=datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_a_worker_writes_is_read_back_the_same(value: Any) -> None:
    assert read_document(encode(value), AttrsObject(type(value))) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(json_values | st.fixed_dictionaries({"status": json_values, "labels": json_values}))
def test_no_document_brings_the_reader_down(value: Any) -> None:
    try:
        raw = orjson.dumps(value)
    except TypeError:  # lone surrogates: no JSON in UTF-8
        return
    try:
        read_document(raw, AttrsObject(StatusReport))
    except GpustackError as error:
        assert str(error)


@given(st.binary())
def test_no_bytes_bring_the_reader_down(raw: bytes) -> None:
    try:
        read_document(raw, AttrsObject(JoinRequest))
    except GpustackError as error:
        assert str(error)
