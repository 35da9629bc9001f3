"""Replicas: read by their administrator and their worker, ended by hand, their logs passed through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from gpustack.domain.access import ApiKey, User
from gpustack.domain.instance import Claim, MemberStatus, ModelInstance, Placement, Subordinate
from gpustack.domain.launch import LaunchRecord
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.unit import GIB
from gpustack.policy.placement import GangSettings
from gpustack.server.facts import FactsCache
from gpustack.store.transaction import Tx

from .stream import streaming
from .world import World


async def test_a_placed_instance_tells_its_worker_and_claim(world: World) -> None:
    worker, _ = await world.worker("node-a")
    other, _ = await world.worker("node-b", ip="10.0.1.2")
    waiting = await world.instance(await world.model("m"), "m-1")

    def place(tx: Any) -> None:
        share = Subordinate(worker_id=other.id, gpu_indexes=(0,), claim=Claim(vram={0: 2 * GIB}))
        placement = Placement(
            worker_id=worker.id,
            gpu_indexes=(0, 1),
            claim=Claim(
                ram=GIB, vram={0: GIB, 1: 2 * GIB}, offload_layers=20, total_layers=33, tensor_split=(1, 2)
            ),
            subordinates=(share,),
            note="Fits two cards",
        )
        tx.move(waiting, InstanceState.SCHEDULED, by=Party.SCHEDULER, placement=placement)

    await world.store.write(place)
    told = await world.get(f"/v1/model-instances/{waiting.id}")
    assert (told["worker_id"], told["worker_name"], told["worker_ip"]) == (worker.id, "node-a", "10.0.1.1")
    assert told["gpu_indexes"] == [0, 1]
    assert told["computed_resource_claim"] == {
        "ram": GIB,
        "vram": {"0": GIB, "1": 2 * GIB},
        "offload_layers": 20,
        "total_layers": 33,
        "tensor_split": [1, 2],
        "is_unified_memory": False,
    }
    assert told["distributed_servers"]["mode"] == "delegated"
    assert told["distributed_servers"]["subordinate_workers"] == [
        {
            "worker_id": other.id,
            "worker_name": "node-b",
            "worker_ip": "10.0.1.2",
            "total_gpus": 1,
            "gpu_indexes": [0],
            "gpu_addresses": None,
            "computed_resource_claim": {"ram": 0, "vram": {"0": 2 * GIB}, "is_unified_memory": False},
            "download_progress": None,
            "pid": None,
            "ports": [],
            "arguments": None,
            "state": "pending",
            "state_message": "",
        }
    ]
    assert told["distributed_servers"]["download_model_files"] is False, (
        "over RPC only the main process reads"
    )
    assert told["placement_note"] == "Fits two cards"
    assert (told["source"], told["local_path"]) == ("local_path", "/models/tiny.gguf")


async def gang(world: World, *, claim: Claim) -> ModelInstance:
    """An instance on two workers, whose follower has spoken in the second attempt."""
    worker, _ = await world.worker("node-a")
    other, _ = await world.worker("node-b", ip="10.0.1.2")
    waiting = await world.instance(await world.model("m"), "m-1")

    def place(tx: Any) -> ModelInstance:
        share = Subordinate(worker_id=other.id, gpu_indexes=(0,), claim=Claim(ram=GIB, vram={0: 3 * GIB}))
        placement = Placement(worker_id=worker.id, gpu_indexes=(0,), claim=claim, subordinates=(share,))
        said = MemberStatus(
            attempt=2,
            state=InstanceState.DOWNLOADING,
            state_message="half",
            ports=(40001,),
            pid=17,
            download_progress=50.0,
        )
        tx.move(waiting, InstanceState.SCHEDULED, by=Party.SCHEDULER, placement=placement)
        changed: ModelInstance = tx.change(ModelInstance, waiting.id, attempt=2, members=(said,))
        return changed

    return await world.store.write(place)


async def test_followers_are_told_with_what_they_last_said(world: World) -> None:
    """Without shares of layers each worker has a process that joins the main one."""
    placed = await gang(world, claim=Claim())
    told = (await world.get(f"/v1/model-instances/{placed.id}"))["distributed_servers"]
    assert (told["mode"], told["download_model_files"]) == ("initialize_later", True)
    (follower,) = told["subordinate_workers"]
    said = {name: follower[name] for name in ("state", "state_message", "ports", "pid", "download_progress")}
    assert said == {
        "state": "downloading",
        "state_message": "half",
        "ports": [40001],
        "pid": 17,
        "download_progress": 50.0,
    }
    await world.store.write(lambda tx: tx.change(ModelInstance, placed.id, attempt=3))
    told = (await world.get(f"/v1/model-instances/{placed.id}"))["distributed_servers"]
    (follower,) = told["subordinate_workers"]
    assert (follower["state"], follower["pid"]) == ("pending", None), "what it said was of another attempt"


async def test_what_ray_starts_is_delegated(world: World) -> None:
    world = world.rebuilt(gangs=GangSettings(ray=True))
    placed = await gang(world, claim=Claim())
    told = (await world.get(f"/v1/model-instances/{placed.id}"))["distributed_servers"]
    assert (told["mode"], told["download_model_files"]) == ("delegated", True)


async def test_what_followers_claim_is_allocated_on_their_workers_and_counted_for_the_model(
    world: World,
) -> None:
    await gang(world, claim=Claim(ram=GIB, vram={0: 2 * GIB}))
    workers = {one["name"]: one["status"] for one in (await world.get("/v1/workers"))["items"]}
    allocated = {
        name: (status["memory"]["allocated"], status["gpu_devices"][0]["memory"]["allocated"])
        for name, status in workers.items()
    }
    assert allocated == {"node-a": (GIB, 2 * GIB), "node-b": (GIB, 3 * GIB)}
    gpus = {
        one["worker_name"]: one["memory"]["allocated"]
        for one in (await world.get("/v1/gpu-devices"))["items"]
    }
    assert gpus == {"node-a": 2 * GIB, "node-b": 3 * GIB}
    (active,) = (await world.get("/v1/dashboard"))["active_models"]
    assert active["resource_claim"] == {"ram": 2 * GIB, "vram": 5 * GIB}


async def test_a_waiting_instance_claims_nothing(world: World) -> None:
    await world.instance(await world.model("m"), "m-1")
    told = await world.get("/v1/model-instances/1")
    assert told["state"] == "pending"
    for name in ("worker_id", "worker_name", "computed_resource_claim", "gpu_indexes", "distributed_servers"):
        assert told[name] is None


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("model_id=1", {"m-1", "m-2"}),
        ("worker_id=1", {"m-1"}),
        ("state=pending", {"m-2", "n-1"}),
        ("state=scheduled&model_id=2", set()),
        ("id=3", {"n-1"}),
        ("search=M-", {"m-1", "m-2"}),
        ("nonsense=1", {"m-1", "m-2", "n-1"}),
    ],
)
async def test_instances_are_selected(world: World, query: str, names: set[str]) -> None:
    worker, _ = await world.worker("node")
    m, n = await world.model("m"), await world.model("n")
    await world.instance(m, "m-1", worker)
    await world.instance(m, "m-2")
    await world.instance(n, "n-1")
    listed = await world.get(f"/v1/model-instances?{query}")
    assert {item["name"] for item in listed["items"]} == names
    assert listed["pagination"]["total"] == len(names)


@pytest.mark.parametrize(
    "query", ["model_id=x", "state=asleep", "page=0", "perPage=0", "perPage=101", "perPage=-2"]
)
async def test_a_wrong_query_is_refused(world: World, query: str) -> None:
    answer = await world.ask("GET", f"/v1/model-instances?{query}", world.admin)
    assert answer.status_code == 422
    assert answer.json()["message"].startswith("1 validation errors:\n")


async def test_a_worker_sees_only_what_is_placed_on_it(world: World) -> None:
    mine, credential = await world.worker("mine")
    other, _ = await world.worker("other")
    model = await world.model("m")
    await world.instance(model, "m-1", mine)
    await world.instance(model, "m-2", other)
    listed = await world.get("/v1/model-instances", credential)
    assert [item["name"] for item in listed["items"]] == ["m-1"]
    assert (await world.ask("GET", "/v1/model-instances/2", credential)).status_code == 404


async def test_instances_are_neither_made_nor_changed_by_hand(world: World) -> None:
    await world.instance(await world.model("m"), "m-1")
    made = await world.ask("POST", "/v1/model-instances", world.admin, json={"model_id": 1})
    changed = await world.ask("PUT", "/v1/model-instances/1", world.admin, json={"state": "running"})
    assert (made.status_code, changed.status_code) == (400, 400)
    assert "change its replicas instead" in made.json()["message"]
    assert world.store.snapshot.instances[1].state is InstanceState.PENDING


async def test_deleting_a_placed_instance_asks_its_worker_to_end_it(world: World) -> None:
    worker, _ = await world.worker("node")
    model = await world.model("m")
    await world.instance(model, "m-1", worker)
    await world.instance(model, "m-2")
    for number in (1, 2):
        answer = await world.ask("DELETE", f"/v1/model-instances/{number}", world.admin)
        assert (answer.status_code, answer.json()) == (200, None)
    left = world.store.snapshot.all(ModelInstance)
    assert list(left) == [1]
    assert left[1].deleted_at == world.clock.now


# --- why an instance is where it is


async def test_a_waiting_instance_is_explained_worker_by_worker(world: World) -> None:
    await world.worker("node")
    await world.instance(await world.model("m"), "m-1")

    async def unread(*_: Any) -> Any:
        raise AssertionError("nothing is read here: the source is not running")

    explaining = world.rebuilt(facts=FactsCache(unread, unread, lambda: world.store.snapshot))
    told = await explaining.get("/v1/model-instances/1/explain")
    assert (told["instance"], told["model"], told["engine"], told["fits"]) == ("m-1", "m", "llama.cpp", False)
    assert told["workers"][0]["worker"] == "node"
    assert told["workers"][0]["sentences"]


async def test_a_server_that_places_nothing_cannot_explain(world: World) -> None:
    await world.instance(await world.model("m"), "m-1")
    answer = await world.ask("GET", "/v1/model-instances/1/explain", world.admin)
    assert answer.status_code == 503


# --- logs


async def test_logs_come_through_as_they_are(world: World) -> None:
    worker, _ = await world.worker("node")
    await world.instance(await world.model("m"), "m-1", worker)
    world.link.logs_of[1] = [b"loading \xff\r", b"100 %\n"]
    path = "/v1/model-instances/1/logs?tail=5&follow=true&previous=1"
    answer = await world.ask("GET", path, world.admin)
    assert answer.content == b"loading \xff\r100 %\n"
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert world.link.asked == [{"worker": "node", "tail": 5, "follow": True, "previous": True}]
    assert world.link.let_go == 1


async def test_logs_of_a_waiting_instance_are_nowhere(world: World) -> None:
    await world.instance(await world.model("m"), "m-1")
    answer = await world.ask("GET", "/v1/model-instances/1/logs", world.admin)
    assert (answer.status_code, answer.json()["message"]) == (404, "Model instance not assigned to a worker")


async def test_a_worker_that_does_not_answer_is_told(world: World) -> None:
    worker, _ = await world.worker("node")
    await world.instance(await world.model("m"), "m-1", worker)
    answer = await world.ask("GET", "/v1/model-instances/1/logs", world.admin)
    assert (answer.status_code, answer.json()["reason"]) == (503, "ServiceUnavailable")


@pytest.mark.attack("session")
@pytest.mark.parametrize(
    "end",
    [
        lambda tx, boss, key: tx.change(User, boss.id, is_active=False),
        lambda tx, boss, key: tx.change(User, boss.id, is_admin=False),
        lambda tx, boss, key: tx.change(ApiKey, key.id, is_enabled=False),
        lambda tx, boss, key: tx.delete(ApiKey, key.id),
    ],
    ids=["disabled", "no administrator any more", "key off", "key deleted"],
)
async def test_a_log_that_is_followed_ends_with_the_right_to_it(
    world: World, end: Callable[[Tx, User, ApiKey], object]
) -> None:
    worker, _ = await world.worker("node")
    await world.instance(await world.model("m"), "m-1", worker)
    world.link.logs_of[1] = [b"first\n"]
    world.link.goes_on = True
    boss = await world.user("boss", is_admin=True)
    key = next(key for key in world.store.snapshot.api_keys.values() if key.user_id == boss.id)
    path = "/v1/model-instances/1/logs?follow=true"
    async with streaming(world, path, world.keys[boss.id]) as stream:
        assert await stream.line() == b"first"
        await world.user("somebody else")
        await trio.testing.wait_all_tasks_blocked()
        assert world.link.let_go == 0
        await world.store.write(lambda tx: end(tx, boss, key))
        await stream.ended()
        assert world.link.let_go == 1


@pytest.mark.parametrize("query", ["tail=many", "tail=-2", "follow=maybe"])
async def test_a_wrong_request_for_logs_is_refused(world: World, query: str) -> None:
    worker, _ = await world.worker("node")
    await world.instance(await world.model("m"), "m-1", worker)
    assert (await world.ask("GET", f"/v1/model-instances/1/logs?{query}", world.admin)).status_code == 422


# --- reports of workers


async def test_a_worker_reports_only_on_its_own(world: World) -> None:
    worker, credential = await world.worker("mine")
    _, others = await world.worker("other")
    await world.instance(await world.model("m"), "m-1", worker)
    path, body = "/v1/model-instances/1/report", {"state": "initializing", "pid": 7, "port": 40000}
    assert (await world.ask("PUT", path, others, json=body)).status_code == 403
    answer = await world.ask("PUT", path, credential, json=body)
    assert (answer.status_code, answer.json()) == (200, None)
    told = await world.get("/v1/model-instances/1")
    assert (told["state"], told["pid"], told["port"]) == ("initializing", 7, 40000)
    assert (await world.ask("PUT", "/v1/model-instances/9/report", credential, json=body)).status_code == 404


async def test_a_report_may_not_break_the_life_of_an_instance(world: World) -> None:
    worker, credential = await world.worker("mine")
    await world.instance(await world.model("m"), "m-1", worker)
    answer = await world.ask("PUT", "/v1/model-instances/1/report", credential, json={"state": "unreachable"})
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    wrong = await world.ask("PUT", "/v1/model-instances/1/report", credential, json={"state": "asleep"})
    assert wrong.status_code == 422


async def test_when_an_ended_engine_is_gone_so_is_its_record(world: World) -> None:
    worker, credential = await world.worker("mine")
    await world.instance(await world.model("m"), "m-1", worker)
    await world.ask("DELETE", "/v1/model-instances/1", world.admin)
    answer = await world.ask("PUT", "/v1/model-instances/1/report", credential, json={"gone": True})
    assert answer.status_code == 200
    assert not world.store.snapshot.instances


async def test_with_what_an_engine_was_started_is_asked_of_its_worker(world: World) -> None:
    worker, _ = await world.worker("mine")
    model = await world.model("m")
    await world.instance(model, "m-1", worker)
    await world.instance(model, "m-2")
    assert (await world.ask("GET", "/v1/model-instances/1/launch", world.admin)).status_code == 404
    world.link.launched[1, 0] = LaunchRecord(
        argv=("serve", "a b"), env={"HF_TOKEN": "***", "X": "1 2"}, started_at=world.clock.now
    )
    assert await world.get("/v1/model-instances/1/launch") == {
        "argv": ["serve", "a b"],
        "env": {"HF_TOKEN": "***", "X": "1 2"},
        "started_at": "2026-01-02T03:04:05Z",
        "files": [],
        "worker_id": worker.id,
        "member": 0,
        "command": "HF_TOKEN='***' X='1 2' serve 'a b'",
    }
    assert (await world.ask("GET", "/v1/model-instances/2/launch", world.admin)).status_code == 404
