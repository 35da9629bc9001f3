"""Workers: how they join and report, what an administrator changes, and what a worker may not do."""

from __future__ import annotations

import orjson
import pytest

from gpustack.domain.artifact import ModelFile
from gpustack.domain.document import encode
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker, WorkerStatus
from gpustack.server.report import LONGEST, MOST_FILES
from gpustack.store.transaction import Tx

from .world import SOURCE, STATUS, TOKEN, World

JOIN = {
    "name": "node-a",
    "worker_uuid": "u-1",
    "hostname": "node-a",
    "ip": "10.0.1.1",
    "labels": {"os": "linux"},
}


async def test_a_worker_joins_with_the_token_and_gets_its_own_credential(world: World) -> None:
    answer = await world.ask("POST", "/v1/workers", TOKEN, json={**JOIN, "of a newer version": 1})
    assert answer.status_code == 200
    made = answer.json()
    assert (made["name"], made["metrics_port"], made["labels"]["os"]) == ("node-a", -1, "linux")
    assert made["credential"].startswith(f"gpustack_worker_{made['id']}_")
    assert made["forward_key"] == world.context.keys.forward_key("u-1")
    assert made["heartbeat_interval"] == 15
    beat = await world.ask("POST", f"/v1/workers/{made['id']}/heartbeat", made["credential"], json={})
    assert beat.json() == {
        "interval": 15,
        "revision": world.store.snapshot.revision,
        "servers": [],
        "credential": None,
    }


async def test_joining_again_voids_the_former_credential(world: World) -> None:
    first = (await world.ask("POST", "/v1/workers", TOKEN, json=JOIN)).json()
    second = (await world.ask("POST", "/v1/workers", TOKEN, json={**JOIN, "name": "renamed"})).json()
    assert (second["id"], second["name"]) == (first["id"], "renamed")
    path = f"/v1/workers/{first['id']}/heartbeat"
    assert (await world.ask("POST", path, first["credential"], json={})).status_code == 401
    assert (await world.ask("POST", path, second["credential"], json={})).status_code == 200


async def test_a_name_given_by_hand_is_not_changed_to_make_room(world: World) -> None:
    await world.ask("POST", "/v1/workers", TOKEN, json=JOIN)
    other = {**JOIN, "worker_uuid": "u-2"}
    refused = await world.ask("POST", "/v1/workers", TOKEN, json={**other, "explicit_name": True})
    assert (refused.status_code, refused.json()["reason"]) == (409, "AlreadyExists")
    assert (await world.ask("POST", "/v1/workers", TOKEN, json=other)).json()["name"].startswith("node-a-")


async def test_no_list_of_workers_holds_a_secret(world: World) -> None:
    made = (await world.ask("POST", "/v1/workers", TOKEN, json=JOIN)).json()
    listed = await world.ask("GET", "/v1/workers", world.admin)
    kept = world.store.snapshot.workers[made["id"]].credential_hash
    for secret in (made["credential"], made["forward_key"], kept, "_hash"):
        assert secret not in listed.text


async def test_a_worker_reports_what_it_measured(world: World) -> None:
    worker, credential = await world.worker("node", status=WorkerStatus())
    body = {"status": orjson.loads(encode(STATUS)), "ip": "10.9.9.9", "labels": None}
    path = f"/v1/workers/{worker.id}/status"
    assert (await world.ask("PUT", path, credential, json=body)).json() is None
    told = await world.get(f"/v1/workers/{worker.id}")
    assert told["ip"] == "10.9.9.9"
    assert told["status"]["memory"] == {
        "total": 64 * GIB,
        "used": GIB,
        "is_unified_memory": False,
        "allocated": 0,
    }
    assert told["status"]["gpu_devices"][0]["name"] == "NVIDIA H200"
    assert "utilization_rate" not in told["status"]["cpu"], "unknown is not shown as a number"


async def test_a_gpu_whose_load_is_unknown_has_no_core(world: World) -> None:
    """Clients that look into it would take an empty object for numbers."""
    worker, _ = await world.worker("node", status=STATUS)
    for path in (f"/v1/workers/{worker.id}", "/v1/gpu-devices"):
        document = await world.get(path)
        (device,) = document["status"]["gpu_devices"] if "status" in document else document["items"]
        assert device["core"] is None


