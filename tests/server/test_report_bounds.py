"""A machine that joined cannot fill the server with what it says of itself."""

from __future__ import annotations

import random

import pytest

from gpustack.domain.artifact import FileState
from gpustack.domain.device import Device
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.report import FileReport, InstanceReport, JoinRequest, StatusReport
from gpustack.domain.worker import EngineBuild, Filesystem, OperatingSystem, Worker, WorkerStatus
from gpustack.errors import Conflict
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.join import join
from gpustack.server.report import (
    LONGEST,
    LONGEST_NAME,
    MOST,
    MOST_LABELS,
    MOST_WORKERS,
    bounded,
    report_file,
    report_instance,
)

from .cluster import Cluster, hub

pytestmark = pytest.mark.attack("worker")

LONG = "x" * 100_000
MANY = 5000


async def joined(cluster: Cluster, name: str = "w", most: int = MOST_WORKERS, **fields: object) -> Worker:
    request = JoinRequest(name=name, worker_uuid=name, **fields)  # type: ignore[arg-type]  # a test's words
    done = await join(
        cluster.store,
        request,
        keys=DerivedKeys.of("a secret for tests"),
        heartbeats=HeartbeatTimes(lambda: 0.0),
        secret=lambda: "ab",
        rng=random.Random(1),
        most=most,
    )
    return done.worker


async def test_labels_have_a_number_and_a_length_however_they_are_brought(cluster: Cluster) -> None:
    worker = await joined(
        cluster, labels={f"{n}-{LONG}": LONG for n in range(MANY)}, hostname=LONG, version=LONG
    )
    assert len(worker.labels) <= MOST_LABELS and "worker-name" in worker.labels
    for n in range(5):
        report = StatusReport(status=WorkerStatus(), labels={f"new-{n}-{m}": LONG for m in range(MANY)})
        await cluster.report_status(worker.id, report)
    found = cluster.now(worker)
    assert len(found.labels) <= MOST_LABELS
    assert max(map(len, found.labels)) <= LONGEST_NAME
    assert max(map(len, found.labels.values())) <= LONGEST
    assert len(found.hostname) <= LONGEST


async def test_labels_that_were_edited_here_give_way_to_none_that_a_worker_brings(cluster: Cluster) -> None:
    worker = await joined(cluster, labels={"rack": "1"})
    edited = {**worker.labels, "tier": "gold"}
    await cluster.store.write(lambda tx: tx.change(Worker, worker.id, labels=edited))
    report = StatusReport(
        status=WorkerStatus(), labels={"tier": "tin", **{f"n{n}": "x" for n in range(MANY)}}
    )
    await cluster.report_status(worker.id, report)
    labels = cluster.now(worker).labels
    assert (labels["rack"], labels["tier"], len(labels)) == ("1", "gold", MOST_LABELS)


async def test_a_status_has_a_size(cluster: Cluster) -> None:
    worker = await joined(cluster)
    status = WorkerStatus(
        filesystem=tuple(Filesystem(name=LONG, mount_point=f"/{n}") for n in range(MANY)),
        gpu_devices=tuple(Device(index=n, name="card", vendor="v", type="cuda") for n in range(MANY)),
        engines=tuple(EngineBuild(engine="e", advice=LONG) for n in range(MANY)),
        detection_faults=(LONG,) * MANY,
        os=OperatingSystem(name=LONG),
    )
    await cluster.report_status(worker.id, StatusReport(status=status))
    found = cluster.now(worker).status
    assert {
        len(getattr(found, name)) for name in ("filesystem", "gpu_devices", "engines", "detection_faults")
    } == {MOST}
    assert len(found.os.name) == len(found.filesystem[0].name) == len(found.engines[0].advice) == LONGEST


async def test_an_honest_report_is_kept_as_it_is() -> None:
    status = WorkerStatus(
        filesystem=(Filesystem(name="a", mount_point="/", total=1),),
        gpu_devices=(Device(index=0, name="card", vendor="v", type="cuda", labels={"a": "b"}),),
    )
    report = StatusReport(status=status, labels={"os": "linux"})
    assert bounded(report) == report


async def test_reports_of_files_and_instances_have_a_size(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    file = await cluster.file(worker, hub("me/model"))
    await report_file(
        cluster.store,
        worker.id,
        file.id,
        FileReport(state=FileState.READY, state_message=LONG, resolved_paths=(LONG,) * MANY),
    )
    found = cluster.now(file)
    assert (len(found.resolved_paths), len(found.resolved_paths[0])) == (MOST, LONGEST)
    assert len(found.state_message) == LONGEST
    instance = await cluster.instance(await cluster.model("m"), on=worker, state=InstanceState.SCHEDULED)
    report = InstanceReport(state_message=LONG, resolved_path=LONG, ports=tuple(range(MANY)))
    await report_instance(cluster.store, worker.id, instance.id, report)
    after = cluster.now(instance)
    assert (len(after.state_message), len(after.resolved_path or ""), len(after.ports)) == (
        LONGEST,
        LONGEST,
        MOST,
    )


async def test_who_holds_the_token_joins_no_more_machines_than_there_may_be(cluster: Cluster) -> None:
    await joined(cluster, "a")
    await joined(cluster, "b", most=2)
    with pytest.raises(Conflict, match="2 workers"):
        await joined(cluster, "c", most=2)
