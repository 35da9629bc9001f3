"""Who gives whom files, and which files go when a disk is short."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from gpustack.domain.artifact import FileState, LoraAdapter, ModelFile, ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.policy.model_file import MOST_HOLDERS, evict, holders, users_of
from tests.policy.worlds import worker

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def source(name: str = "m") -> ModelSource:
    return ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id=f"me/{name}")


def file(key: int, on: int, name: str = "m", **fields: Any) -> ModelFile:
    record = ModelFile(
        id=key,
        worker_id=on,
        source=source(name),
        source_index=source(name).index,
        size=GIB,
        state=FileState.READY,
    )
    return attrs.evolve(record, **fields)


def machine(key: int, **fields: Any) -> Worker:
    ready = Condition(state=WorkerState.READY)
    return attrs.evolve(worker(key), ip=f"10.0.0.{key}", port=10150, condition=ready, **fields)


WORKERS = {key: machine(key) for key in range(1, 9)}


def names(found: Any) -> list[int]:
    return [one.id for _, one in found]


def test_who_has_it_all_is_asked_first_and_then_who_began_before() -> None:
    own = file(5, 5, state=FileState.DOWNLOADING)
    files = [
        own,
        file(1, 1, state=FileState.DOWNLOADING),
        file(2, 2),
        file(3, 3, state=FileState.ERROR),
        file(4, 4, state=FileState.DOWNLOADING),
        file(6, 6, state=FileState.DOWNLOADING),  # it began after us, and asks us
        file(7, 7, "other"),
    ]
    assert names(holders(own, files, WORKERS)) == [2, 4, 1]


def test_two_never_wait_for_each_other() -> None:
    one, two = (file(key, key, state=FileState.DOWNLOADING) for key in (1, 2))
    assert names(holders(one, [one, two], WORKERS)) == []
    assert names(holders(two, [one, two], WORKERS)) == [1]


@pytest.mark.parametrize(
    "fields", [{"local_dir": "/mine"}, {"deleted_at": NOON}, {"worker_id": 1}, {"state": FileState.ERROR}]
)
def test_what_is_not_in_a_cache_for_good_is_not_given(fields: dict[str, Any]) -> None:
    own = file(9, 1, state=FileState.DOWNLOADING)
    assert names(holders(own, [own, file(2, 2, **fields)], WORKERS)) == []


def test_a_worker_that_cannot_be_reached_is_not_named() -> None:
    own = file(9, 1, state=FileState.DOWNLOADING)
    lost = attrs.evolve(WORKERS[2], condition=Condition(state=WorkerState.NOT_READY))
    private = attrs.evolve(WORKERS[3], ip="127.0.0.1")
    workers = {**WORKERS, 2: lost, 3: private}
    assert names(holders(own, [own, file(2, 2), file(3, 3)], workers)) == []
    together = {**workers, 1: attrs.evolve(WORKERS[1], ip="127.0.0.1")}
    assert names(holders(own, [own, file(3, 3)], together)) == [3]


def test_few_are_named_and_not_the_same_to_everybody() -> None:
    files = [file(key, key) for key in range(1, 7)]
    first = names(holders(file(7, 7, state=FileState.DOWNLOADING), files, WORKERS))
    second = names(holders(file(8, 8, state=FileState.DOWNLOADING), files, WORKERS))
    assert len(first) == len(second) == MOST_HOLDERS
    assert first[0] != second[0]


# --- eviction


def instance(name: str, on: int = 1) -> ModelInstance:
    return ModelInstance(
        id=1, name=name, model_id=1, model_name=name, source=source(name), placement=Placement(worker_id=on)
    )


def test_the_longest_unused_go_first_and_no_more_than_needed() -> None:
    files = [
        file(1, 1, "a", last_used_at=NOON),
        file(2, 1, "b", last_used_at=NOON - timedelta(days=3)),
        file(3, 1, "c", last_used_at=NOON - timedelta(days=1)),
    ]
    plan = evict(files, (), {}, needed=GIB + 1)
    assert ([one.id for one in plan.files], plan.freed) == ([2, 3], 2 * GIB)
    assert [one.id for one in evict(files, (), {}, needed=None).files] == [2, 3, 1]


def test_what_is_used_pinned_or_somebody_elses_stays_and_is_named() -> None:
    elsewhere = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m")
    files = [
        file(1, 1, "used"),
        file(2, 1, "pinned", pinned=True),
        file(3, 1, "mine", local_dir="/mine"),
        file(4, 1, source=elsewhere),
        file(5, 1, "kept", cleanup_on_delete=False),
        file(6, 1, "half", state=FileState.DOWNLOADING),
        file(7, 1, "idle"),
    ]
    plan = evict(files, (instance("used"),), {}, needed=None)
    assert [one.id for one in plan.files] == [7]
    assert plan.kept == "2 sources are in use, 1 source is pinned"


def test_nothing_goes_where_it_would_not_be_enough() -> None:
    plan = evict([file(1, 1)], (), {}, needed=2 * GIB)
    assert (plan.files, plan.kept) == ((), "all that nobody uses is 1.0 GiB")
    none = evict([file(1, 1, pinned=True)], (), {}, needed=1)
    assert none.kept == "there is nothing that nobody uses; 1 source is pinned"


def test_an_adapter_of_a_deployment_is_in_use() -> None:
    adapter = LoraAdapter(name="a", source=source("adapter"))
    model = Model(id=1, name="m", source=source("m"), lora_adapters=(adapter,))
    kept = file(1, 1, "adapter")
    assert [one.name for one in users_of(kept, [instance("m")], {1: model})] == ["m"]
    assert users_of(kept, [instance("m", on=2)], {1: model}) == []
