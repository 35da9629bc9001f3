"""Who a joining machine turns out to be."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from gpustack.domain.report import JoinRequest
from gpustack.domain.worker import Condition, Worker, WorkerState, WorkerStatus
from gpustack.errors import AlreadyExists, Invalid
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.join import JoinResult, join

from .cluster import Cluster

KEYS = DerivedKeys.of("secret")


@pytest.fixture
def heartbeats(cluster: Cluster) -> HeartbeatTimes:
    return HeartbeatTimes(cluster.clock.monotonic)


async def joined(
    cluster: Cluster, heartbeats: HeartbeatTimes, name: str, uuid: str, **more: Any
) -> JoinResult:
    secrets = random.Random(f"{name}{uuid}{cluster.snapshot.revision}")
    return await join(
        cluster.store,
        JoinRequest(name=name, worker_uuid=uuid, ip="10.0.0.1", **more),
        keys=KEYS,
        heartbeats=heartbeats,
        secret=lambda: f"{secrets.getrandbits(128):032x}",
        rng=random.Random(1),
    )


async def test_a_new_machine_is_taken_in_as_ready_but_nothing_is_known_of_it(
    cluster: Cluster, heartbeats: HeartbeatTimes
) -> None:
    made = await joined(cluster, heartbeats, "a", "u1", port=10199, labels={"os": "linux"}, version="1.2")
    worker = cluster.snapshot.workers[made.worker.id]
    assert worker == made.worker
    assert (worker.name, worker.port, worker.version_running) == ("a", 10199, "1.2")
    assert worker.labels == {"os": "linux", "worker-name": "a"}
    assert worker.condition.state is WorkerState.READY
    assert worker.status == WorkerStatus(), "so that nothing can be placed there yet"
    assert heartbeats.last_heard(worker.id) == cluster.clock.since_boot
    assert made.forward_key == KEYS.forward_key("u1")


async def test_the_same_machine_keeps_its_id_and_what_was_edited_here(
    cluster: Cluster, heartbeats: HeartbeatTimes
) -> None:
    first = (await joined(cluster, heartbeats, "a", "u1", labels={"os": "linux", "rack": "1"})).worker
    await cluster.change(first, labels={**first.labels, "rack": "2", "zone": "z"}, cordoned=True)
    again = (await joined(cluster, heartbeats, "a", "u1", labels={"rack": "1", "new": "n"}, port=7)).worker
    assert again.id == first.id
    assert again.labels == {"os": "linux", "worker-name": "a", "rack": "2", "zone": "z", "new": "n"}
    assert (again.cordoned, again.port) == (True, 7)
    assert again.condition == first.condition, "it was ready all the time"


async def test_each_joining_voids_the_credential_before(cluster: Cluster, heartbeats: HeartbeatTimes) -> None:
    first = await joined(cluster, heartbeats, "a", "u1")
    second = await joined(cluster, heartbeats, "a", "u1")
    assert first.credential != second.credential
    assert first.credential.startswith(f"gpustack_worker_{first.worker.id}_")
    kept = cluster.now(first.worker).credential_hash
    assert kept == KEYS.worker_hash(second.credential.rpartition("_")[2])
    assert first.credential.rpartition("_")[2] not in kept
    assert second.credential not in repr(second)


async def test_a_known_machine_may_take_a_new_name_and_its_label_follows(
    cluster: Cluster, heartbeats: HeartbeatTimes
) -> None:
    first = (await joined(cluster, heartbeats, "a", "u1")).worker
    renamed = (await joined(cluster, heartbeats, "b", "u1")).worker
    assert (renamed.id, renamed.name, renamed.labels["worker-name"]) == (first.id, "b", "b")
    await cluster.change(renamed, labels={"worker-name": "mine"})
    assert (await joined(cluster, heartbeats, "c", "u1")).worker.labels["worker-name"] == "mine"


async def test_a_taken_name_that_was_chosen_is_refused(cluster: Cluster, heartbeats: HeartbeatTimes) -> None:
    await joined(cluster, heartbeats, "a", "u1")
    with pytest.raises(AlreadyExists, match=r"different UUID.*--worker-name"):
        await joined(cluster, heartbeats, "a", "u2", explicit_name=True)
    assert len(cluster.snapshot.workers) == 1


async def test_a_taken_name_that_nobody_chose_gets_a_number(
    cluster: Cluster, heartbeats: HeartbeatTimes
) -> None:
    await joined(cluster, heartbeats, "a", "u1")
    second = (await joined(cluster, heartbeats, "a", "u2")).worker
    third = (await joined(cluster, heartbeats, "a", "u3")).worker
    assert {second.name[:2], third.name[:2]} == {"a-"}
    assert 10000 <= int(second.name[2:]) < 100000
    assert second.name != third.name
    assert (await joined(cluster, heartbeats, "a", "u2")).worker.name == second.name, "and keeps it"


async def test_a_record_from_before_there_were_uuids_is_adopted(
    cluster: Cluster, heartbeats: HeartbeatTimes
) -> None:
    old = await cluster.store.write(lambda tx: tx.insert(Worker(name="a", worker_uuid="")))
    now = (await joined(cluster, heartbeats, "a", "u1", explicit_name=True)).worker
    assert (now.id, now.worker_uuid) == (old.id, "u1")


async def test_a_machine_given_up_is_ready_again_when_it_joins(
    cluster: Cluster, heartbeats: HeartbeatTimes
) -> None:
    first = (await joined(cluster, heartbeats, "a", "u1")).worker
    await cluster.change(first, condition=Condition(state=WorkerState.UNREACHABLE, why="not heard for 400 s"))
    cluster.clock.forward(60)
    condition = (await joined(cluster, heartbeats, "a", "u1")).worker.condition
    assert (condition.state, condition.since, condition.why) == (WorkerState.READY, cluster.clock.now, "")


@pytest.mark.parametrize(("name", "uuid"), [("", "u"), ("a", ""), (" ", "u"), ("a\n", "u"), ("a" * 201, "u")])
async def test_a_request_that_names_no_machine_is_refused(
    cluster: Cluster, heartbeats: HeartbeatTimes, name: str, uuid: str
) -> None:
    with pytest.raises(Invalid, match="printable characters"):
        await joined(cluster, heartbeats, name, uuid)


async def test_two_machines_of_one_name_at_the_same_time_get_two_names(
    cluster: Cluster, heartbeats: HeartbeatTimes
) -> None:
    found: list[Worker] = []

    async def one(uuid: str) -> None:
        found.append((await joined(cluster, heartbeats, "a", uuid)).worker)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(one, f"u{number}")
    assert len({worker.id for worker in found}) == len({worker.name for worker in found}) == 5


async def test_one_machine_joining_twice_at_once_is_one_worker(
    cluster: Cluster, heartbeats: HeartbeatTimes
) -> None:
    found: list[JoinResult] = []

    async def one() -> None:
        found.append(await joined(cluster, heartbeats, "a", "u1"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
    assert len(cluster.snapshot.workers) == 1
    kept = cluster.snapshot.workers[found[0].worker.id].credential_hash
    assert kept in {made.worker.credential_hash for made in found}
