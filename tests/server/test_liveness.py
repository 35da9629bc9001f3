"""Silence is judged by our clock, a blip moves nothing, and what is given up is given up in one pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.instance import Claim, ModelInstance
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.nursery.wake import Wake
from gpustack.policy.liveness import LivenessSettings
from gpustack.server import deployment
from gpustack.server.credential import bar, readmit
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.liveness import Liveness
from gpustack.server.report import InstanceReport, report_instance, worker_leaves
from gpustack.store import Store
from gpustack.store.transaction import Tx

from .cluster import Cluster

SETTINGS = LivenessSettings(look_every=0.01, not_ready_after=45, replace_after=300, brake_hold=1800)
"""The loop itself turns fast; all that is judged is the clock that the test turns."""


class CountedHeartbeats(HeartbeatTimes):
    """Counts how often it was looked at."""

    looks = 0

    def of(self, worker_ids: Collection[int]) -> Mapping[int, float]:
        CountedHeartbeats.looks += 1
        return super().of(worker_ids)


@attrs.define
class Watch:
    cluster: Cluster
    heartbeats: CountedHeartbeats

    async def looks(self, times: int = 3) -> None:
        """Wait until the loop has looked that often at the present instant."""
        with trio.fail_after(30):
            start = CountedHeartbeats.looks
            while CountedHeartbeats.looks < start + times:  # noqa: ASYNC110
                await trio.sleep(0.005)
        await self.cluster.store.write(lambda tx: None)

    async def pass_(self, seconds: float, *speaking: Worker) -> None:
        """Let time pass, in which some workers go on speaking."""
        left = seconds
        while left > 0:
            step = min(left, 15.0)
            self.cluster.clock.forward(step)
            for worker in speaking:
                self.heartbeats.heard(worker.id)
            left -= step
        await self.looks()

    def condition(self, worker: Worker) -> Condition:
        found: Condition = self.cluster.now(worker).condition
        return found


@asynccontextmanager
async def watching(cluster: Cluster, settings: LivenessSettings = SETTINGS) -> AsyncIterator[Watch]:
    heartbeats = CountedHeartbeats(cluster.clock.monotonic)
    service = Liveness(cluster.store, heartbeats, settings, cluster.clock.monotonic)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: service.run(task_status=task_status))
        yield Watch(cluster, heartbeats)
        nursery.cancel_scope.cancel()


async def test_a_silent_worker_gets_nothing_new_and_keeps_its_places(cluster: Cluster) -> None:
    quiet, loud = await cluster.worker("quiet"), await cluster.worker("loud")
    instance = await cluster.instance(await cluster.model("m"), on=quiet)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(quiet.id)
        await watch.pass_(44, loud)
        assert watch.condition(quiet) == quiet.condition
        await watch.pass_(2, loud)
        condition = watch.condition(quiet)
        assert (condition.state, condition.since) == (WorkerState.NOT_READY, cluster.clock.now)
        assert condition.why == "not heard for 46 s"
        await watch.pass_(200, loud)
        assert watch.condition(quiet) == condition, "said once, not at every look"
        assert cluster.now(instance).placement == instance.placement
        watch.heartbeats.heard(quiet.id)
        await watch.looks()
        assert watch.condition(quiet).state is WorkerState.READY
        assert watch.condition(quiet).why == ""
        assert watch.condition(loud) == loud.condition


async def test_what_runs_on_a_silent_worker_is_unreachable_until_it_is_heard_again(cluster: Cluster) -> None:
    quiet, loud = await cluster.worker("quiet"), await cluster.worker("loud")
    model = await cluster.model("m", replicas=4)
    runs, stays = await cluster.instance(model, on=quiet), await cluster.instance(model, on=loud)
    starts = await cluster.instance(model, on=quiet, state=S.STARTING)
    ending = await cluster.instance(model, on=quiet)
    await deployment.delete_instance(cluster.store, ending.id)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(quiet.id)
        last = cluster.clock.now
        await watch.pass_(44, loud)
        assert cluster.now(runs) == runs
        await watch.pass_(2, loud)
        after = cluster.now(runs)
        assert (after.state, after.state_since) == (S.UNREACHABLE, cluster.clock.now)
        assert after.state_message == f"Worker quiet has not been heard since {last:%Y-%m-%d %H:%M:%S} UTC"
        assert (after.placement, after.port) == (runs.placement, runs.port), (
            "it may serve again at any moment"
        )
        assert [cluster.now(i).state for i in (stays, starts, ending)] == [S.RUNNING, S.STARTING, S.RUNNING]
        await watch.pass_(100, loud)
        assert cluster.now(runs) == after, "said once, not at every look"
        watch.heartbeats.heard(quiet.id)
        await watch.looks()
        assert (cluster.now(runs).state, cluster.now(runs).state_message) == (S.RUNNING, "")


async def test_a_worker_that_has_joined_anew_says_itself_what_runs(cluster: Cluster) -> None:
    """The machine may have been started anew: that it is heard is no sign of its engine."""
    quiet, loud = await cluster.worker("quiet"), await cluster.worker("loud")
    instance = await cluster.instance(await cluster.model("m"), on=quiet)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(quiet.id)
        await watch.pass_(50, loud)
        assert cluster.now(instance).state is S.UNREACHABLE
        cluster.clock.forward(1)
        await cluster.change(quiet, heartbeat_time=cluster.clock.now, credential_since=cluster.clock.now)
        await watch.looks(6)
        assert watch.condition(quiet).state is WorkerState.READY
        assert cluster.now(instance).state is S.UNREACHABLE
        report = InstanceReport(state=S.INITIALIZING)
        await report_instance(cluster.store, quiet.id, instance.id, report)
        assert cluster.now(instance).state_message == ""
        await watch.pass_(50, loud, quiet)
        assert cluster.now(instance).state is S.INITIALIZING


async def test_the_word_that_an_engine_answers_ends_unreachable_at_once(cluster: Cluster) -> None:
    quiet, loud = await cluster.worker("quiet"), await cluster.worker("loud")
    instance = await cluster.instance(await cluster.model("m"), on=quiet)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(quiet.id)
        await watch.pass_(50, loud)
        report = InstanceReport(state=S.RUNNING, pid=1, port=40000)
        await report_instance(cluster.store, quiet.id, instance.id, report)
        assert cluster.now(instance).state is S.RUNNING


async def test_after_a_restart_of_ours_nothing_becomes_unreachable_nor_running(cluster: Cluster) -> None:
    healthy, dead = await cluster.worker("healthy"), await cluster.worker("dead")
    model = await cluster.model("m")
    runs, cut_off = await cluster.instance(model, on=healthy), await cluster.instance(model, on=dead)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(dead.id)
        await watch.pass_(50, healthy)
        cut_off = cluster.now(cut_off)
        assert cut_off.state is S.UNREACHABLE
    async with watching(cluster) as watch:
        await watch.looks()
        await watch.pass_(44)
        assert (cluster.now(runs), cluster.now(cut_off)) == (runs, cut_off)
        watch.heartbeats.heard(dead.id)
        await watch.looks()
        assert cluster.now(cut_off).state is S.RUNNING


async def test_nothing_is_written_while_all_are_heard(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    async with watching(cluster) as watch:
        revision = cluster.snapshot.revision
        await watch.pass_(3600, worker)
        assert cluster.snapshot.revision == revision


async def test_past_the_grace_all_that_ran_there_is_given_up_in_one_pass(cluster: Cluster) -> None:
    lost = await cluster.worker("lost")
    others = [await cluster.worker(name) for name in "abc"]
    model = await cluster.model("m", replicas=4)
    for _ in range(300):
        await cluster.instance(model, on=lost, claim=Claim(ram=1))
    ending = await cluster.instance(model, on=lost)
    stays = await cluster.instance(model, on=others[0])
    await deployment.delete_instance(cluster.store, ending.id)
    async with watching(cluster) as watch:
        await watch.pass_(299, *others)
        assert len(list(cluster.snapshot.claims_on(lost.id))) == 301
        commits = cluster.store.commits
        await watch.pass_(2, *others)
        await cluster.until(lambda s: not list(s.claims_on(lost.id)))
        assert cluster.store.commits - commits <= 3, "few transactions, whatever their number"
        assert cluster.snapshot.get(ModelInstance, ending.id) is None
        assert watch.condition(lost).state is WorkerState.UNREACHABLE
        assert cluster.now(stays) == stays
        waiting = [i for i in cluster.snapshot.instances.values() if i.state is S.PENDING]
        assert len(waiting) == 300
        assert all("silent too long" in i.state_message and i.port is None for i in waiting)


async def test_a_worker_that_comes_back_in_time_keeps_all(cluster: Cluster) -> None:
    lost = await cluster.worker("lost")
    others = [await cluster.worker(name) for name in "abc"]
    model = await cluster.model("m")
    instances = [await cluster.instance(model, on=lost, claim=Claim(ram=1)) for _ in range(5)]
    async with watching(cluster) as watch:
        await watch.pass_(299, *others)
        assert watch.condition(lost).state is WorkerState.NOT_READY
        await watch.pass_(2, lost, *others)
        assert watch.condition(lost).state is WorkerState.READY
        assert {cluster.now(i).state for i in instances} == {S.RUNNING}


async def test_when_most_fall_silent_at_once_nothing_moves_for_a_long_time(cluster: Cluster) -> None:
    workers = [await cluster.worker(name) for name in "abcd"]
    model = await cluster.model("m")
    instances = [await cluster.instance(model, on=worker) for worker in workers]
    async with watching(cluster) as watch:
        await watch.pass_(400, workers[3])
        assert [watch.condition(w).state for w in workers[:3]] == [WorkerState.UNREACHABLE] * 3
        assert "3 fell silent together, so its instances stay for now" in watch.condition(workers[0]).why
        assert [cluster.now(i).placement for i in instances] == [i.placement for i in instances]
        assert [cluster.now(i).state for i in instances] == [S.UNREACHABLE] * 3 + [S.RUNNING]
        since = watch.condition(workers[0]).since
        await watch.pass_(1800, workers[3])
        await cluster.until(lambda s: sum(i.state is S.PENDING for i in s.instances.values()) == 3)
        condition = watch.condition(workers[0])
        assert "stay for now" not in condition.why
        assert condition.since == since


async def test_after_a_restart_of_ours_every_lease_is_full_and_no_judgement_is_undone(
    cluster: Cluster,
) -> None:
    healthy, dead = await cluster.worker("healthy"), await cluster.worker("dead")
    gone = Condition(state=WorkerState.UNREACHABLE, why="not heard for 999 s")
    await cluster.change(dead, condition=gone)
    async with watching(cluster) as watch:
        assert watch.heartbeats.last_heard(dead.id) is None
        await watch.looks()
        assert watch.condition(healthy).state is WorkerState.READY
        assert watch.condition(dead) == gone, "that we have started is no sign of life of others"
        await watch.pass_(46, healthy)
        assert watch.condition(dead) == gone
        await watch.pass_(1, healthy, dead)
        assert watch.condition(dead).state is WorkerState.READY


async def test_detection_faults_are_still_told_after_a_silence(cluster: Cluster) -> None:
    worker, other = await cluster.worker("a"), await cluster.worker("b")
    status = attrs.evolve(worker.status, detection_faults=("NVIDIA is ill",))
    await cluster.change(worker, status=status)
    async with watching(cluster) as watch:
        await watch.pass_(50, other)
        assert watch.condition(worker).why == "not heard for 50 s"
        watch.heartbeats.heard(worker.id)
        await watch.looks()
        assert watch.condition(worker).why == "NVIDIA is ill"


async def test_what_a_worker_said_to_another_server_counts(cluster: Cluster) -> None:
    """Its heartbeats are heard of; what it said that was written is seen in its record."""
    far, near, other = [await cluster.worker(name) for name in ("far", "near", "other")]
    instance = await cluster.instance(await cluster.model("m"), on=far)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(far.id)
        for _ in range(30):
            watch.heartbeats.heard_elsewhere(near.id, 3.0)
            await watch.pass_(15, other)
        assert watch.condition(near).state is WorkerState.READY
        watch.heartbeats.heard_elsewhere(far.id, 1000.0)
        await watch.looks()
        assert watch.condition(far).state is not WorkerState.READY, "what is old changes nothing"
        await cluster.change(far, heartbeat_time=cluster.clock.now)
        await watch.looks()
        assert watch.condition(far).state is WorkerState.READY
        assert watch.heartbeats.last_heard(far.id) == cluster.clock.monotonic()
        assert cluster.now(instance) is not None


async def test_a_verdict_is_void_when_the_worker_spoke_to_another_server_meanwhile(cluster: Cluster) -> None:
    """It joins there in the very moment in which it is given up here: nothing is taken from it."""
    lost, others = await cluster.worker("lost"), [await cluster.worker(name) for name in "abc"]
    instance = await cluster.instance(await cluster.model("m"), on=lost)
    spoke: list[Worker] = []

    @attrs.frozen
    class Slow:
        """A store whose writes come just after what another server wrote."""

        store: Store

        @property
        def snapshot(self) -> Snapshot:
            return self.store.snapshot

        async def write(self, work: Callable[[Tx], Any]) -> Any:
            if not spoke:
                spoke.append(
                    await cluster.change(lost, heartbeat_time=cluster.clock.now, credential_hash="new")
                )
            return await self.store.write(work)

        def watch(self, tables: Iterable[str] | None = None) -> AbstractContextManager[Wake]:
            return self.store.watch(tables)

    heartbeats = CountedHeartbeats(cluster.clock.monotonic)
    service = Liveness(Slow(cluster.store), heartbeats, SETTINGS, cluster.clock.monotonic)
    for worker in (lost, *others):
        heartbeats.heard(worker.id)
    cluster.clock.forward(400)
    for worker in others:
        heartbeats.heard(worker.id)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: service.run(task_status=task_status))
        await Watch(cluster, heartbeats).looks(5)
        nursery.cancel_scope.cancel()
    assert spoke
    assert cluster.now(lost).condition.state is WorkerState.READY
    assert cluster.now(instance) == instance


async def test_whose_time_ends_while_a_look_writes_is_looked_at_right_after(cluster: Cluster) -> None:
    """A tenth of a large cluster that falls silent does so over some time, and writing of the first takes some."""
    first, second = await cluster.worker("first"), await cluster.worker("second")
    others = [await cluster.worker(name) for name in "abc"]
    instance = await cluster.instance(await cluster.model("m"), on=second, claim=Claim(ram=1))

    @attrs.define
    class Slow:
        """A store of which each write takes a second."""

        store: Store

        @property
        def snapshot(self) -> Snapshot:
            return self.store.snapshot

        async def write(self, work: Callable[[Tx], Any]) -> Any:
            done = await self.store.write(work)
            cluster.clock.forward(1)
            return done

        def watch(self, tables: Iterable[str] | None = None) -> AbstractContextManager[Wake]:
            return self.store.watch(tables)

    heartbeats = CountedHeartbeats(cluster.clock.monotonic)
    seldom = attrs.evolve(SETTINGS, look_every=3600)
    heartbeats.heard(first.id)
    cluster.clock.forward(0.5)
    heartbeats.heard(second.id)
    cluster.clock.forward(299.6)
    for worker in others:
        heartbeats.heard(worker.id)
    async with trio.open_nursery() as nursery:
        service = Liveness(Slow(cluster.store), heartbeats, seldom, cluster.clock.monotonic)
        await nursery.start(lambda task_status: service.run(task_status=task_status))
        await cluster.until(lambda s: not list(s.claims_on(second.id)))
        nursery.cancel_scope.cancel()
    assert cluster.now(instance).state is S.PENDING


async def test_a_worker_that_stops_gets_nothing_more_until_it_joins_again(cluster: Cluster) -> None:
    stopping, other = await cluster.worker("stopping"), await cluster.worker("other")
    async with watching(cluster) as watch:
        watch.heartbeats.heard(stopping.id)
        await worker_leaves(cluster.store, stopping.id)
        condition = watch.condition(stopping)
        assert (condition.state, condition.why) == (WorkerState.NOT_READY, "its daemon was stopped")
        for _ in range(3):
            watch.heartbeats.heard(stopping.id)
            await watch.pass_(10, other)
        assert watch.condition(stopping) == condition, "it is heard while its engines end"
        await watch.pass_(400, other)
        assert watch.condition(stopping).state is WorkerState.UNREACHABLE
        await cluster.change(stopping, leaving=False, heartbeat_time=cluster.clock.now)
        await watch.looks()
        assert watch.condition(stopping).state is WorkerState.READY


async def test_what_a_stopped_worker_ran_is_placed_elsewhere_after_a_short_grace(cluster: Cluster) -> None:
    """It told that it stops, so there is no silence to be judged, and no network of ours to be doubted."""
    stopped, other = await cluster.worker("stopped"), await cluster.worker("other")
    model = await cluster.model("m", replicas=2)
    instances = [await cluster.instance(model, on=stopped) for _ in range(2)]
    async with watching(cluster) as watch:
        watch.heartbeats.heard(stopped.id)
        await worker_leaves(cluster.store, stopped.id)
        for instance in instances:
            await cluster.move(instance, S.ERROR)
        await watch.looks()
        await watch.pass_(29, other)
        assert all(cluster.now(i).placement is not None for i in instances), "it may be back in a moment"
        await watch.pass_(2, other)
        for instance in instances:
            found = cluster.now(instance)
            assert (found.state, found.placement) == (S.PENDING, None)
            assert found.state_message == "Its worker was stopped; looking for another place"
        condition = watch.condition(stopped)
        assert (condition.state, condition.why) == (WorkerState.NOT_READY, "its daemon was stopped")


async def test_what_runs_on_a_worker_that_was_killed_after_its_goodbye_is_cut_off_too(
    cluster: Cluster,
) -> None:
    """It never said how its engines ended: as silent as any other, it is asked last and counted by nobody."""
    stopped = await cluster.worker("stopped")
    instance = await cluster.instance(await cluster.model("m"), on=stopped, state=S.RUNNING)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(stopped.id)
        await worker_leaves(cluster.store, stopped.id)
        await watch.looks()
        await watch.pass_(30)
        assert cluster.now(instance).state is S.RUNNING
        await watch.pass_(20)
        assert cluster.now(instance).state is S.UNREACHABLE


async def test_a_stopped_worker_keeps_its_places_while_nobody_could_take_them(cluster: Cluster) -> None:
    stopped, closed = await cluster.worker("stopped"), await cluster.worker("closed", cordoned=True)
    instance = await cluster.instance(await cluster.model("m"), on=stopped)
    async with watching(cluster) as watch:
        watch.heartbeats.heard(stopped.id)
        await worker_leaves(cluster.store, stopped.id)
        await watch.looks()
        await watch.pass_(400, closed)
        assert cluster.now(instance).placement is not None
        await cluster.change(closed, cordoned=False)
        await watch.looks()
        assert cluster.now(instance).placement is None


async def test_workers_that_are_stopped_together_pull_no_brake_and_are_no_sign_of_one(
    cluster: Cluster,
) -> None:
    workers = [await cluster.worker(name) for name in "abcd"]
    lost, other = workers[2], workers[3]
    instance = await cluster.instance(await cluster.model("m"), on=lost)
    async with watching(cluster) as watch:
        for worker in workers[:2]:
            watch.heartbeats.heard(worker.id)
            await worker_leaves(cluster.store, worker.id)
        watch.heartbeats.heard(lost.id)
        await watch.pass_(50, other)
        assert "together" not in watch.condition(lost).why
        assert cluster.now(instance).state is S.UNREACHABLE


@pytest.mark.parametrize("void", [bar, readmit])
async def test_who_is_barred_or_let_in_again_has_not_spoken_by_that(
    cluster: Cluster, void: Callable[[Store, int], Awaitable[Worker]]
) -> None:
    silent, other = await cluster.worker("silent"), await cluster.worker("other")
    async with watching(cluster) as watch:
        watch.heartbeats.heard(silent.id)
        heard_at = cluster.clock.monotonic()
        await watch.pass_(30, other)
        await void(cluster.store, silent.id)
        await watch.looks()
        assert watch.heartbeats.last_heard(silent.id) == heard_at
        await cluster.change(silent, credential_hash="new")
        await watch.looks()
        assert watch.heartbeats.last_heard(silent.id) == cluster.clock.monotonic(), "it has joined again"


async def test_what_was_said_before_we_judged_makes_nobody_ready(cluster: Cluster) -> None:
    """Its last word, to another server, was long ago; that its lease is full here is no sign of life."""
    silent, other = await cluster.worker("silent"), await cluster.worker("other")
    quiet = Condition(state=WorkerState.NOT_READY, why="not heard for 50 s")
    await cluster.change(silent, condition=quiet)
    async with watching(cluster) as watch:
        watch.heartbeats.refill()
        watch.heartbeats.heard_elsewhere(silent.id, 50.0)
        await watch.pass_(10, other)
        assert watch.condition(silent) == quiet
        assert watch.heartbeats.last_heard(silent.id) == cluster.clock.monotonic() - 60.0
        watch.heartbeats.heard_elsewhere(silent.id, 3.0)
        await watch.looks()
        assert watch.condition(silent).state is WorkerState.READY


def test_who_begins_to_judge_takes_nobody_for_silent() -> None:
    now = 5.0
    heartbeats = HeartbeatTimes(lambda: now)
    heartbeats.heard(1)
    now = 500.0
    heartbeats.refill()
    now = 502.0
    assert heartbeats.of([1, 2]) == {1: 500.0, 2: 502.0}
    assert heartbeats.last_heard(1) == 5.0, "what is shown is what was heard"


def test_other_servers_are_told_once_of_each_word() -> None:
    now = 5.0
    heartbeats = HeartbeatTimes(lambda: now)
    for worker_id in (1, 2):
        heartbeats.heard(worker_id)
    heartbeats.heard_elsewhere(3, 1.0)
    now = 7.0
    assert heartbeats.take_untold() == {1: 2.0, 2: 2.0}
    assert heartbeats.take_untold() == {}
    heartbeats.drop(2)
    heartbeats.put_back([1, 2])
    assert heartbeats.take_untold() == {1: 2.0}
    heartbeats.heard_elsewhere(1, 0.5)
    assert heartbeats.last_heard(1) == 6.5 and heartbeats.take_untold() == {}
    heartbeats.heard_elsewhere(1, 100.0)
    assert heartbeats.last_heard(1) == 6.5


def test_the_times_of_those_that_are_gone_are_forgotten() -> None:
    now = 5.0
    heartbeats = HeartbeatTimes(lambda: now)
    heartbeats.heard(1)
    now = 9.0
    assert heartbeats.of([1, 2]) == {1: 5.0, 2: 9.0}
    assert (heartbeats.last_heard(1), heartbeats.last_heard(2)) == (5.0, None)
    assert heartbeats.of([2]) == {2: 9.0}
    assert heartbeats.last_heard(1) is None
    assert repr(heartbeats) == "<HeartbeatTimes: 1 workers, the longest silent for 0 s>"


@pytest.mark.parametrize("word", ["heard", "drop"])
def test_a_deleted_worker_may_come_again(word: str) -> None:
    heartbeats = HeartbeatTimes(lambda: 1.0)
    heartbeats.heard(1)
    getattr(heartbeats, word)(1)
    assert (heartbeats.last_heard(1) is None) == (word == "drop")
