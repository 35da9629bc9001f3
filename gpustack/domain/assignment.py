"""What one worker has to run and keep: the values of the assignment stream from the server to a worker."""

from __future__ import annotations

from enum import StrEnum

import attrs

from .artifact import ModelFile
from .instance import ModelInstance
from .model import Model
from .ray import RayHead


class AssignmentEvent(StrEnum):
    """Kinds of lines in the stream."""

    PUT = "put"
    GONE = "gone"
    SYNCED = "synced"
    """The state is complete: records that were not sent do not exist."""
    STILL = "still"
    """Nothing new: a sign that the stream lives."""


@attrs.frozen(kw_only=True)
class AssignmentLine:
    """One line of the stream: a record that is new or changed, or the id of one that is no longer this worker's."""

    word: AssignmentEvent
    instance: ModelInstance | None = None
    file: ModelFile | None = None
    model: Model | None = None
    ray_head: RayHead | None = None
    kind: str = ""
    id: int = 0


@attrs.frozen
class AssignmentState:
    """All records that concern one worker at one revision, by id: instances, their models, files, Ray's head."""

    instances: dict[int, ModelInstance] = attrs.field(factory=dict)
    models: dict[int, Model] = attrs.field(factory=dict)
    files: dict[int, ModelFile] = attrs.field(factory=dict)
    ray_heads: dict[int, RayHead] = attrs.field(factory=dict)
    """At most one, the same for all workers."""

    KINDS = ("ray_heads", "models", "files", "instances")
    """In the order of the stream: what an instance needs is sent before it and removed after it."""


_NOTHING = AssignmentState()
_FIELD = {"instances": "instance", "models": "model", "files": "file", "ray_heads": "ray_head"}


def lines_between(before: AssignmentState, after: AssignmentState) -> list[AssignmentLine]:
    """The lines that bring a worker from ``before`` to ``after``; removals come last."""
    lines: list[AssignmentLine] = []
    gone: list[AssignmentLine] = []
    for kind in AssignmentState.KINDS:
        old, new = getattr(before, kind), getattr(after, kind)
        for key, record in new.items():
            if key not in old or old[key].version != record.version:
                lines.append(
                    AssignmentLine(word=AssignmentEvent.PUT, kind=kind, id=key, **{_FIELD[kind]: record})
                )
        gone = [
            AssignmentLine(word=AssignmentEvent.GONE, kind=kind, id=key) for key in old if key not in new
        ] + gone
    return lines + gone


def applied(
    state: AssignmentState, line: AssignmentLine, kept: AssignmentState = _NOTHING
) -> AssignmentState:
    """The state after one line. A record that could not be read stays as it is in ``kept``, for it still exists."""
    if line.word not in (AssignmentEvent.PUT, AssignmentEvent.GONE) or line.kind not in AssignmentState.KINDS:
        return state
    table = dict(getattr(state, line.kind))
    if line.word is AssignmentEvent.GONE:
        table.pop(line.id, None)
    else:
        record = getattr(line, _FIELD[line.kind]) or getattr(kept, line.kind).get(line.id)
        if record is not None:
            table[line.id] = record
    return attrs.evolve(state, **{line.kind: table})
