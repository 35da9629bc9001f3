"""Silence is judged by our clock, a blip moves nothing, and what is given up is given up one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.change import ChangeKind
from gpustack.domain.instance import Claim, ModelInstance
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.policy.liveness import LivenessSettings
from gpustack.server import deploy
from gpustack.server.leases import Leases
from gpustack.server.liveness import Liveness

from .cluster import Cluster

SETTINGS = LivenessSettings(look_every=0.01, not_ready_after=45, replace_after=300, brake_hold=1800)
"""The loop itself turns fast; all that is judged is the clock that the test turns."""


class CountedLeases(Leases):
    """Counts how often it was looked at."""

    looks = 0

    def of(self, worker_ids: Collection[int]) -> Mapping[int, float]:
        CountedLeases.looks += 1
        return super().of(worker_ids)


@attrs.define
class Watch:
    cluster: Cluster
    leases: CountedLeases

    async def looks(self, times: int = 3) -> None:
        """Wait until the loop has looked that often at the present instant."""
        with trio.fail_after(30):
            start = CountedLeases.looks
            while CountedLeases.looks < start + times:  # noqa: ASYNC110
                await trio.sleep(0.005)
        await self.cluster.store.write(lambda tx: None)

    async def pass_(self, seconds: float, *speaking: Worker) -> None:
        """Let time pass, in which some workers go on speaking."""
        left = seconds
        while left > 0:
            step = min(left, 15.0)
            self.cluster.clock.forward(step)
            for worker in speaking:
                self.leases.heard(worker.id)
            left -= step
        await self.looks()

    def condition(self, worker: Worker) -> Condition:
        found: Condition = self.cluster.now(worker).condition
        return found


@asynccontextmanager
async def watching(cluster: Cluster, settings: LivenessSettings = SETTINGS) -> AsyncIterator[Watch]:
    leases = CountedLeases(cluster.clock.monotonic)
    service = Liveness(cluster.store, leases, settings, cluster.clock.monotonic)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: service.run(task_status=task_status))
        yield Watch(cluster, leases)
        nursery.cancel_scope.cancel()


async def test_a_silent_worker_gets_nothing_new_and_keeps_what_it_has(cluster: Cluster) -> None:
    quiet, loud = await cluster.worker("quiet"), await cluster.worker("loud")
    instance = await cluster.instance(await cluster.model("m"), on=quiet)
    async with watching(cluster) as watch:
        watch.leases.heard(quiet.id)
        await watch.pass_(44, loud)
        assert watch.condition(quiet) == quiet.condition
        await watch.pass_(2, loud)
        condition = watch.condition(quiet)
        assert (condition.state, condition.since) == (WorkerState.NOT_READY, cluster.clock.now)
        assert condition.why == "not heard for 46 s"
        await watch.pass_(200, loud)
        assert watch.condition(quiet) == condition, "said once, not at every look"
        assert cluster.now(instance) == instance
        watch.leases.heard(quiet.id)
        await watch.looks()
        assert watch.condition(quiet).state is WorkerState.READY
        assert watch.condition(quiet).why == ""
        assert watch.condition(loud) == loud.condition


async def test_nothing_is_written_while_all_are_heard(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    async with watching(cluster) as watch:
        revision = cluster.snapshot.revision
        await watch.pass_(3600, worker)
        assert cluster.snapshot.revision == revision


async def test_past_the_grace_instances_move_one_by_one(cluster: Cluster) -> None:
    lost = await cluster.worker("lost")
    others = [await cluster.worker(name) for name in "abc"]
    model = await cluster.model("m", replicas=4)
    for _ in range(3):
        await cluster.instance(model, on=lost, claim=Claim(ram=1))
    ending = await cluster.instance(model, on=lost)
    stays = await cluster.instance(model, on=others[0])
    await deploy.delete_instance(cluster.store, ending.id)
    async with watching(cluster) as watch:
        with cluster.store.listen() as listener:
            await watch.pass_(299, *others)
            assert cluster.now(ending) is not None
            await watch.pass_(2, *others)
            await cluster.until(lambda s: not list(s.claims_on(lost.id)))
            moves: dict[int, int] = {}
            rank = 0
            while len(moves) < 4:
                change = await listener.next()
                if isinstance(change.record, ModelInstance):
                    moves[change.record.id] = rank = rank + 1
                    if change.kind is ChangeKind.UPDATED:
                        assert change.record.state is S.PENDING
        assert min(moves, key=lambda key: moves[key]) in {ending.id, 1}
        assert cluster.now(ending) is None
        assert watch.condition(lost).state is WorkerState.UNREACHABLE
        assert cluster.now(stays) == stays
        waiting = [i for i in cluster.snapshot.instances.values() if i.state is S.PENDING]
        assert len(waiting) == 3
        assert all("silent too long" in i.state_message and i.port is None for i in waiting)


async def test_a_worker_that_comes_back_keeps_what_was_not_moved_yet(cluster: Cluster) -> None:
    lost = await cluster.worker("lost")
    others = [await cluster.worker(name) for name in "abc"]
    model = await cluster.model("m")
    for _ in range(50):
        await cluster.instance(model, on=lost, claim=Claim(ram=1))
    async with watching(cluster) as watch:
        await watch.pass_(0.1, *others)

        def some_moved(snapshot: object) -> bool:
            moved = any(i.state is S.PENDING for i in cluster.snapshot.instances.values())
            if moved:
                watch.leases.heard(lost.id)
            return moved

        cluster.clock.forward(301)
        for worker in others:
            watch.leases.heard(worker.id)
        await cluster.until(some_moved)
        await watch.looks()
        await watch.looks()
        states = [i.state for i in cluster.snapshot.instances.values()]
        assert 1 <= states.count(S.PENDING) <= 2
        assert watch.condition(lost).state is WorkerState.READY


async def test_when_most_fall_silent_at_once_nothing_moves_for_a_long_time(cluster: Cluster) -> None:
    workers = [await cluster.worker(name) for name in "abcd"]
    model = await cluster.model("m")
    instances = [await cluster.instance(model, on=worker) for worker in workers]
    async with watching(cluster) as watch:
        await watch.pass_(400, workers[3])
        assert [watch.condition(w).state for w in workers[:3]] == [WorkerState.UNREACHABLE] * 3
        assert "3 fell silent together, so its instances stay for now" in watch.condition(workers[0]).why
        assert [cluster.now(i) for i in instances] == instances
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
        assert watch.leases.last_heard(dead.id) is None
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
        watch.leases.heard(worker.id)
        await watch.looks()
        assert watch.condition(worker).why == "NVIDIA is ill"


def test_leases_of_those_that_are_gone_are_forgotten() -> None:
    now = 5.0
    leases = Leases(lambda: now)
    leases.heard(1)
    now = 9.0
    assert leases.of([1, 2]) == {1: 5.0, 2: 9.0}
    assert (leases.last_heard(1), leases.last_heard(2)) == (5.0, None)
    assert leases.of([2]) == {2: 9.0}
    assert leases.last_heard(1) is None
    assert repr(leases) == "<Leases: 1 workers, the longest silent for 0 s>"


@pytest.mark.parametrize("word", ["heard", "drop"])
def test_a_deleted_worker_may_come_again(word: str) -> None:
    leases = Leases(lambda: 1.0)
    leases.heard(1)
    getattr(leases, word)(1)
    assert (leases.last_heard(1) is None) == (word == "drop")
