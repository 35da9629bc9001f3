"""A worker's own credential: replaced without locking it out, void when barred, not to be had by the token alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from gpustack.domain.worker import WorkerState
from gpustack.identity.derived_keys import DerivedKeys

from .world import TOKEN, World

JOIN = {"name": "node", "worker_uuid": "u-1", "ip": "10.0.0.7", "keeps_credential": True}
DAY = 86400.0


async def join(world: World, bearer: str = TOKEN, **more: Any) -> httpx.Response:
    return await world.ask("POST", "/v1/workers", bearer, json={**JOIN, **more})


async def joined(world: World, bearer: str = TOKEN) -> tuple[int, str]:
    """Id and credential of the machine, which has shown it."""
    answer = await join(world, bearer)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert await beat(world, made["credential"], made["id"]) is None
    return made["id"], made["credential"]


async def beat(world: World, credential: str, worker_id: int = 1) -> str | None:
    """The credential that a heartbeat is answered with."""
    answer = await world.ask("POST", f"/v1/workers/{worker_id}/heartbeat", credential, json={})
    assert answer.status_code == 200, answer.text
    return answer.json()["credential"]  # type: ignore[no-any-return]


async def is_good(world: World, credential: str, worker_id: int = 1) -> bool:
    answer = await world.ask("GET", f"/v1/workers/{worker_id}", credential)
    return answer.status_code == 200


async def test_a_credential_is_replaced_once_a_day_and_the_former_is_void_once_the_new_one_is_used(
    world: World,
) -> None:
    key, first = await joined(world)
    world.clock.forward(DAY - 1)
    assert await beat(world, first, key) is None
    world.clock.forward(1)
    second = await beat(world, first, key)
    assert second is not None and second != first
    assert await is_good(world, first, key), "the answer may have been lost"
    assert await beat(world, second, key) is None
    assert not await is_good(world, first, key)
    assert await is_good(world, second, key)


async def test_an_answer_that_was_lost_locks_nobody_out(world: World) -> None:
    key, first = await joined(world)
    world.clock.forward(DAY)
    lost = await beat(world, first, key)
    assert lost is not None
    before = world.store.commits
    for _ in range(59):
        world.clock.forward(60)
        assert await beat(world, first, key) is None, "it may be on its way, or cannot be kept"
    assert world.store.commits == before
    world.clock.forward(60)
    second = await beat(world, first, key)
    assert second is not None
    assert not await is_good(world, lost, key)
    assert await beat(world, second, key) is None
    assert not await is_good(world, first, key)


async def test_the_lifetime_is_what_the_server_says(world: World) -> None:
    world = world.rebuilt(credential_lifetime=timedelta(seconds=5))
    key, first = await joined(world)
    world.clock.forward(5)
    assert await beat(world, first, key) is not None


async def test_a_worker_joins_again_by_its_own_credential_whatever_the_token_is_by_now(world: World) -> None:
    key, first = await joined(world)
    moved = world.rebuilt(cluster_token="another-token")
    assert await beat(moved, first, key) is None, "who has joined goes on"
    again = (await join(moved, first)).json()
    assert again["id"] == key
    assert await is_good(moved, first, key), "until the new one is used"
    assert await beat(moved, again["credential"], key) is None
    assert not await is_good(moved, first, key)
    assert (await join(moved, TOKEN, worker_uuid="u-9", name="new")).status_code == 401
    assert (await join(moved, "another-token", worker_uuid="u-9", name="new")).status_code == 200


@pytest.mark.attack("worker")
async def test_who_holds_the_token_does_not_take_the_place_of_a_machine(world: World) -> None:
    key, credential = await joined(world)
    before = world.store.snapshot.workers[key]
    answer = await join(world, TOKEN, ip="6.6.6.6")
    assert answer.status_code == 403
    assert "gpustack workers admit" in answer.json()["message"]
    assert world.store.snapshot.workers[key] == before
    assert await is_good(world, credential, key)


@pytest.mark.attack("worker")
async def test_a_refused_impostor_keeps_no_silent_worker_alive(world: World) -> None:
    key, _ = await joined(world)
    heard = world.context.workers.heartbeats.last_heard(key)
    world.clock.forward(100)
    assert (await join(world, TOKEN)).status_code == 403
    assert world.context.workers.heartbeats.last_heard(key) == heard


@pytest.mark.attack("worker")
@pytest.mark.parametrize("uuid", ["u-2", "u-new"])
async def test_a_worker_joins_only_as_itself(world: World, uuid: str) -> None:
    await joined(world)
    other, credential = await world.worker("other", worker_uuid="u-2")
    answer = await join(world, (await joined_as(world)), worker_uuid=uuid, name="x")
    assert answer.status_code == 403
    assert await is_good(world, credential, other.id)


async def joined_as(world: World) -> str:
    answer = await join(world, TOKEN, worker_uuid="u-3", name="third")
    return str(answer.json()["credential"])


async def test_a_machine_whose_first_answer_was_lost_tries_again_with_the_token(world: World) -> None:
    lost = (await join(world)).json()["credential"]
    key, credential = await joined(world)
    assert await is_good(world, credential, key)
    assert not await is_good(world, lost, key)


@pytest.mark.attack("worker")
async def test_a_barred_worker_neither_speaks_nor_joins_until_it_is_let_in_again(world: World) -> None:
    key, credential = await joined(world)
    model = await world.model("m", replicas=1)
    instance = await world.instance(model, "m-0", world.store.snapshot.workers[key])
    answer = await world.ask("POST", f"/v1/workers/{key}/bar", world.admin)
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["barred"], shown["state"]) == (True, "unreachable")
    assert world.store.snapshot.instances[instance.id].placement is None
    assert not await is_good(world, credential, key)
    for bearer in (credential, TOKEN):
        assert (await join(world, bearer)).status_code in (401, 403)
    assert (await join(world, TOKEN, worker_uuid="u-other", explicit_name=True)).status_code == 409
    now = world.store.snapshot.workers[key]
    assert (now.barred, now.condition.state) == (True, WorkerState.UNREACHABLE)
    assert (await world.ask("POST", f"/v1/workers/{key}/admit", world.admin)).json()["barred"] is False
    assert not await is_good(world, credential, key)
    again, fresh = await joined(world)
    assert again == key
    assert await is_good(world, fresh, key)
    assert (await join(world, TOKEN)).status_code == 403, "let in once"


async def test_a_worker_that_lost_its_credential_is_let_in_by_an_administrator(world: World) -> None:
    key, credential = await joined(world)
    assert (await join(world, TOKEN)).status_code == 403
    await world.ask("POST", f"/v1/workers/{key}/admit", world.admin)
    assert not await is_good(world, credential, key), "whoever has it"
    assert (await joined(world))[0] == key


async def test_a_secret_key_that_was_replaced_lets_workers_join_by_the_token(world: World) -> None:
    key, credential = await joined(world)
    other = world.rebuilt(keys=DerivedKeys.of("another secret"))
    assert (await other.ask("GET", f"/v1/workers/{key}", credential)).status_code == 401
    assert (await join(other, TOKEN)).json()["id"] == key


@pytest.mark.attack("access")
@pytest.mark.parametrize("verb", ["bar", "admit"])
async def test_only_administrators_bar_and_let_in(world: World, verb: str) -> None:
    key, credential = await joined(world)
    ada = await world.user("ada")
    for who in (ada, credential, TOKEN, None):
        assert (await world.ask("POST", f"/v1/workers/{key}/{verb}", who, json={})).status_code in (401, 403)
    assert await is_good(world, credential, key)
    assert (await world.ask("POST", f"/v1/workers/99/{verb}", world.admin)).status_code == 404


async def test_what_is_done_to_workers_is_in_the_trail(world: World) -> None:
    key, _ = await joined(world)
    await world.ask("POST", f"/v1/workers/{key}/bar", world.admin)
    await join(world, TOKEN)
    await world.ask("POST", f"/v1/workers/{key}/admit", world.admin)
    await world.context.trail.flush()
    items = (await world.get("/v1/audit-events"))["items"]
    told = sorted((one["action"], one["outcome"], one["target_name"]) for one in items)
    assert told == [
        ("worker.admit", "done", "node"),
        ("worker.bar", "done", "node"),
        ("worker.join", "done", "node"),
        ("worker.join", "refused", ""),
    ]


async def test_the_workers_that_were_there_before_credentials_were_replaced_go_on(world: World) -> None:
    """Their records say nothing of when it was given: they would not keep another before their program is new."""
    worker, credential = await world.worker("old", worker_uuid="u-old", credential_since=None)
    assert await beat(world, credential, worker.id) is None
    made = (await join(world, TOKEN, worker_uuid="u-old", name="old")).json()
    assert made["id"] == worker.id
    assert await beat(world, made["credential"], worker.id) is None
    assert (await join(world, TOKEN, worker_uuid="u-old", name="old")).status_code == 403, "it keeps one now"


async def test_a_worker_of_a_former_version_joins_by_the_token_each_time(world: World) -> None:
    """It forgets its credential when it restarts."""
    old = {name: value for name, value in JOIN.items() if name != "keeps_credential"}
    for _ in range(3):
        answer = await world.ask("POST", "/v1/workers", TOKEN, json=old)
        assert answer.status_code == 200, answer.text
        credential = answer.json()["credential"]
        for _ in range(3):
            assert await beat(world, credential) is None
            world.clock.forward(2 * DAY)


@pytest.mark.attack("worker")
async def test_to_say_that_one_keeps_no_credential_opens_nobodys_place(world: World) -> None:
    key, credential = await joined(world)
    assert (await join(world, TOKEN, keeps_credential=False)).status_code == 403
    assert await is_good(world, credential, key)
    former = (await join(world, credential, keeps_credential=False)).json()
    assert former["id"] == key, "the machine itself may have gone back to a former version"
    assert await beat(world, former["credential"], key) is None
    assert (await join(world, TOKEN, keeps_credential=False)).status_code == 200


async def test_a_database_that_is_away_is_no_reason_not_to_hear_a_worker(world: World) -> None:
    key, credential = await joined(world)
    world.clock.forward(DAY)
    world.store.close()
    assert await beat(world, credential, key) is None
