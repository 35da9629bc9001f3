"""What workers of a gang say is taken by member, and of the present attempt; its record goes when all have ended."""

from __future__ import annotations

import attrs
import pytest

from gpustack.domain.instance import ModelInstance, Placement, Subordinate, status_of
from gpustack.domain.lifecycle import CUT_OFF, REPLACE
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.report import InstanceReport
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.errors import Conflict, Forbidden
from gpustack.server.deployment import delete_instance
from gpustack.server.lifecycle import give_up_place, make_move
from gpustack.server.report import report_instance, worker_leaves

from .cluster import Cluster


async def gang(cluster: Cluster) -> tuple[ModelInstance, Worker, Worker]:
    """Its main member on one worker, two followers on another; attempt 3 is under way."""
    main, other = await cluster.worker("a"), await cluster.worker("b")
    place = Placement(
        worker_id=main.id, subordinates=(Subordinate(worker_id=other.id), Subordinate(worker_id=other.id))
    )
    made = await cluster.instance(await cluster.model("m"), on=main, state=S.INITIALIZING)
    instance = await cluster.store.write(
        lambda tx: tx.change(ModelInstance, made.id, placement=place, attempt=3)
    )
    return instance, main, other


def said(member: int, **fields: object) -> InstanceReport:
    return InstanceReport(member=member, **{"attempt": 3, **fields})  # type: ignore[arg-type]  # a test's words


async def test_a_follower_speaks_of_itself_and_leaves_the_instance_as_it_is(cluster: Cluster) -> None:
    instance, _, other = await gang(cluster)
    running = said(2, state=S.RUNNING, address="10.0.0.2", ports=(40064,), pid=9)
    await report_instance(
        cluster.store, other.id, instance.id, said(2, state=S.STARTING, state_message="soon")
    )
    await report_instance(cluster.store, other.id, instance.id, running)
    now = cluster.now(instance)
    assert (now.state, now.pid, now.ports, now.address) == (S.INITIALIZING, None, (), "")
    assert status_of(now, 1).state is S.PENDING, "nothing was said of it"
    second = status_of(now, 2)
    assert (second.state, second.state_message, second.address, second.ports, second.pid) == (
        S.RUNNING,
        "",
        "10.0.0.2",
        (40064,),
        9,
    )


async def test_what_is_said_of_a_former_attempt_is_refused_and_forgotten(cluster: Cluster) -> None:
    instance, main, other = await gang(cluster)
    with pytest.raises(Conflict, match="Attempt 2 of model instance"):
        await report_instance(cluster.store, other.id, instance.id, said(1, attempt=2, state=S.ERROR))
    await report_instance(cluster.store, other.id, instance.id, said(1, state=S.RUNNING, pid=5))
    again = InstanceReport(state=S.INITIALIZING, attempt=4, address="10.0.0.1")
    await report_instance(cluster.store, main.id, instance.id, again)
    now = cluster.now(instance)
    assert (now.attempt, now.address, status_of(now, 1).state) == (4, "10.0.0.1", S.PENDING)


async def test_a_worker_speaks_for_its_own_members_only(cluster: Cluster) -> None:
    instance, main, other = await gang(cluster)
    for worker, member in ((main, 1), (other, 0), (other, 3)):
        with pytest.raises(Forbidden):
            await report_instance(cluster.store, worker.id, instance.id, said(member, state=S.RUNNING))


async def test_the_record_goes_once_every_member_has_ended(cluster: Cluster) -> None:
    instance, main, other = await gang(cluster)
    await delete_instance(cluster.store, instance.id)
    for worker, member in ((main, 0), (other, 2)):
        await report_instance(cluster.store, worker.id, instance.id, InstanceReport(member=member, gone=True))
        assert cluster.snapshot.get(ModelInstance, instance.id) is not None
    await report_instance(cluster.store, other.id, instance.id, InstanceReport(member=1, gone=True))
    assert cluster.snapshot.get(ModelInstance, instance.id) is None


async def test_members_of_a_worker_that_was_stopped_are_not_waited_for(cluster: Cluster) -> None:
    instance, main, other = await gang(cluster)
    await worker_leaves(cluster.store, other.id)
    await delete_instance(cluster.store, instance.id)
    await report_instance(cluster.store, main.id, instance.id, InstanceReport(gone=True))
    assert cluster.snapshot.get(ModelInstance, instance.id) is None


async def test_one_that_gives_up_its_place_forgets_its_members_and_goes_on_counting(cluster: Cluster) -> None:
    instance, _, other = await gang(cluster)
    await report_instance(cluster.store, other.id, instance.id, said(1, state=S.RUNNING, pid=5))
    await cluster.store.write(
        lambda tx: give_up_place(tx, cluster.now(instance), REPLACE, "its worker is away")
    )
    now = cluster.now(instance)
    assert (now.state, now.members, now.address, now.attempt) == (S.PENDING, (), "", 3)


async def test_a_gang_of_which_a_worker_is_away_does_not_run_whatever_its_main_member_says(
    cluster: Cluster,
) -> None:
    instance, main, other = await gang(cluster)
    running = InstanceReport(state=S.RUNNING, attempt=3)
    for state in (S.STARTING, S.RUNNING):
        await report_instance(cluster.store, main.id, instance.id, InstanceReport(state=state, attempt=3))
    await cluster.store.write(lambda tx: make_move(tx, cluster.now(instance), CUT_OFF, "b is silent"))
    silent = Condition(state=WorkerState.NOT_READY, why="silent")
    await cluster.store.write(lambda tx: tx.change(Worker, other.id, condition=silent))
    with pytest.raises(Conflict, match="Worker b of model instance"):
        await report_instance(cluster.store, main.id, instance.id, running)
    await cluster.store.write(
        lambda tx: tx.change(Worker, other.id, condition=attrs.evolve(silent, state=WorkerState.READY))
    )
    await report_instance(cluster.store, main.id, instance.id, running)
    assert cluster.now(instance).state is S.RUNNING
