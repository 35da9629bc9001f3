"""Engines outlive the daemon: what the next one finds, takes over, or ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import attrs
import pytest
import trio

from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild
from gpustack.engines.custom import ENGINE
from gpustack.engines.engine import LaunchContext, LaunchSpec, Probe
from gpustack.nursery.wake import AsyncValue
from gpustack.worker.assignment_watcher import AssignmentSnapshot
from gpustack.worker.engine_process import EngineSeat, placement_digest, start_engine
from gpustack.worker.gang import GangRecord
from gpustack.worker.instance import InstanceRun, run_instance
from gpustack.worker.launch import InstanceFailure
from gpustack.worker.report import InstanceReporter
from tests.nursery.programs import is_running, until_gone
from tests.worker.conftest import Start
from tests.worker.daemon import Daemon, ask, custom_model, instance_of, utc_now
from tests.worker.server import PATIENCE, FakeServer
from tests.worker.test_instance import pid_of, port_of, processes_with


async def test_an_engine_serves_on_while_its_daemon_crashes_and_the_next_one_adopts_it(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    assert (await ask(port_of(running), "/v1/models"))[0] == 200
    told = len(server.reports)
    worker = await start()
    await server.until(lambda: len(server.reports) > told)
    assert [report.state for _, report in server.reports[told:]] == [S.RUNNING]
    assert (server.instance().pid, server.instance().port) == (running.pid, running.port)
    assert (await worker.through(port_of(running)))[0] == 200


async def test_a_request_under_way_outlasts_the_daemon(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model("--latency", "1.0"))
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    body = json.dumps({"model": "m", "messages": []}).encode()
    answers = []
    async with trio.open_nursery() as nursery:

        async def talk() -> None:
            path = "/v1/chat/completions"
            answers.append(await ask(port_of(running), path, method="POST", body=body))

        nursery.start_soon(talk)
        await ask(port_of(running), "/_control?active=1")
        await worker.crash()
    assert answers[0][0] == 200


async def test_an_adopted_engine_that_dies_is_restarted(
    server: FakeServer, start: Start, start_next: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    await start_next()
    os.kill(pid_of(running), signal.SIGKILL)
    await server.until(lambda: server.instance().state is S.RUNNING and server.instance().pid != running.pid)
    assert server.instance().restart_count == 1
    assert not server.refused


async def test_an_engine_that_died_while_nobody_looked_is_started_again(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    os.kill(pid_of(running), signal.SIGKILL)
    await start()
    await server.until(lambda: server.instance().state is S.RUNNING and server.instance().pid != running.pid)
    assert not server.refused


@pytest.mark.parametrize(
    "recorded", [S.SCHEDULED, S.INITIALIZING, S.DOWNLOADING, S.STARTING, S.UNREACHABLE, S.ERROR]
)
async def test_an_engine_is_adopted_whatever_its_record_says(
    server: FakeServer, start: Start, recorded: S
) -> None:
    """The last reports of the former daemon may not have arrived; each move told must be one that is allowed."""
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    server.change(state=recorded)
    await start()
    assert (await server.until_state(S.RUNNING)).pid == running.pid
    assert not server.refused


async def test_adopting_asks_nothing_of_model_and_machine(
    server: FakeServer, start: Start, start_next: Start
) -> None:
    """The deployment is of a newer generation by now, and this machine's engines have not been looked at yet."""
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    server.put(attrs.evolve(model, generation=2, command="something else --port {port}"))

    async def never() -> tuple[EngineBuild, ...]:
        await trio.sleep_forever()
        raise AssertionError

    await start_next(builds=never)
    assert (server.instance().state, server.instance().pid) == (S.RUNNING, running.pid)


