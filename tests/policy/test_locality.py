"""A worker that has the files already is preferred, as long as that does not work against the strategy."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB
from gpustack.policy.schedule import place
from gpustack.policy.seat import scores_of, seated

from .shapes import facts_of
from .worlds import ask, gpu, instance, model, worker, world

SMALL = facts_of("llama-3.2-1b")
SOURCE = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m", huggingface_filename="m.gguf")
OF = model(1, source=SOURCE)
THERE = [worker(key, gpus=[gpu(0)]) for key in (1, 2, 3)]


def file(key: int, on: int, **fields: Any) -> ModelFile:
    usual = {"source": SOURCE, "source_index": SOURCE.index, "state": FileState.READY}
    return ModelFile(**{"id": key, "worker_id": on, **usual, **fields})


def taken(*records: Record) -> tuple[int, float]:
    """The worker, and what locality says of it."""
    snapshot = world(*THERE, OF, *records)
    found = place(ask(OF, SMALL), snapshot)
    assert isinstance(found, Placement)
    seat = seated(found, snapshot)
    assert seat is not None
    values = {one.name: one.value for one in scores_of(seat, ask(OF, SMALL), snapshot)}
    return found.worker_id, values["locality"]


def test_the_worker_that_has_the_files_is_taken() -> None:
    assert taken() == (1, 0)
    assert taken(file(1, on=2)) == (2, 100)


def test_a_download_counts_less_and_by_quarters() -> None:
    fetching = file(1, on=3, state=FileState.DOWNLOADING, download_progress=60.0)
    assert taken(fetching) == (3, 25)
    assert taken(fetching, file(2, on=2)) == (2, 100)
    assert taken(attrs.evolve(fetching, download_progress=20.0)) == (1, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": FileState.ERROR},
        {"local_dir": "/somewhere"},
        {"source": attrs.evolve(SOURCE, revision="other")},
        {"worker_id": 7},
    ],
)
def test_what_is_of_no_use_does_not_count(fields: dict[str, Any]) -> None:
    assert taken(attrs.evolve(file(1, on=2), **fields)) == (1, 0)


def test_replicas_are_spread_all_the_same() -> None:
    """A worker with another model, or with a replica, is not filled for the files it has."""
    other = model(2)
    for of in (OF, other):
        held = instance(5, of, on=2, claim=Claim(vram={0: GIB}))
        assert taken(file(1, on=2), other, held) == (1, 0)


def test_what_is_kept_of_a_worker_is_not_kept_when_its_files_come() -> None:
    snapshot = world(*THERE, OF)
    first = place(ask(OF, SMALL), snapshot)
    assert isinstance(first, Placement)
    assert first.worker_id == 1
    for on in (3, 2):
        snapshot = snapshot.changed(file(1, on=on))
        again = place(ask(OF, SMALL), snapshot)
        assert isinstance(again, Placement)
        assert again.worker_id == on