async def test_claims_are_summed_as_allocated(world: World) -> None:
    worker, _ = await world.worker("node")
    model = await world.model("m")
    await world.instance(model, "m-1", worker)
    await world.instance(model, "m-2", worker)
    status = (await world.get("/v1/workers/1"))["status"]
    assert status["memory"]["allocated"] == 2 * GIB
    assert status["gpu_devices"][0]["memory"]["allocated"] == 10 * GIB


async def test_the_last_word_of_a_worker_is_dated_by_the_server(world: World) -> None:
    worker, credential = await world.worker("node")
    assert (await world.get(f"/v1/workers/{worker.id}"))["heartbeat_time"] is None
    await world.ask("POST", f"/v1/workers/{worker.id}/heartbeat", credential, json={})
    world.clock.forward(40)
    assert (await world.get(f"/v1/workers/{worker.id}"))["heartbeat_time"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "heartbeat"), ("POST", "drain"), ("PUT", "status"), ("POST", "files")]
)
async def test_a_worker_speaks_only_for_itself(world: World, method: str, path: str) -> None:
    other, _ = await world.worker("other")
    _, credential = await world.worker("mine")
    bodies = {
        "heartbeat": {},
        "drain": {},
        "status": {"status": {}},
        "files": {"source": {"kind": "local_path", "local_path": "/x"}},
    }
    answer = await world.ask(method, f"/v1/workers/{other.id}/{path}", credential, json=bodies[path])
    assert (answer.status_code, answer.json()["message"]) == (403, "A worker speaks only for itself")


@pytest.mark.attack("worker")
async def test_a_worker_names_no_more_files_than_there_may_be(world: World) -> None:
    worker, credential = await world.worker("node")
    path = f"/v1/workers/{worker.id}/files"
    source = {"kind": "local_path", "local_path": "/x"}
    long = {**source, "local_path": "x" * (LONGEST + 1)}
    answer = await world.ask("POST", path, credential, json={"source": long})
    assert (answer.status_code, str(LONGEST) in answer.text) == (422, True)

    def fill(tx: Tx) -> None:
        for number in range(MOST_FILES - 1):
            tx.insert(ModelFile(worker_id=worker.id, source=SOURCE, source_index=str(number)))

    await world.store.write(fill)
    assert (await world.ask("POST", path, credential, json={"source": source})).status_code == 200
    refused = await world.ask("POST", path, credential, json={"source": {**source, "local_path": "/y"}})
    assert (refused.status_code, str(MOST_FILES) in refused.text) == (409, True)
    assert (await world.ask("POST", path, credential, json={"source": source})).status_code == 200


async def test_a_worker_sees_itself_alone(world: World) -> None:
    mine, credential = await world.worker("mine")
    other, _ = await world.worker("other")
    assert [item["id"] for item in (await world.get("/v1/workers", credential))["items"]] == [mine.id]
    assert (await world.ask("GET", f"/v1/workers/{other.id}", credential)).status_code == 404


async def test_an_administrator_edits_labels_and_cordons(world: World) -> None:
    await world.worker("node", labels={"os": "linux", "rack": "1"})
    body = {"labels": {"rack": "2"}, "cordoned": True, "name": "other", "state": "unreachable"}
    after = (await world.ask("PUT", "/v1/workers/1", world.admin, json=body)).json()
    assert after["labels"] == {"os": "linux", "rack": "2"}
    assert (after["cordoned"], after["name"], after["state"]) == (True, "node", "ready")


async def test_an_administrator_taints_and_each_taint_keeps_its_time(world: World) -> None:
    await world.worker("node")

    async def taint(*taints: dict[str, object]) -> list[dict[str, object]]:
        after = await world.ask("PUT", "/v1/workers/1", world.admin, json={"taints": list(taints)})
        assert after.status_code == 200, after.text
        found: list[dict[str, object]] = after.json()["taints"]
        return found

    (first,) = await taint({"key": "gpu", "value": "a100", "effect": "NoExecute"})
    assert first["time_added"] is not None
    kept, added = await taint(first, {"key": "example.com/own", "effect": "NoSchedule"})
    assert kept == first
    assert (added["value"], added["effect"]) == ("", "NoSchedule")
    assert await taint() == []


