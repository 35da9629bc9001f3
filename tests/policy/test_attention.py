"""What needs a decision: each kind with its sentence, the worst first, bounded however much is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from gpustack.domain.access import ApiKey, Limits
from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.device import Device
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.record import Record, table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.usage import BudgetDraw
from gpustack.domain.worker import Condition, Filesystem, ModelDisk, Worker, WorkerState, WorkerStatus
from gpustack.policy.attention import (
    MOST_OF_KIND,
    AttentionLook,
    Trouble,
    TroubleSeverity,
    attention,
    by_remedy,
    kinds,
)
from gpustack.policy.remedy import FieldChange, Remedy
from gpustack.policy.survival import ModelLoss, WorkerLoss

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SOURCE = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/tiny")
MODEL = Model(id=1, name="tiny", source=SOURCE, replicas=3)
READY = Condition(state=WorkerState.READY)
WORKER = Worker(id=1, name="node", worker_uuid="u1", condition=READY)
OTHER = Worker(id=2, name="other", worker_uuid="u2", condition=READY)


def world(*records: Record) -> Snapshot:
    tables: dict[str, dict[int, Record]] = {}
    for record in records:
        tables.setdefault(table_of(type(record)), {})[record.id] = record
    return Snapshot(1, tables)


def replica(key: int, state: InstanceState, message: str = "", **more: object) -> ModelInstance:
    made = ModelInstance(
        id=key,
        name=f"tiny-{key}",
        model_id=1,
        model_name="tiny",
        source=SOURCE,
        state=state,
        state_message=message,
        state_since=NOW - timedelta(minutes=key),
    )
    return attrs.evolve(made, **more)  # type: ignore[arg-type]  # fields of several types


def seen(*records: Record, **more: object) -> list[Trouble]:
    return attention(AttentionLook(snapshot=world(*records), now=NOW, **more))  # type: ignore[arg-type]  # likewise


def test_nothing_wrong_is_nothing_to_tell() -> None:
    placed = Placement(worker_id=1)
    running = [replica(key, InstanceState.RUNNING, placement=placed) for key in range(1, 4)]
    assert seen(MODEL, WORKER, *running) == []


def test_replicas_that_wait_are_one_trouble_with_the_smallest_change_first() -> None:
    waiting = [replica(key, InstanceState.PENDING, "no GPU has 80 GiB free") for key in range(1, 4)]
    change = FieldChange(of="worker", id=1, name="node", field="cordoned", value=False)
    remedy = Remedy(kind="uncordon", sentence="uncordon worker node", changes=(change,), by_api=True)
    (trouble,) = seen(MODEL, WORKER, *waiting, remedies={1: (remedy,)})
    assert (trouble.severity, trouble.count) == ("critical", 3)
    assert trouble.text == "3 replicas of tiny wait: no GPU has 80 GiB free"
    assert trouble.since == NOW - timedelta(minutes=3)
    first, last = trouble.actions
    assert (first.label, first.method, first.path, first.body) == (
        "Uncordon worker node",
        "PUT",
        "/v1/workers/1",
        {"cordoned": False},
    )
    assert (last.label, last.body) == ("Stop it", {"replicas": 0})
    assert last.confirm
    serving = replica(9, InstanceState.RUNNING, placement=Placement(worker_id=1))
    (trouble,) = seen(MODEL, WORKER, waiting[0], serving)
    assert (trouble.severity, trouble.actions[-1].label) == ("warning", "Want 1 replica only")


def test_remedies_that_no_single_request_does_are_not_offered() -> None:
    by_hand = Remedy(kind="gpu", sentence="add a GPU")
    changes = tuple(FieldChange(of="worker", id=key, name="n", field="labels", value={}) for key in (1, 2))
    assert by_remedy(by_hand) is None
    assert by_remedy(Remedy(kind="label", sentence="label both", changes=changes, by_api=True)) is None
    end = FieldChange(of="model_instance", id=7, name="old-0", field="removed", value=True)
    action = by_remedy(Remedy(kind="stop", sentence="stop old-0", changes=(end,), by_api=True))
    assert action is not None
    assert (action.method, action.path, action.confirm) == (
        "DELETE",
        "/v1/model-instances/7",
        "End instance old-0?",
    )


def test_a_replica_that_is_started_again_and_again_is_told_all_the_time() -> None:
    for state, why in (
        (InstanceState.ERROR, "no such file"),
        (InstanceState.STARTING, "it is being started again"),
    ):
        (trouble,) = seen(
            MODEL, WORKER, replica(1, state, "no such file", restart_count=2, last_restart_time=NOW)
        )
        assert (trouble.id, trouble.severity) == ("failing:model:1", "critical")
        assert trouble.text == f"1 replica of tiny fails (started 2 times): {why}"
    long_ago = NOW - timedelta(days=1)
    assert (
        seen(MODEL, WORKER, replica(1, InstanceState.STARTING, restart_count=2, last_restart_time=long_ago))
        == []
    )


def test_each_kind_is_seen_and_told_in_one_sentence() -> None:
    silent = Condition(state=WorkerState.UNREACHABLE, since=NOW, why="not heard for 300 s")
    disk = WorkerStatus(
        filesystem=(Filesystem(name="data", mount_point="/data", total=1000 * GIB, available=GIB),),
        model_disk=ModelDisk(mount_point="/data"),
    )
    broken = Device(index=3, name="H200", vendor="NVIDIA", type="cuda", fault="fell off the bus")
    unused = ModelFile(
        id=1, worker_id=4, source=SOURCE, source_index="a", size=40 * GIB, state=FileState.READY
    )
    failed = ModelFile(
        id=2, worker_id=1, source=SOURCE, source_index="b", state=FileState.ERROR, state_message="404"
    )
    key = ApiKey(
        id=1, name="ci", user_id=1, access_key="k", secret_hash="", limits=Limits(tokens_per_day=1000)
    )
    lost = WorkerLoss(
        worker_id=1, worker="node", stops=(ModelLoss(model_id=1, model="tiny", lost=1, left=0),)
    )
    draining = Worker(id=5, name="old", worker_uuid="u5", condition=READY, draining=True, cordoned=True)
    found = seen(
        attrs.evolve(MODEL, generation=2),
        WORKER,
        attrs.evolve(OTHER, condition=silent),
        Worker(
            id=3, name="gpus", worker_uuid="u3", condition=READY, status=WorkerStatus(gpu_devices=(broken,))
        ),
        Worker(id=4, name="full", worker_uuid="u4", condition=READY, status=disk),
        draining,
        unused,
        failed,
        key,
        BudgetDraw(id=1, subject="key:1", period="2026-01-02", drawn=1000),
        BudgetDraw(id=2, subject="key:1", period="2026-01-01", drawn=1000),
        replica(1, InstanceState.ERROR, "no such file", restart_count=4),
        replica(2, InstanceState.PENDING, "no room"),
        replica(3, InstanceState.RUNNING, placement=Placement(worker_id=5)),
        losses={1: lost},
        version="1.0",
        latest_version="1.1",
        database_fault="disk full",
    )
    assert {trouble.kind for trouble in found} == {kind.KIND for kind in kinds()}
    texts = {trouble.kind: trouble.text for trouble in found if trouble.id != "server:update"}
    assert texts == {
        "server": "The database fails, so nothing can be changed: disk full",
        "silent": "Worker other is unreachable: not heard for 300 s",
        "disk": "The disk for model files of worker full has 1.0 GiB left",
        "failing": "1 replica of tiny fails (started 4 times): no such file",
        "waiting": "1 replica of tiny waits: no room",
        "hardware": "Worker gpus: GPU 3 (H200) is not usable: fell off the bus",
        "files": "me/tiny could not be fetched on node: 404",
        "budget": "The 1000 tokens of API key ci for this day are used up",
        "drain": "Worker old cannot be emptied: tiny-1: error: no such file, tiny-2: pending: no room",
        "fragile": "If worker node is lost, nothing of tiny serves any more",
    }
    severities = [trouble.severity for trouble in found]
    assert severities == sorted(severities, key=["critical", "warning", "notice"].index)
    assert len({trouble.id for trouble in found}) == len(found)


@pytest.mark.parametrize(
    ("left", "severity", "told"),
    [
        (timedelta(days=22), None, ""),
        (timedelta(days=20), TroubleSeverity.WARNING, "ends on 2026-01-22: clients refuse it then, unless"),
        (timedelta(0), TroubleSeverity.CRITICAL, "has ended on 2026-01-02: clients refuse it until"),
    ],
)
def test_a_certificate_is_told_before_it_ends(
    left: timedelta, severity: TroubleSeverity | None, told: str
) -> None:
    found = seen(certificate_ends=NOW + left)
    assert [one.severity for one in found] == ([] if severity is None else [severity])
    assert all(told in one.text for one in found)


def test_a_budget_is_told_when_little_is_left_of_it() -> None:
    limits = Limits(tokens_per_day=1000)
    key = ApiKey(id=1, name="ci", user_id=1, access_key="k", secret_hash="", limits=limits)
    told = {}
    for drawn in (949, 950, 1000):
        found = seen(key, BudgetDraw(id=1, subject="key:1", period="2026-01-02", drawn=drawn))
        told[drawn] = [(one.severity.value, one.text) for one in found]
    assert told == {
        949: [],
        950: [("notice", "Of the 1000 tokens of API key ci for this day 50 are left")],
        1000: [("warning", "The 1000 tokens of API key ci for this day are used up")],
    }


def test_a_budget_of_nothing_is_no_trouble() -> None:
    shut = ApiKey(id=1, name="ci", user_id=1, access_key="k", secret_hash="", limits=Limits(tokens_per_day=0))
    assert seen(shut, BudgetDraw(id=1, subject="key:1", period="2026-01-02", drawn=10)) == []


def test_however_much_is_wrong_the_answer_is_short() -> None:
    silent = Condition(state=WorkerState.NOT_READY, since=NOW, why="x" * 5000)
    workers = [
        Worker(id=key, name=f"n{key}", worker_uuid=str(key), condition=silent) for key in range(1, 1001)
    ]
    found = seen(*workers)
    assert len(found) == MOST_OF_KIND
    assert found[-1].text == "991 more workers cannot be reached"
    assert (found[-1].id, found[-1].count, found[-1].actions) == ("silent:more", 991, ())
    assert max(len(trouble.text) for trouble in found) <= 600
