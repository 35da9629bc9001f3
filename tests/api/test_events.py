"""Events over HTTP: written with the moves, listed by object, watched as they come; for administrators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import attrs

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.worker import Worker
from gpustack.server.audit_trail import CLUSTER_EVENTS_KEPT
from gpustack.store import Store, event_history

from .stream import streaming
from .world import World


@attrs.frozen
class SlowStore:
    """A store in which something happens before the answer of a query of events has arrived."""

    store: Store
    after_page: Callable[[], Awaitable[None]]

    async def query(self, read: Any) -> Any:
        found = await self.store.query(read)
        await self.after_page()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


async def test_what_happens_is_listed_by_object_and_by_whom(world: World) -> None:
    worker, _ = await world.worker("node")
    answer = await world.ask(
        "POST",
        "/v1/models",
        world.admin,
        json={"name": "tiny", "source": "local_path", "local_path": "/m/tiny.gguf"},
    )
    model = world.store.snapshot.models[answer.json()["id"]]
    instance = await world.instance(model, "tiny-0", worker)
    await world.store.write(
        lambda tx: tx.move(instance, InstanceState.ERROR, by=Party.WORKER, message="no such file")
    )
    await world.ask("PUT", f"/v1/workers/{worker.id}", world.admin, json={"cordoned": True})

    listed = await world.get(f"/v1/events?object=model-instance:{instance.id}")
    assert listed["pagination"]["total"] == 3
    assert [event["kind"] for event in listed["items"]] == [
        "instance.failed",
        "instance.placed",
        "instance.created",
    ]
    assert listed["items"][0] | {"id": 0} == {
        "id": 0,
        "at": "2026-01-02T03:04:05Z",
        "kind": "instance.failed",
        "severity": "error",
        "text": "Failed: no such file",
        "actor": "",
        "model_id": model.id,
        "worker_id": worker.id,
        "data": {"from": "scheduled", "to": "error", "next_retry_at": None},
        "object": {"kind": "model-instance", "id": instance.id, "name": "tiny-0"},
    }
    of_model = (await world.get(f"/v1/events?model_id={model.id}&kind=instance."))["items"]
    assert len(of_model) == 3
    (made,) = (await world.get(f"/v1/events?object=model:{model.id}"))["items"]
    assert (made["actor"], made["text"]) == ("admin", "Deployed by admin: /m/tiny.gguf")
    assert [one["kind"] for one in (await world.get("/v1/events?object=worker&limit=1"))["items"]] == [
        "worker.cordoned"
    ]
    assert {one["severity"] for one in (await world.get("/v1/events?severity=error"))["items"]} == {"error"}
    last = listed["items"][0]["id"]
    assert [one["kind"] for one in (await world.get(f"/v1/events?since={last}"))["items"]] == [
        "worker.cordoned"
    ]
    user = await world.user("somebody")
    assert (await world.ask("GET", "/v1/events", user)).status_code == 403
    wrong = await world.ask("GET", "/v1/events?object=pod:1&since=yesterday&model_id=x", world.admin)
    assert wrong.status_code in (400, 422)
    assert all(name in wrong.text for name in ("object:", "since:", "model_id:"))


async def test_events_are_watched_as_they_come(world: World) -> None:
    worker, _ = await world.worker("node")
    model = await world.model("tiny")
    async with (
        streaming(world, "/v1/events?watch=true&sync=1", room=100) as everything,
        streaming(world, f"/v1/events?watch=true&object=worker:{worker.id}&since=9999", room=100) as cordons,
    ):
        assert [event["data"]["kind"] for event in await everything.events(2)] == [
            "worker.joined",
            "model.created",
        ]
        assert (await everything.event())["type"] == 6
        instance = await world.instance(model, "tiny-0")
        await world.store.write(lambda tx: tx.change(Worker, worker.id, cordoned=True))
        kinds = [event["data"]["kind"] for event in await everything.events(2)]
        assert kinds == ["instance.created", "worker.cordoned"]
        assert (await cordons.event())["data"]["kind"] == "worker.cordoned"
        await world.store.write(lambda tx: tx.delete(ModelInstance, instance.id))
        assert (await everything.event())["data"]["object"]["name"] == "tiny-0"


async def test_what_happens_while_the_present_ones_are_read_is_told(world: World) -> None:
    """Though another watcher has read it by then."""
    worker, _ = await world.worker("node")

    async def cordoned() -> None:
        await world.store.write(lambda tx: tx.change(Worker, worker.id, cordoned=True))
        await world.context.events.refresh()

    slow = SlowStore(world.store, after_page=cordoned)
    path = "/v1/events?watch=true&sync=1"
    async with streaming(world.rebuilt(store=slow), path, world.keys[world.admin.id], room=100) as stream:
        assert (await stream.event())["data"]["kind"] == "worker.joined"
        assert (await stream.event())["type"] == 6
        assert (await stream.event())["data"]["kind"] == "worker.cordoned"


async def test_events_are_bounded_in_number_of_each_object_and_in_age(world: World) -> None:
    worker, _ = await world.worker("node")
    model = await world.model("tiny")
    waiting = await world.instance(model, "tiny-0")

    async def note(text: str) -> None:
        await world.store.write(lambda tx: tx.change(ModelInstance, waiting.id, state_message=text))

    for number in range(event_history.MOST_OF_ONE + 5):
        await note(f"no room for {number}")
    await note("")
    await note(f"no room for {number}")  # the same as before is not told again
    path = f"/v1/events?object=model-instance:{waiting.id}&limit=1000"
    assert len((await world.get(path))["items"]) == event_history.MOST_OF_ONE + 6
    await world.store.write(lambda tx: tx.forget_cluster_events(tx.now - CLUSTER_EVENTS_KEPT))
    kept = (await world.get(path))["items"]
    assert len(kept) == event_history.MOST_OF_ONE
    assert kept[0]["text"] == f"Waits: no room for {number}"
    assert (await world.get(f"/v1/events?object=worker:{worker.id}"))["pagination"]["total"] == 1
    world.clock.now += timedelta(days=8)
    await world.store.write(lambda tx: tx.forget_cluster_events(tx.now - CLUSTER_EVENTS_KEPT))
    assert (await world.get("/v1/events"))["items"] == []