async def test_taints_that_cannot_be_are_refused_all_at_once(world: World) -> None:
    await world.worker("node")
    taints = [
        {"key": "a b", "effect": "NoSchedule"},
        {"key": "own", "value": "x:y", "effect": "NoSchedule"},
        {"key": "own", "effect": "NoSchedule"},
    ]
    refused = await world.ask("PUT", "/v1/workers/1", world.admin, json={"taints": taints})
    assert refused.status_code == 422
    for said in ("key 'a b' must be letters", "value 'x:y' must be letters", "own:NoSchedule is there twice"):
        assert said in refused.text
    strange = [{"key": "own", "effect": "Never", "keyy": "x"}]
    refused = await world.ask("PUT", "/v1/workers/1", world.admin, json={"taints": strange})
    assert "must be one of NoSchedule, PreferNoSchedule, NoExecute" in refused.text
    assert "keyy: is not known here" in refused.text


async def test_draining_cordons_and_opening_ends_both(world: World) -> None:
    worker, credential = await world.worker("node")

    async def change(**fields: bool) -> tuple[bool, bool]:
        after = (await world.ask("PUT", f"/v1/workers/{worker.id}", world.admin, json=fields)).json()
        return after["cordoned"], after["draining"]

    assert await change(draining=True) == (True, True)
    assert await change(draining=False) == (True, False)
    assert await change(draining=True) == (True, True)
    assert await change(cordoned=False) == (False, False)
    own = f"/v1/workers/{worker.id}/drain"
    assert (await world.ask("POST", own, credential, json={})).status_code == 200
    after = await world.get(f"/v1/workers/{worker.id}")
    assert (after["cordoned"], after["draining"]) == (False, True), "it empties itself before it stops"
    assert await change(cordoned=False) == (False, False)


async def test_what_was_read_can_be_written_back(world: World) -> None:
    await world.worker("node", labels={"os": "linux"})
    before = await world.get("/v1/workers/1")
    after = await world.ask("PUT", "/v1/workers/1", world.admin, json=before)
    assert after.status_code == 200
    assert after.json() == before


async def test_a_deleted_worker_is_told_to_join_again(world: World) -> None:
    worker, credential = await world.worker("node")
    await world.instance(await world.model("m"), "m-1", worker)
    await world.ask("POST", "/v1/workers/1/heartbeat", credential, json={})
    assert (await world.ask("DELETE", "/v1/workers/1", world.admin)).json() is None
    assert world.context.workers.heartbeats.last_heard(1) is None
    assert not world.store.snapshot.all(Worker)
    assert (await world.ask("POST", "/v1/workers/1/heartbeat", credential, json={})).status_code == 401


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=node-a", ["node-a"]),
        ("name=node", []),
        ("uuid=uuid-node-b", ["node-b"]),
        ("search=DE-B", ["node-b"]),
    ],
)
async def test_workers_are_found(world: World, query: str, names: list[str]) -> None:
    await world.worker("node-a")
    await world.worker("node-b")
    assert [item["name"] for item in (await world.get(f"/v1/workers?{query}"))["items"]] == names


# --- devices, as one flat list


async def test_devices_are_listed_over_all_workers(world: World) -> None:
    worker, _ = await world.worker("node-a")
    await world.worker("node-b")
    await world.instance(await world.model("m"), "m-1", worker)
    listed = await world.get("/v1/gpu-devices")
    assert {item["id"] for item in listed["items"]} == {"node-a:cuda:0", "node-b:cuda:0"}
    one = await world.get("/v1/gpu-devices/node-a:cuda:0")
    assert (one["worker_id"], one["worker_name"], one["worker_ip"]) == (worker.id, "node-a", "10.0.1.1")
    assert one["memory"] == {"total": 141 * GIB, "is_unified_memory": False, "allocated": 5 * GIB}
    assert one["temperature"] is None
    assert (await world.get("/v1/gpu-devices?search=h200"))["pagination"]["total"] == 2
    assert (await world.get("/v1/gpu-devices?search=b200"))["pagination"]["total"] == 0
    gone = await world.ask("GET", "/v1/gpu-devices/node-a:cuda:7", world.admin)
    assert (gone.status_code, gone.json()["message"]) == (404, "GPU device node-a:cuda:7 does not exist")
