"""Every record class survives the way to its row, to JSON, and back."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import attrs
import orjson
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.device import Device
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.record import Record
from gpustack.domain.worker import Worker, WorkerStatus
from gpustack.store.codec import codec, from_json, to_json
from gpustack.store.table import metadata, specs, tables

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
INSTANTS = st.datetimes(timezones=st.just(UTC))
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type as domain records use them."""
    origin, arms = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return JSON
    if origin is tuple:
        return st.lists(values(arms[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(values(arms[0]), values(arms[1]), max_size=3)
    if arms:
        return st.one_of(*(values(arm) for arm in arms))
    if attrs.has(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{field.name: values(hints[field.name]) for field in attrs.fields(hint)})
    simple = {
        type(None): st.none(),
        int: INT64,
        str: TEXT,
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        datetime: INSTANTS,
        date: st.dates(),
    }
    return simple[hint] if hint in simple else st.sampled_from(hint)


@pytest.mark.parametrize("cls", specs, ids=lambda cls: cls.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_record_comes_back_as_it_was(cls: type[Record], data: st.DataObject) -> None:
    record = data.draw(values(cls))
    assert from_json(cls, to_json(record)) == record
    row = {**codec(cls).row(record), "id": record.id}
    assert codec(cls).record(row) == record


@pytest.mark.parametrize("cls", specs, ids=lambda cls: cls.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_record_comes_back_from_its_table(cls: type[Record], data: st.DataObject) -> None:
    before, after = data.draw(values(cls)), data.draw(values(cls))
    after = attrs.evolve(after, id=7)
    engine = sa.create_engine("sqlite://")
    table = tables[cls]
    with engine.begin() as conn:
        metadata.create_all(conn)
        conn.execute(sa.insert(table), {**codec(cls).row(before), "id": 7})
        changed = codec(cls).changed(attrs.evolve(before, id=7), after)
        if changed:
            conn.execute(sa.update(table).values(changed))
        (row,) = conn.execute(sa.select(table)).all()
        assert codec(cls).record(dict(row._mapping)) == after
    engine.dispose()


def test_keys_of_a_newer_program_are_passed_over() -> None:
    source = ModelSource(kind=SourceKind.OLLAMA, ollama_library_model_name="x")
    record = ModelInstance(name="m", model_id=1, model_name="m", source=source)
    document = orjson.loads(to_json(record))
    document["spaceship"] = True
    document["source"]["warp"] = [9]
    assert from_json(ModelInstance, orjson.dumps(document).decode()) == record


@pytest.mark.parametrize("path", [("port",), ("status", "memory"), ("status", "gpu_devices", 0, "uuid")])
def test_what_an_older_program_does_not_know_does_not_take_its_default(path: tuple[str | int, ...]) -> None:
    device = Device(index=0, name="g", vendor="v", type="cuda")
    worker = Worker(name="w", worker_uuid="u", status=WorkerStatus(gpu_devices=(device,)))
    document = orjson.loads(to_json(worker))
    part = document
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    with pytest.raises(KeyError):
        from_json(Worker, orjson.dumps(document).decode())


def test_a_number_that_is_none_does_not_keep_a_record_from_loading() -> None:
    placement = Placement(worker_id=1, claim=Claim(vram={0: 1}), score=math.nan)
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/x")
    record = ModelInstance(name="m", model_id=1, model_name="m", source=source, placement=placement)
    back = from_json(ModelInstance, to_json(record))
    assert back.placement is not None
    assert math.isnan(back.placement.score)
    assert back.placement.claim == placement.claim


def test_text_that_no_database_takes_is_written_out_and_keeps_no_row_waiting() -> None:
    odd = "caf\udce9\0\r\n\x1b"
    told = "caf\\xe9\\x00\r\n\x1b"
    worker = Worker(name=odd, worker_uuid="u", labels={"a": odd})
    row = codec(Worker).row(worker)
    assert (row["name"], orjson.loads(row["labels"])) == (told, {"a": told})
    assert from_json(Worker, to_json(worker)).name == told
