"""Model files that could not be fetched."""

from __future__ import annotations

from collections.abc import Iterator

from gpustack.domain.artifact import FileState, ModelFile
from gpustack.domain.event import ObjectKind
from gpustack.policy.attention import (
    NAMED,
    ActionKind,
    AttentionLook,
    Trouble,
    TroubleAction,
    TroubleObject,
    TroubleSeverity,
    cut,
    earliest,
)
from gpustack.text import counted, listed

KIND = "files"
_MOST_ACTIONS = 3


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each source."""
    failed: dict[str, list[ModelFile]] = {}
    for file in look.snapshot.files.values():
        if file.state is FileState.ERROR and file.deleted_at is None:
            failed.setdefault(file.source_index, []).append(file)
    for index, files in failed.items():
        workers = [(file, look.snapshot.workers.get(file.worker_id)) for file in files]
        names = [f"worker {file.worker_id}" if one is None else one.name for file, one in workers]
        first = files[0]
        yield Trouble(
            id=f"{KIND}:source:{index[:16]}",
            kind=KIND,
            severity=TroubleSeverity.WARNING,
            text=cut(
                f"{first.source.readable} could not be fetched on {listed(names, NAMED)}: {first.state_message}"
            ),
            since=earliest(file.updated_at for file in files),
            object=TroubleObject(kind=ObjectKind.FILE.value, id=first.id, name=first.source.readable),
            count=len(files),
            actions=tuple(_actions(files, names)),
        )


def more(count: int) -> str:
    return f"The files of {counted(count, 'more source')} could not be fetched"


def _actions(files: list[ModelFile], names: list[str]) -> Iterator[TroubleAction]:
    for file, name in list(zip(files, names, strict=True))[:_MOST_ACTIONS]:
        yield TroubleAction(
            kind=ActionKind.FETCH_AGAIN,
            label=f"Fetch again on {name}",
            method="POST",
            path=f"/v1/model-files/{file.id}/reset",
        )