async def test_an_engine_that_was_placed_elsewhere_meanwhile_is_not_adopted(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    server.change(state=S.SCHEDULED, placement=Placement(worker_id=1, claim=Claim(ram=7)))
    await start()
    await server.until(lambda: server.instance().state is S.RUNNING and server.instance().pid != running.pid)
    assert not is_running(pid_of(running))


async def test_a_fault_of_our_own_is_its_instances_and_leaves_engines_alone(
    server: FakeServer, start: Start
) -> None:
    """An error nobody foresaw, in the life of one instance, ends neither the daemon nor any engine."""
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()

    async def faulty() -> tuple[EngineBuild, ...]:
        raise ZeroDivisionError

    server.put(instance_of(model, 2))
    await start(builds=faulty)
    failed = await server.until_state(S.ERROR, 2)
    assert "ZeroDivisionError" in failed.state_message
    adopted = await server.until_state(S.RUNNING)
    assert adopted.pid == running.pid
    assert (await ask(port_of(running), "/v1/models"))[0] == 200


# --- orphans


async def test_an_orphan_is_ended_once_all_assignments_are_known(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    orphan = await server.until_state(S.RUNNING)
    await worker.crash()
    server.drop("instances", 1)
    worker = await start()
    with trio.fail_after(PATIENCE):
        await until_gone(pid_of(orphan))
        await worker.context.orphans_ended.wait()
    assert not list(worker.context.state_dir.glob("*.json"))


async def test_nothing_is_ended_before_the_server_has_said_what_it_wants(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    server.answers["/assignments"] = 503
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    assert is_running(pid_of(running))
    assert not worker.context.orphans_ended.is_set()
    told = len(server.reports)
    server.answers.clear()
    await server.until(lambda: len(server.reports) > told)
    assert server.instance().pid == running.pid


async def test_a_stop_before_the_server_has_said_what_it_wants_ends_engines_too(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    server.answers["/assignments"] = 503
    worker = await start()
    with trio.fail_after(PATIENCE):
        await worker.stop()
    assert not is_running(pid_of(running))
    assert not list(worker.context.state_dir.glob("*.json"))


async def test_a_new_engine_waits_until_orphans_have_given_back_their_memory(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model("--ignore-term"))
    server.put(instance_of(model))
    worker = await start()
    orphan = await server.until_state(S.RUNNING)
    await worker.crash()
    server.drop("instances", 1)
    server.put(instance_of(model, 2))
    alive: list[bool] = []

    async def look() -> tuple[EngineBuild, ...]:
        alive.append(is_running(pid_of(orphan)))
        await trio.lowlevel.checkpoint()
        return (EngineBuild(engine="custom"),)

    await start(builds=look, stop_grace=0.5)
    await server.until_state(S.RUNNING, 2)
    assert alive == [False]


async def test_an_instance_deleted_while_there_was_no_daemon_ends_and_its_record_goes(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    server.change(deleted_at=utc_now())
    await start()
    await server.until(lambda: not server.assigned.instances)
    assert not is_running(pid_of(running))


async def test_an_unreadable_state_file_does_not_prevent_a_start(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    await worker.stop()
    worker.context.state_dir.mkdir(exist_ok=True)
    worker.context.state_file(1).write_text("{")
    server.put(instance_of(model))
    await start()
    await server.until_state(S.RUNNING)


# --- judged by its own deadlines


async def left_behind(worker: Daemon, instance: ModelInstance, model: Model, **health: object) -> int:
    """An engine with deadlines of its own that a daemon started and left; its pid."""
    await worker.context.orphans_ended.wait()  # before, it would be taken for an orphan
    launch = launch_of(worker, instance, model, **health)
    engine = await start_engine(
        launch, EngineSeat(instance=instance), [launch_port(launch)], worker.context, {}
    )
    await engine.release(end=False)
    return engine.group.pid


def launch_of(worker: Daemon, instance: ModelInstance, model: Model, **health: object) -> LaunchSpec:
    with worker.ports.lease("x") as port:
        context = LaunchContext(
            model=model,
            instance=instance,
            placement=instance.placement or Placement(worker_id=1),
            model_path="",
            port=port,
            build=EngineBuild(engine="custom"),
            data_dir=str(worker.folder),
        )
        launch = ENGINE.launch(context)
        return attrs.evolve(launch, health=attrs.evolve(launch.health, **health))


def launch_port(launch: LaunchSpec) -> int:
    return int(launch.argv[launch.argv.index("--port") + 1])


QUICK = Probe(path="/health", period=0.05, timeout=0.3, failures=2)


async def test_an_engine_that_hangs_is_ended_and_comes_back(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    instance = instance_of(model)
    worker = await start()
    pid = await left_behind(worker, instance, model, liveness=QUICK, readiness=QUICK)
    server.put(instance)
    running = await server.until_state(S.RUNNING)
    assert running.pid == pid
    order = json.dumps({"hang": True}).encode()
    assert (await ask(port_of(server.instance()), "/_control", method="POST", body=order))[0] == 200
    failed = await server.until_state(S.ERROR)
    assert failed.state_message == (
        "The engine ran, but did not answer /health for 0.1 s and more, so it was ended"
    )
    assert not is_running(pid)
    await server.until_state(S.RUNNING)
    assert running.restart_count == 0 and server.instance().restart_count == 1


async def test_an_engine_that_never_becomes_ready_is_given_up(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model("--load-seconds", "600"))
    instance = instance_of(model)
    worker = await start()
    pid = await left_behind(worker, instance, model, readiness=QUICK, start_deadline=0.4)
    server.put(instance)
    failed = await server.until_state(S.ERROR)
    assert failed.state_message == (
        "The engine did not answer /health within 0.4 s of its start; see its log"
    )
    assert server.states()[:3] == [S.INITIALIZING, S.STARTING, S.ERROR]
    assert not is_running(pid)


# --- cancelled at each of its steps


@attrs.define(eq=False)
class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when one task takes its n-th step."""

    task: trio.lowlevel.Task
    scope: trio.CancelScope
    left: int

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


@pytest.mark.parametrize("wanted", [False, True], ids=["left", "ended"])
async def test_cancelled_at_any_step_it_leaves_all_or_nothing(
    server: FakeServer, start: Start, wanted: bool, tmp_path: object
) -> None:
    """Either nothing is left, or an engine that is on record: never one that nobody knows of."""
    model = custom_model("--reply", f"'{tmp_path}'")
    worker = await start()
    worker.context.orphans_ended.set()
    unwanted = trio.Event()
    if wanted:
        unwanted.set()
    ready = False
    step = 0
    while not ready:
        step += 1
        instance = instance_of(model, 100 + step)

        scope = trio.CancelScope()

        def served(scope: trio.CancelScope = scope) -> None:
            nonlocal ready
            ready = True
            scope.cancel()

        with trio.fail_after(PATIENCE), scope:
            cancel = CancelAtStep(trio.lowlevel.current_task(), scope, step)
            trio.lowlevel.add_instrument(cancel)
            try:
                await run_instance(run_of(worker, instance, model, unwanted, served), worker.context)
            finally:
                trio.lowlevel.remove_instrument(cancel)
        on_record = worker.context.state_file(instance.id).exists()
        left = processes_with(str(tmp_path))
        assert bool(left) == on_record, f"step {step}"
        assert not (wanted and on_record), f"step {step}"
        assert not worker.ports.held, f"step {step}"
        if on_record:
            with pytest.raises(InstanceFailure):
                await end_again(worker, instance)
        assert not processes_with(str(tmp_path)), f"step {step}"
    assert step > 10


async def end_again(worker: Daemon, instance: ModelInstance) -> None:
    """Another life finds the engine on record unfit, ends it, and has no deployment to start another."""
    other = attrs.evolve(instance, generation=9)
    await run_instance(run_of(worker, other, None, trio.Event(), lambda: None), worker.context)


def run_of(
    worker: Daemon,
    instance: ModelInstance,
    model: Model | None,
    unwanted: trio.Event,
    on_ready: Callable[[], None],
) -> InstanceRun:
    nothing = AsyncValue(AssignmentSnapshot())
    return InstanceRun(
        instance=instance,
        model=model,
        next_attempt=lambda: 1,
        record=GangRecord(nothing, instance.id),
        assignments=nothing,
        reporter=InstanceReporter(worker.reports, instance.id, instance.state),
        unwanted=unwanted,
        on_ready=on_ready,
    )


def test_an_engine_of_a_version_before_claims_had_slots_is_at_its_place() -> None:
    """The digest is one that such a version wrote down; another number of slots is another engine."""
    claim = Claim(ram=5, vram={0: 7}, offload_layers=3, total_layers=4)
    place = Placement(worker_id=1, gpu_indexes=(0,), claim=claim)
    assert placement_digest(place) == "a2239095f2ad782969a2d3e9e565acbe16444c950a39c5c927d6bebec11e0288"
    assert placement_digest(attrs.evolve(place, claim=attrs.evolve(claim, slots=4))) != placement_digest(
        place
    )
