"""A worker is out whose disk has no room for the files that are not there."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.record import Record
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Filesystem, ModelDisk, Worker
from gpustack.policy.schedule import place

from .shapes import facts_of
from .worlds import ask, instance, model, worker, world

FACTS = attrs.evolve(facts_of("llama-3.2-1b"), file_size=10 * GIB, projector_size=None)


def hub(name: str) -> ModelSource:
    return ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id=f"me/{name}", huggingface_filename="m.gguf"
    )


OF, OTHER = model(1, source=hub("m")), model(2, source=hub("other"))


def disk(key: int, gib: float | None, *, evicts: bool = False) -> Worker:
    there = worker(key)
    available = None if gib is None else int(gib * GIB)
    root = Filesystem(name="/", mount_point="/", available=GIB)
    data = Filesystem(name="/data", mount_point="/data", available=available)
    status = attrs.evolve(
        there.status, filesystem=(root, data), model_disk=ModelDisk(mount_point="/data", evicts=evicts)
    )
    return attrs.evolve(there, status=status)


def file(key: int, of: ModelSource, on: int = 1, **fields: Any) -> ModelFile:
    usual = {"source": of, "source_index": of.index, "state": FileState.READY, "size": 10 * GIB}
    return ModelFile(**{"id": key, "worker_id": on, **usual, **fields})


def outcome(*records: Record) -> int | str:
    found = place(ask(OF, FACTS), world(OF, OTHER, *records))
    return found.worker_id if isinstance(found, Placement) else found.sentence


def test_the_bytes_and_the_knobs_are_told() -> None:
    assert str(outcome(disk(1, 9))).startswith(
        "Worker node-a would have to fetch 10.0 GiB of model files, and has 9.0 GiB of disk for them: remove some "
        "(gpustack files evict --worker node-a), let it remove unused files (--evict-unused-files), or choose another "
        "--cache-dir"
    )
    assert outcome(disk(1, 9), disk(2, 11)) == 2


@pytest.mark.parametrize("gib", [None, 10, 500])
def test_what_has_room_or_has_not_told_is_taken(gib: float | None) -> None:
    assert outcome(disk(1, gib)) == 1
    assert outcome(attrs.evolve(disk(1, 9), status=worker(1).status)) == 1


def test_what_is_there_needs_no_room() -> None:
    assert outcome(disk(1, 0), file(1, OF.source)) == 1
    half = file(1, OF.source, state=FileState.DOWNLOADING, download_progress=50.0)
    assert outcome(disk(1, 6), half) == 1
    assert "fetch 5.0 GiB" in str(outcome(disk(1, 4), half))


def test_what_others_are_still_to_fetch_is_not_free() -> None:
    waits = instance(5, OTHER, on=1, claim=Claim(ram=8 * GIB), state=InstanceState.SCHEDULED)
    assert "has 7.0 GiB of disk" in str(outcome(disk(1, 15), waits)), "its size is not known: what it claims"
    fetching = file(1, OTHER.source, state=FileState.DOWNLOADING, size=6 * GIB, download_progress=50.0)
    assert outcome(disk(1, 15), waits, fetching) == 1
    assert outcome(disk(1, 15), attrs.evolve(waits, state=InstanceState.RUNNING)) == 1
    same = attrs.evolve(waits, model_id=1, source=OF.source)
    assert outcome(disk(1, 15), same) == 1, "they are the same files"


def test_files_that_the_worker_may_remove_are_room() -> None:
    unused = file(1, OTHER.source)
    assert isinstance(outcome(disk(1, 5), unused), str)
    assert outcome(disk(1, 5, evicts=True), unused) == 1
    assert "add a disk" in str(outcome(disk(1, 5, evicts=True), attrs.evolve(unused, pinned=True)))
    used = instance(5, OTHER, on=1)
    assert isinstance(outcome(disk(1, 5, evicts=True), unused, used), str)


def test_a_local_path_is_not_fetched() -> None:
    of = model(1)
    assert isinstance(place(ask(of, FACTS), world(of, disk(1, 0))), Placement)


def test_what_was_found_is_not_kept_when_the_disk_fills() -> None:
    snapshot = world(OF, disk(1, 11), disk(2, 50))
    first = place(ask(OF, FACTS), snapshot)
    assert isinstance(first, Placement)
    assert first.worker_id == 1
    again = place(ask(OF, FACTS), snapshot.changed(disk(1, 8)))
    assert isinstance(again, Placement)
    assert again.worker_id == 2


class _Counted(dict[int, Record]):
    """Records, and how often all of them were gone through."""

    looks = 0

    def values(self) -> Any:
        self.looks += 1
        return super().values()


def test_files_and_instances_are_not_gone_through_for_each_worker() -> None:
    workers = [disk(key, 1, evicts=True) for key in range(1, 31)]
    others = [file(key, OTHER.source, key, size=GIB, cleanup_on_delete=True) for key in range(1, 31)]
    there = instance(1, OTHER, on=workers[0], state=InstanceState.DOWNLOADING)
    before = world(OF, OTHER, *workers, *others, there)
    tables = {name: _Counted(records) for name, records in before.tables.items()}
    found = place(ask(OF, FACTS), attrs.evolve(before, tables=tables))
    assert not isinstance(found, Placement)
    assert tables["model_files"].looks < 15
    assert tables["model_instances"].looks < 15
