"""The stream of assignments: whatever changes, whoever applies the lines between two pictures has the second."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.artifact import ModelFile, ModelSource, SourceKind
from gpustack.domain.assignment import (
    AssignmentEvent,
    AssignmentLine,
    AssignmentState,
    applied,
    lines_between,
)
from gpustack.domain.document import decode, encode
from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model

SOURCE = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")


def made(kind: str, key: int, version: int) -> Any:
    if kind == "models":
        return Model(id=key, version=version, name=f"m{key}", source=SOURCE)
    if kind == "files":
        return ModelFile(id=key, version=version, worker_id=1, source=SOURCE, source_index="x")
    return ModelInstance(id=key, version=version, name=f"i{key}", model_id=1, model_name="m1", source=SOURCE)


def table(kind: str) -> st.SearchStrategy[dict[int, Any]]:
    versions = st.dictionaries(st.integers(1, 6), st.integers(1, 3))
    return versions.map(lambda found: {key: made(kind, key, version) for key, version in found.items()})


pictures = st.builds(
    AssignmentState, instances=table("instances"), models=table("models"), files=table("files")
)


def told(before: AssignmentState, lines: list[AssignmentLine]) -> AssignmentState:
    for line in lines:
        before = applied(before, decode(encode(line), AssignmentLine))
    return before


@given(pictures, pictures)
def test_the_lines_between_two_pictures_lead_from_one_to_the_other(
    before: AssignmentState, after: AssignmentState
) -> None:
    assert told(before, lines_between(before, after)) == after


@given(pictures)
def test_nothing_is_told_of_what_did_not_change(picture: AssignmentState) -> None:
    assert lines_between(picture, picture) == []


@given(pictures, pictures)
def test_what_an_instance_needs_is_told_before_it(before: AssignmentState, after: AssignmentState) -> None:
    kinds = [line.kind for line in lines_between(before, after) if line.word is AssignmentEvent.PUT]
    assert kinds == sorted(kinds, key=["models", "files", "instances"].index)


@given(pictures)
def test_lines_that_say_nothing_of_records_change_nothing(picture: AssignmentState) -> None:
    lines = [
        AssignmentLine(word=AssignmentEvent.SYNCED),
        AssignmentLine(word=AssignmentEvent.STILL),
        AssignmentLine(word=AssignmentEvent.PUT, kind="of a later version", id=1),
        AssignmentLine(word=AssignmentEvent.PUT, kind="models", id=1),
        AssignmentLine(word=AssignmentEvent.GONE, kind="models", id=99),
    ]
    assert told(picture, lines) == picture


def test_applying_a_line_leaves_the_former_picture_as_it_was() -> None:
    before = AssignmentState(models={1: made("models", 1, 1)})
    applied(before, AssignmentLine(word=AssignmentEvent.GONE, kind="models", id=1))
    assert list(before.models) == [1]
