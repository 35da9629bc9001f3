"""The server's metrics follow from its state: nothing is kept that is not there any more."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.record import Record, table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.metrics.server_sample import ServerObservation, scrape_targets, server_families, waits_for
from gpustack.metrics.traffic import RequestMeasurement, Traffic

from .page import check_declared, shown, value

SOURCE = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/tiny.gguf")
READY = Condition(state=WorkerState.READY)


def snapshot(*records: Record) -> Snapshot:
    tables: dict[str, dict[int, Record]] = {}
    for record in records:
        tables.setdefault(table_of(type(record)), {})[record.id] = record
    return Snapshot(1, tables)


def worker(number: int = 1, **more: Any) -> Worker:
    fields: dict[str, Any] = {"worker_uuid": f"uuid-{number}", "condition": READY, "ip": "10.0.0.1", **more}
    return Worker(id=number, name=f"w{number}", **fields)


def model(number: int = 1, **more: Any) -> Model:
    return Model(id=number, name=f"m{number}", source=SOURCE, **more)


def instance(number: int, state: InstanceState, *, on: int | None = None, **more: Any) -> ModelInstance:
    placement = None if on is None else Placement(worker_id=on)
    return ModelInstance(
        id=number,
        name=f"m1-{number}",
        model_id=1,
        model_name="m1",
        source=SOURCE,
        state=state,
        placement=placement,
        **more,
    )


WORLD = snapshot(
    worker(),
    model(replicas=2),
    instance(1, InstanceState.RUNNING, on=1, restart_count=3),
    instance(2, InstanceState.PENDING, state_message="too small"),
)


def test_what_is_deployed_is_told_with_its_labels() -> None:
    found = shown(server_families(ServerObservation(snapshot=WORLD, silence={1: 2.5})))
    check_declared(found)
    cluster = {"cluster_id": "1", "cluster_name": "default"}
    assert value(found, "gpustack:cluster_info", **cluster, provider="gpustack") == 1
    assert value(found, "gpustack:worker_status", **cluster, worker_name="w1", state="ready") == 1
    assert value(found, "gpustack:worker_silence_seconds", worker_id="1") == 2.5
    about = {"runtime": "llama-box", "runtime_version": "unknown", "source": "local_path"}
    assert value(found, "gpustack:model_info", **about, source_key="/models/tiny.gguf", model_id="1") == 1
    assert value(found, "gpustack:model_desired_instances", model_name="m1") == 2
    assert value(found, "gpustack:model_running_instances", model_name="m1") == 1
    assert value(found, "gpustack:model_instance_status", worker_name="w1", state="running") == 1
    pending = {"model_instance_name": "m1-2", "worker_id": "unknown", "worker_name": "unknown"}
    assert value(found, "gpustack:model_instance_status", **pending, state="pending") == 1
    assert value(found, "gpustack:model_instance_restarts_total", model_instance_name="m1-1") == 3
    assert value(found, "gpustack:pending_instances", waits_for="does_not_fit") == 1
    assert value(found, "gpustack:pending_instances", waits_for="no_worker") == 0


def test_whether_a_model_survives_the_loss_of_a_worker_is_told_where_it_is_known() -> None:
    name = "gpustack:model_survives_worker_loss"
    for fragile, told in (({}, None), ({1: True}, 0), ({1: False}, 1)):
        found = shown(server_families(ServerObservation(snapshot=WORLD, fragile=fragile)))
        assert value(found, name, model_name="m1") == told


def test_what_is_unreachable_is_not_counted_as_running() -> None:
    cut_off = snapshot(worker(), model(replicas=2), instance(1, InstanceState.UNREACHABLE, on=1))
    found = shown(server_families(ServerObservation(snapshot=cut_off)))
    assert value(found, "gpustack:model_running_instances", model_name="m1") == 0
    assert value(found, "gpustack:model_instance_status", worker_name="w1", state="unreachable") == 1
    assert value(found, "gpustack:model_instance_status", worker_name="w1", state="running") is None


def test_what_is_deleted_leaves_no_series_behind() -> None:
    traffic = Traffic()
    passage = RequestMeasurement(0.0, model_id=1, first_byte=0.2, prompt=3, completion=4)
    traffic.passed(passage, "/v1/chat/completions", 200)
    before = shown(
        server_families(ServerObservation(snapshot=WORLD, traffic=traffic.seen(), silence={1: 1.0}))
    )
    after = shown(
        server_families(ServerObservation(snapshot=snapshot(), traffic=traffic.seen(), silence={1: 1.0}))
    )
    assert any("m1" in dict(labels).values() for _, labels in before)
    gone = {"m1", "w1", "m1-1", "m1-2"}
    assert not [labels for _, labels in after if gone & set(dict(labels).values())]
    traffic.forget_all_but(frozenset())
    assert traffic.seen().requests == {} and traffic.seen().first_byte == {} and traffic.seen().tokens == {}


def test_a_state_that_changed_is_one_series_and_not_two() -> None:
    lost = attrs.evolve(worker(), condition=Condition(state=WorkerState.UNREACHABLE))
    found = shown(server_families(ServerObservation(snapshot=snapshot(lost))))
    assert value(found, "gpustack:worker_status", worker_name="w1", state="unreachable") == 1
    assert value(found, "gpustack:worker_status", worker_name="w1", state="ready") is None


def test_requests_are_counted_by_model_route_and_status() -> None:
    traffic = Traffic()
    for began, first, status in ((0.0, 0.004, 200), (0.0, 0.2, 200), (0.0, 120.0, 200), (0.0, None, 499)):
        passage = RequestMeasurement(began, model_id=1, first_byte=first, prompt=10, completion=1)
        traffic.passed(passage, "/v1/chat/completions", status)
    traffic.passed(RequestMeasurement(0.0), "/v1/embeddings", 404)
    found = shown(server_families(ServerObservation(snapshot=WORLD, traffic=traffic.seen())))
    check_declared(found)
    route = {"route": "/v1/chat/completions", "model_name": "m1"}
    assert value(found, "gpustack:gateway_requests_total", **route, status="200") == 3
    assert value(found, "gpustack:gateway_requests_total", **route, status="499") == 1
    assert value(found, "gpustack:gateway_requests_total", route="/v1/embeddings", model_name="") == 1
    assert value(found, "gpustack:gateway_tokens_total", kind="prompt") == 40
    name = "gpustack:gateway_time_to_first_byte_seconds"
    assert value(found, f"{name}_bucket", le="0.005") == 1
    assert value(found, f"{name}_bucket", le="0.25") == 2
    assert value(found, f"{name}_bucket", le="60.0") == 2
    assert value(found, f"{name}_bucket", le="+Inf") == 3
    assert value(found, f"{name}_count") == 3
    assert value(found, f"{name}_sum") == pytest.approx(120.204)


def test_refusals_are_counted_by_limit_and_name_nobody() -> None:
    traffic = Traffic()
    for _ in range(3):
        traffic.refuse("key", "tokens_per_day")
    traffic.refuse("model", "requests_per_minute")
    found = shown(server_families(ServerObservation(snapshot=WORLD, traffic=traffic.seen())))
    check_declared(found)
    name = "gpustack:gateway_limit_refusals_total"
    assert value(found, name, of="key", limit="tokens_per_day") == 3
    assert value(found, name, of="model", limit="requests_per_minute") == 1


@pytest.mark.parametrize(
    ("state", "workers", "message", "expected"),
    [
        (InstanceState.ANALYZING, (worker(),), "", "reading_header"),
        (InstanceState.PENDING, (), "there is no worker yet", "no_worker"),
        (InstanceState.PENDING, (worker(cordoned=True),), "x", "no_ready_worker"),
        (InstanceState.PENDING, (worker(),), "too small", "does_not_fit"),
        (InstanceState.PENDING, (worker(),), "", "not_looked_at"),
        (InstanceState.RUNNING, (worker(),), "", None),
    ],
)
def test_what_waits_says_what_for(
    state: InstanceState, workers: tuple[Worker, ...], message: str, expected: str | None
) -> None:
    assert waits_for(instance(1, state, state_message=message), snapshot(*workers)) == expected


def test_the_targets_are_the_exporters_of_workers_that_are_ready() -> None:
    world = snapshot(
        worker(1, metrics_port=10151),
        worker(2, metrics_port=10151, ip="fd00::2"),
        worker(3, metrics_port=None),
        worker(4, metrics_port=10151, condition=Condition(state=WorkerState.UNREACHABLE)),
    )
    (group,) = scrape_targets(world)
    assert group["targets"] == ["10.0.0.1:10151", "[fd00::2]:10151"]
    assert group["labels"] == {"cluster_id": "1", "cluster_name": "default"}


@pytest.mark.attack("forged-line")
def test_a_name_that_needs_escaping_is_escaped() -> None:
    odd = attrs.evolve(model(), name='a"b\\c\nd')
    found = shown(server_families(ServerObservation(snapshot=snapshot(odd))))
    assert value(found, "gpustack:model_desired_instances", model_name='a"b\\c\nd') == 1
