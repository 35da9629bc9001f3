"""What workers say is taken from whom it concerns, and only what they own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gpustack.domain.artifact import FileState
from gpustack.domain.lifecycle import REPLACE, Party
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.report import FileReport, InstanceReport, StatusReport
from gpustack.domain.worker import Condition, Memory, WorkerState, WorkerStatus
from gpustack.errors import Conflict, Forbidden, NotFound
from gpustack.server.deployment import delete_file, delete_instance
from gpustack.server.lifecycle import give_up_place
from gpustack.server.report import report_file, report_instance

from .cluster import Cluster, hub

THEN = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_life_is_told_step_by_step(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker, state=S.SCHEDULED)

    async def say(state: S, message: str | None = None, **fields: object) -> None:
        report = InstanceReport(state=state, state_message=message, **fields)  # type: ignore[arg-type]  # a test's words
        await report_instance(cluster.store, worker.id, instance.id, report)

    await say(S.INITIALIZING)
    await say(S.DOWNLOADING, "half of it", download_progress=50.0)
    assert cluster.now(instance).download_progress == 50.0
    await say(S.STARTING, port=40001, ports=(40001,), resolved_path="/m.gguf")
    assert cluster.now(instance).state_message == "", "what was said of the state before is over"
    await say(S.RUNNING, pid=77, port=40001, ports=(40001,))
    now = cluster.now(instance)
    assert (now.state, now.pid, now.port, now.resolved_path) == (S.RUNNING, 77, 40001, "/m.gguf")
    assert now.state_since == cluster.clock.now
    await say(S.ERROR, "broke", restart_count=1, next_retry_at=THEN)
    now = cluster.now(instance)
    assert (now.pid, now.port, now.ports, now.next_retry_at) == (None, None, (), THEN)
    await say(S.INITIALIZING)
    assert cluster.now(instance).next_retry_at is None


async def test_the_same_said_twice_is_written_once(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker, state=S.STARTING)
    report = InstanceReport(state=S.RUNNING, pid=7, port=40000, state_message="fine")
    await report_instance(cluster.store, worker.id, instance.id, report)
    revision = cluster.snapshot.revision
    await report_instance(cluster.store, worker.id, instance.id, report)
    assert cluster.snapshot.revision == revision


async def test_the_adapters_that_an_engine_has_are_what_its_worker_says(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker)
    for names in (("a", "b"), None, ("b",), ()):
        report = InstanceReport(state=S.RUNNING, lora_adapters=names)
        before = cluster.now(instance).lora_adapters
        await report_instance(cluster.store, worker.id, instance.id, report)
        assert cluster.now(instance).lora_adapters == (before if names is None else names)


async def test_replicas_without_room_for_an_adapter_are_replaced_once(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    model = await cluster.model("m")
    instance, other = [await cluster.instance(model, on=worker) for _ in range(2)]
    report = InstanceReport(state=S.RUNNING, state_message="too small", outgrown=True)
    for one in (instance, other, instance):
        await report_instance(cluster.store, worker.id, one.id, report)
    assert cluster.now(model).generation == model.generation + 1
    assert cluster.now(instance).state_message == "too small"
    assert cluster.now(instance).generation == model.generation


async def test_a_message_alone_is_heard_and_leaves_the_rest(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker)
    await report_instance(cluster.store, worker.id, instance.id, InstanceReport(state_message="x" * 9999))
    now = cluster.now(instance)
    assert (now.state, now.port, len(now.state_message)) == (S.RUNNING, 40000, 4096)


async def test_a_repeated_state_keeps_what_it_does_not_mention(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker)
    await report_instance(cluster.store, worker.id, instance.id, InstanceReport(pid=5, state_message="ok"))
    await report_instance(cluster.store, worker.id, instance.id, InstanceReport(state=S.RUNNING))
    now = cluster.now(instance)
    assert (now.pid, now.state_message, now.port) == (5, "ok", 40000)


async def test_a_move_that_no_life_has_is_refused_whole(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker, state=S.SCHEDULED)
    with pytest.raises(Conflict):
        await report_instance(
            cluster.store, worker.id, instance.id, InstanceReport(state=S.DOWNLOADING, download_progress=9.0)
        )
    with pytest.raises(Conflict):
        await report_instance(cluster.store, worker.id, instance.id, InstanceReport(state=S.PENDING))
    assert cluster.now(instance) == instance


async def test_only_its_worker_speaks_of_an_instance(cluster: Cluster) -> None:
    mine, other = await cluster.worker("a"), await cluster.worker("b")
    model = await cluster.model("m")
    placed = await cluster.instance(model, on=mine)
    waiting = await cluster.instance(model)
    for instance in (placed, waiting):
        for report in (InstanceReport(state=S.ERROR), InstanceReport(gone=True)):
            with pytest.raises(Forbidden):
                await report_instance(cluster.store, other.id, instance.id, report)
    with pytest.raises(NotFound):
        await report_instance(cluster.store, mine.id, 99, InstanceReport(state=S.ERROR))


async def test_who_lost_an_instance_has_no_say_in_it_any_more(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker)
    await cluster.store.write(lambda tx: give_up_place(tx, instance, REPLACE, "silent"))
    for report in (InstanceReport(state=S.RUNNING), InstanceReport(gone=True)):
        with pytest.raises(Forbidden):
            await report_instance(cluster.store, worker.id, instance.id, report)
    assert cluster.now(instance).state is S.PENDING


async def test_an_instance_goes_when_it_was_to_end_and_its_engine_has(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker)
    await report_instance(cluster.store, worker.id, instance.id, InstanceReport(gone=True))
    assert cluster.now(instance) == instance, "nobody wanted it to end"
    await delete_instance(cluster.store, instance.id)
    assert cluster.now(instance).deleted_at == cluster.clock.now
    assert list(cluster.snapshot.claims_on(worker.id)), "its engine may still hold the memory"
    await report_instance(cluster.store, worker.id, instance.id, InstanceReport(state=S.ERROR))
    await report_instance(cluster.store, worker.id, instance.id, InstanceReport(gone=True))
    assert cluster.now(instance) is None
    with pytest.raises(NotFound):
        await report_instance(cluster.store, worker.id, instance.id, InstanceReport(gone=True))


async def test_a_file_is_told_by_its_worker_alone(cluster: Cluster) -> None:
    mine, other = await cluster.worker("a"), await cluster.worker("b")
    file = await cluster.file(mine, hub("m"))
    report = FileReport(state=FileState.READY, size=5, download_progress=100.0, resolved_paths=("/c/m.gguf",))
    with pytest.raises(Forbidden):
        await report_file(cluster.store, other.id, file.id, report)
    await report_file(cluster.store, mine.id, file.id, report)
    now = cluster.now(file)
    assert (now.state, now.size, now.resolved_paths) == (FileState.READY, 5, ("/c/m.gguf",))
    await report_file(cluster.store, mine.id, file.id, FileReport(state_message="checked"))
    assert cluster.now(file).resolved_paths == ("/c/m.gguf",)


async def test_a_removed_file_goes_unless_somebody_wants_it_again(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    file = await cluster.file(worker, hub("m"), state=FileState.READY, resolved_paths=("/c/m.gguf",))
    await report_file(cluster.store, worker.id, file.id, FileReport(gone=True))
    now = cluster.now(file)
    assert (now.state, now.resolved_paths) == (FileState.DOWNLOADING, ()), "it is fetched again"
    await delete_file(cluster.store, file.id)
    await report_file(cluster.store, worker.id, file.id, FileReport(gone=True))
    assert cluster.now(file) is None
    with pytest.raises(NotFound):
        await report_file(cluster.store, worker.id, file.id, FileReport(gone=True))


async def test_a_status_replaces_the_one_before_and_labels_fill_in(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    await cluster.change(worker, labels={"zone": "mine"}, cordoned=True)
    status = WorkerStatus(memory=Memory(total=5))
    report = StatusReport(status=status, ip="10.0.0.7", labels={"zone": "its", "os": "linux"})
    cluster.clock.forward(5)
    await cluster.report_status(worker.id, report)
    now = cluster.now(worker)
    assert (now.status, now.ip, now.labels, now.cordoned) == (
        status,
        "10.0.0.7",
        {"zone": "mine", "os": "linux"},
        True,
    )
    assert now.heartbeat_time == cluster.clock.now
    revision = cluster.snapshot.revision
    cluster.clock.forward(5)
    await cluster.report_status(worker.id, StatusReport(status=status))
    assert cluster.snapshot.revision == revision, "nothing new was said"
    with pytest.raises(NotFound):
        await cluster.report_status(99, report)


async def test_hardware_that_cannot_be_looked_at_is_told_and_keeps_a_worker_in_use(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    broken = StatusReport(status=WorkerStatus(detection_faults=("NVIDIA devices cannot be looked at",)))
    await cluster.report_status(worker.id, broken)
    condition = cluster.now(worker).condition
    assert (condition.state, condition.why) == (WorkerState.READY, "NVIDIA devices cannot be looked at")
    assert condition.since == worker.condition.since, "it has been ready all the time"
    await cluster.report_status(worker.id, StatusReport(status=WorkerStatus()))
    assert cluster.now(worker).condition.why == ""


async def test_a_status_alone_does_not_overrule_the_judgement_of_silence(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    silent = Condition(state=WorkerState.NOT_READY, why="not heard for 45 s")
    await cluster.change(worker, condition=silent)
    await cluster.report_status(worker.id, StatusReport(status=WorkerStatus()))
    assert cluster.now(worker).condition == silent


def test_a_worker_may_not_bring_an_instance_to_a_state_of_others() -> None:
    from gpustack.domain.lifecycle import TRANSITIONS

    by_worker = {t.target for t in TRANSITIONS if t.by is Party.WORKER}
    assert not by_worker & {S.PENDING, S.ANALYZING, S.UNREACHABLE}
