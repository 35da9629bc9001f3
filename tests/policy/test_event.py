"""Events: every move of an instance with its reason, orders by whom, and no secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.domain.device import Device
from gpustack.domain.event import ClusterEvent
from gpustack.domain.instance import ModelInstance, Placement, Subordinate
from gpustack.domain.lifecycle import TRANSITIONS, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.record import ChangeKind, Record
from gpustack.domain.revision import ModelRevision
from gpustack.domain.worker import Condition, Worker, WorkerState, WorkerStatus
from gpustack.policy.event import RecordChange, context_of, events_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SOURCE = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/tiny.gguf")
MODEL = Model(id=3, name="tiny", source=SOURCE)
PLACED = Placement(
    worker_id=1, gpu_indexes=(0, 1), subordinates=(Subordinate(worker_id=2, gpu_indexes=(0,)),)
)
WAITING = ModelInstance(id=7, name="tiny-0", model_id=3, model_name="tiny", source=SOURCE)
RUNNING = attrs.evolve(WAITING, state=InstanceState.RUNNING, placement=PLACED)
CARD = Device(index=0, name="H200", vendor="NVIDIA", type="cuda")
WORKER = Worker(
    id=1,
    name="node",
    worker_uuid="u",
    ip="10.0.0.1",
    condition=Condition(state=WorkerState.READY),
    status=WorkerStatus(gpu_devices=(CARD,)),
)
FILE = ModelFile(id=5, worker_id=1, source=SOURCE, source_index="i")
BY_ROOT = AuditEvent(at=NOW, action="x", outcome=AuditOutcome.DONE, status=200, actor_name="root")


def told(
    before: Record | None, after: Record, *histories: Record, deleted: bool = False
) -> list[ClusterEvent]:
    kind = ChangeKind.DELETED if deleted else ChangeKind.UPDATED if before else ChangeKind.CREATED
    context = context_of(histories, NOW, lambda key: f"node-{key}")
    return events_of([RecordChange(kind, after, before)], context)


def changed(record: Record, *histories: Record, **fields: Any) -> list[ClusterEvent]:
    return told(record, attrs.evolve(record, **fields), *histories)


def test_every_move_of_the_table_but_reading_the_header_is_an_event() -> None:
    for move in TRANSITIONS:
        before = attrs.evolve(RUNNING, state=move.source)
        fields: dict[str, Any] = {"state": move.target, "state_message": "because"}
        if move.source is InstanceState.ERROR and move.target is InstanceState.INITIALIZING:
            fields["restart_count"] = 1
        if move.target is InstanceState.PENDING:
            fields["placement"] = None
        found = changed(before, **fields)
        is_unseen = move.target is InstanceState.ANALYZING or (
            move.source is InstanceState.SCHEDULED and move.target is InstanceState.INITIALIZING
        )
        assert len(found) == (0 if is_unseen else 1), move


@pytest.mark.parametrize(
    ("fields", "kind", "severity", "text"),
    [
        ({"state_message": "no room"}, "instance.waits", "warning", "Waits: no room"),
        (
            {"state": InstanceState.SCHEDULED, "placement": PLACED},
            "instance.placed",
            "info",
            "Placed on node-1 (GPUs 0, 1), node-2 (GPU 0)",
        ),
        (
            {"state": InstanceState.ERROR, "state_message": "no such file"},
            "instance.failed",
            "error",
            "Failed: no such file",
        ),
        ({"restart_count": 22}, "instance.restarted", "warning", "Started again, for the 22nd time"),
        ({"deleted_at": NOW}, "instance.ending", "info", "Asked to end by root"),
        (
            {"deleted_at": NOW, "displaced_by": "big (priority 5)"},
            "instance.preempted",
            "warning",
            "Makes room for big (priority 5)",
        ),
        ({"download_progress": 5.0, "port": 4000}, None, None, None),
    ],
)
def test_what_happens_to_an_instance_is_told_with_its_reason(
    fields: dict[str, Any], kind: str | None, severity: str | None, text: str | None
) -> None:
    found = changed(WAITING, BY_ROOT, **fields)
    assert [(one.kind, one.severity.value, one.text) for one in found] == (
        [(kind, severity, text)] if kind else []
    )
    assert all((one.model_id, one.object_name, one.at) == (3, "tiny-0", NOW) for one in found)


def test_a_change_of_a_model_tells_who_and_which_fields_and_no_value_that_may_be_a_secret() -> None:
    (made,) = told(None, MODEL, BY_ROOT)
    assert made.text == "Deployed by root: /models/tiny.gguf"
    (event,) = changed(MODEL, BY_ROOT, env={"HF_TOKEN": "hf_secret"}, replicas=3, ready_replicas=1)
    assert event.text == "Changed by root: env, replicas 1 → 3"
    assert event.data["fields"] == ["env", "replicas"]
    assert "hf_secret" not in repr(event)
    assert changed(MODEL, ready_replicas=1, meta={"a": 1}) == []
    back = ModelRevision(model_id=3, number=4, model=MODEL, at=NOW, changed_by="root", rolled_back_to=2)
    (event,) = changed(MODEL, back, BY_ROOT, replicas=2)
    assert (event.kind, event.text) == ("model.rolled_back", "Brought back to revision 2 by root")
    (event,) = told(MODEL, MODEL, BY_ROOT, deleted=True)
    assert event.text == "Deleted by root"


def test_orders_and_conditions_of_workers_are_told() -> None:
    silent = Condition(state=WorkerState.UNREACHABLE, why="not heard for 45 s")
    lost = attrs.evolve(CARD, fault="fell off the bus")
    told_of = {
        "cordoned": changed(WORKER, BY_ROOT, cordoned=True),
        "uncordoned": changed(attrs.evolve(WORKER, cordoned=True), cordoned=False),
        "drains": changed(WORKER, cordoned=True, draining=True),
        "barred": changed(WORKER, barred=True, condition=silent),
        "stopped": changed(WORKER, leaving=True, condition=Condition(state=WorkerState.NOT_READY)),
        "unreachable": changed(WORKER, condition=silent),
        "ready": changed(attrs.evolve(WORKER, condition=silent), condition=WORKER.condition),
        "joined": told(None, WORKER),
        "deleted": told(WORKER, WORKER, deleted=True),
        "gpu_failed": changed(WORKER, status=WorkerStatus(gpu_devices=(lost,))),
    }
    assert {name: [one.kind for one in found] for name, found in told_of.items()} == {
        name: [f"worker.{name}"] for name in told_of
    }
    assert told_of["unreachable"][0].text == "Is unreachable: not heard for 45 s"
    assert told_of["cordoned"][0].text == "Takes no more instances by root"
    assert changed(WORKER, heartbeat_time=NOW, labels={"a": "b"}) == []


def test_files_that_come_fail_and_go_are_told() -> None:
    ready = changed(FILE, state=FileState.READY, size=3 << 30, fetched_from="hub")
    assert [one.text for one in ready] == ["Is there, 3.0 GiB from hub"]
    (failed,) = changed(FILE, state=FileState.ERROR, state_message="disk full")
    assert (failed.kind, failed.severity.value, failed.worker_id) == ("file.failed", "error", 1)
    assert [one.kind for one in told(FILE, FILE, deleted=True)] == ["file.removed"]
    assert changed(FILE, download_progress=3.0) == []


def test_long_texts_are_cut() -> None:
    (event,) = changed(RUNNING, state=InstanceState.ERROR, state_message="x" * 5000)
    assert len(event.text) == 1000
