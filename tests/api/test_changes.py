"""The stream of changes: the present, every change in brief, resumed without a gap; only what the caller may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import orjson
import pytest
import trio

from gpustack.api import change_feed, change_stream
from gpustack.api.brief import BriefKind
from gpustack.api.change_feed import ChangeFeed
from gpustack.domain.access import ApiKey
from gpustack.domain.artifact import ModelFile
from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.load import DeviceLoad, MemoryLoad, WorkerLoad
from gpustack.domain.model import Model, ModelAccess
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, Memory, Worker, WorkerState, WorkerStatus
from gpustack.metrics.traffic import ModelTraffic
from gpustack.server import deployment
from gpustack.server.model_rates import ModelRates

from .stream import Stream, streaming
from .world import SOURCE, World

READY = 6


@attrs.define
class Console:
    """What a page would hold after the events of a stream."""

    stream: Stream
    revision: int = 0
    records: dict[tuple[str, int], dict[str, Any]] = attrs.field(factory=dict)
    names: list[str] = attrs.field(factory=list)

    async def event(self) -> tuple[str, Any]:
        """The next event; comments are passed over."""
        name, data = "", None
        while True:
            line = (await self.stream.line()).decode()
            if not line and name:
                self._apply(name, data)
                return name, data
            field, _, text = line.partition(": ")
            if field == "event":
                name = text
            elif field == "id":
                self.revision = int(text)
            elif field == "data":
                data = orjson.loads(text)

    def _apply(self, name: str, data: Any) -> None:
        self.names.append(name)
        if name == "reset":
            self.records.clear()
        for kind, *_, document in data if name in ("state", "change") else ():
            self.records[kind, document["id"]] = document
        if name == "change":
            for kind, event, document in data:
                if event == 3:
                    del self.records[kind, document["id"]]

    async def until(self, wanted: str) -> Any:
        while True:
            name, data = await self.event()
            if name == wanted:
                return data


@asynccontextmanager
async def watching(world: World, query: str = "", who: str | None = None) -> AsyncIterator[Console]:
    async with streaming(world, f"/v1/changes{query}", who, room=1000) as stream:
        assert stream.status == 200
        yield Console(stream)


async def placed(world: World, name: str = "tiny") -> tuple[Model, ModelInstance, Worker]:
    worker, _ = await world.worker("node")
    model = await world.model(name)
    return model, await world.instance(model, f"{name}-0", worker), worker


async def test_the_present_is_told_in_brief_then_every_change_of_a_commit_together(world: World) -> None:
    model, instance, worker = await placed(world)
    async with watching(world) as console:
        await console.until("synced")
        assert console.revision == world.store.snapshot.revision
        shown = console.records["models", model.id]
        assert (shown["state"], shown["instances"], shown["source_text"]) == (
            "starting",
            {"scheduled": 1},
            "/models/tiny.gguf",
        )
        device = console.records["workers", worker.id]["gpu_devices"][0]
        assert (device["claimed"], device["total"]) == (5 * GIB, 141 * GIB)
        assert console.records["model-instances", instance.id]["gpu_indexes"] == [0]

        await deployment.delete_model(world.store, model.id)
        data = await console.until("change")
        assert sorted((kind, event) for kind, event, _ in data) == [("model-instances", 2), ("models", 3)]
        assert console.records["model-instances", instance.id]["deleted_at"] == "2026-01-02T03:04:05Z"
        assert console.revision == world.store.snapshot.revision


async def test_a_worker_and_a_model_are_told_anew_by_what_their_instances_do(world: World) -> None:
    """Their records do not change by that."""
    model, instance, worker = await placed(world)
    async with watching(world, "?kinds=workers") as workers, watching(world, "?kinds=models") as models:
        await workers.until("synced")
        await models.until("synced")
        failed = await world.store.write(
            lambda tx: tx.move(instance, InstanceState.ERROR, by=Party.WORKER, message="no such file")
        )
        (told,) = await models.until("change")
        assert (told[1], told[2]["id"], told[2]["state"], told[2]["instances"]) == (
            2,
            model.id,
            "failed",
            {"error": 1},
        )
        await world.store.write(lambda tx: tx.delete(failed))
        (told,) = await workers.until("change")
        assert told[:2] == ["workers", 2]
        assert "claimed" not in told[2]["gpu_devices"][0]
        assert [*workers.records] == [("workers", worker.id)]


async def test_a_client_that_was_away_is_told_of_each_record_once(world: World) -> None:
    model, _, _ = await placed(world)
    seen = world.store.snapshot.revision
    for replicas in (2, 3, 4):
        await deployment.update_model(world.store, model.id, {"replicas": replicas})
    made = await world.model("brief")
    await world.store.write(lambda tx: tx.delete(Model, made.id))
    async with watching(world, f"?since={seen}") as console:
        data = await console.until("synced")
        assert data is None
        assert console.names == ["change", "synced"]
        assert {key: one["replicas"] for key, one in console.records.items()} == {("models", model.id): 4}
        assert console.revision == world.store.snapshot.revision
    await deployment.delete_model(world.store, model.id)
    async with watching(world, f"?since={seen}&kinds=workers") as console:
        await console.until("synced")
        assert console.names == ["synced"], "of other kinds it is not told either what was deleted"


async def test_a_client_that_cannot_resume_begins_anew(world: World) -> None:
    """It was away too long, or the database is another one. What a browser says that it saw goes before the query."""
    for number in range(2):
        await world.model(f"m-{number}")
    world.store._buffer.restart(world.store.snapshot.revision)
    for since in (0, 10**6):
        async with watching(world, f"?since={since}") as console:
            await console.until("synced")
            assert console.names[0] == "reset"
            assert len(console.records) == 2
    seen = str(world.store.snapshot.revision)
    more = ((b"last-event-id", seen.encode()),)
    async with streaming(world, "/v1/changes?since=0", room=100, more=more) as stream:
        assert await Console(stream).event() == ("synced", None)


async def test_a_reader_that_falls_behind_is_told_of_each_record_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "_KEPT", 2)
    model = await world.model("tiny")
    async with streaming(world, "/v1/changes?kinds=models", room=0) as stream:
        console = Console(stream)
        await console.until("synced")
        for replicas in range(2, 12):
            await deployment.update_model(world.store, model.id, {"replicas": replicas})
        while console.records["models", model.id]["replicas"] != 11:
            await console.event()
        assert console.names.count("change") < 10
        assert "reset" not in console.names


async def test_people_see_the_models_that_they_may_use_and_nothing_else(world: World) -> None:
    _, instance, _ = await placed(world, "open")
    user = await world.user("somebody")
    secret = await world.model("secret", access=ModelAccess.ALLOWED_USERS, allowed_user_ids=(99,))
    async with watching(world, "", world.keys[user.id]) as console:
        await console.until("synced")
        assert [document["name"] for document in console.records.values()] == ["open"]
        assert "source_text" not in console.records["models", instance.model_id]
        shared = {"allowed_user_ids": (user.id,)}
        await world.store.write(lambda tx: tx.change(Model, secret.id, **shared))
        ((kind, event, document),) = await console.until("change")
        assert (kind, event, document["name"]) == ("models", 1, "secret")
        await world.store.write(lambda tx: tx.change(Model, secret.id, allowed_user_ids=()))
        assert await console.until("change") == [["models", 3, {"id": secret.id}]]
    for query in ("?kinds=workers", "?kinds=models,model-files", "?loads=1", "?rates=1"):
        answer = await world.ask("GET", f"/v1/changes{query}", user)
        assert answer.status_code == 403


async def test_a_wrong_query_is_answered_with_what_is_wrong(world: World) -> None:
    for query, fault in (
        ("?kinds=pods", "there is no 'pods'"),
        ("?loads=all", "loads: must be at most 256 ids"),
        ("?rates=1,x", "rates: must be at most 256 ids"),
        ("?loads=" + ",".join(map(str, range(300))), "at most 256"),
        ("?since=yesterday", "whole number"),
    ):
        answer = await world.ask("GET", f"/v1/changes{query}", world.admin)
        assert answer.status_code in (400, 422)
        assert fault in answer.text


async def test_loads_are_told_of_the_workers_on_the_screen_and_only_when_they_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_stream, "LOADS_EVERY", 0.05)
    one, _ = await world.worker("one")
    two, _ = await world.worker("two")
    async with watching(world, f"?kinds=&loads={one.id}") as console:
        assert (await console.event())[0] == "synced"
        assert [key for key, _ in await console.until("loads")] == [one.id]
        busy = WorkerLoad(cpu=50.04, gpu_devices=(DeviceLoad(temperature=60.0, memory=MemoryLoad(used=GIB)),))
        for worker in (one, two):
            world.context.workers.live.reported(worker.id, busy)
        ((key, load),) = await console.until("loads")
        assert (key, load["cpu"], load["gpu_devices"]) == (
            one.id,
            {"utilization": 50},
            [{"index": 0, "temperature": 60, "used": GIB}],
        )
        monkeypatch.setattr(change_stream, "SILENCE", 0.05)
        world.context.workers.live.reported(one.id, LOAD)
        assert await console.until("loads")
        assert await console.stream.line() == b":", "silence is broken by comments"


async def test_rates_are_told_of_the_models_on_the_screen_and_only_when_they_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_stream, "LOADS_EVERY", 0.02)
    counts = dict[int, ModelTraffic]()
    rates = ModelRates(world.context.monotonic, world.context.clock, lambda: world.store.snapshot.models)
    rates.counted = lambda: {**counts}
    world = world.rebuilt(rates=rates)
    key = (await world.model("tiny")).id
    async with watching(world, f"?kinds=&rates={key},999") as console:
        assert (await console.event())[0] == "synced"
        for tokens in (0, 50):
            counts[key] = ModelTraffic(answers=1, completion=tokens)
            rates.sample()
        ((told, rate),) = await console.until("rates")
        assert told == key
        assert rate["last_used_at"]
        assert (await world.get("/v1/model-rates"))["items"] == [{"model_id": key, **rate}]


async def test_a_stream_ends_with_the_right_to_it(world: World) -> None:
    user = await world.user("boss", is_admin=True)
    async with watching(world, "", world.keys[user.id]) as console:
        await console.until("synced")
        key = world.store.snapshot.find(ApiKey, user_id=user.id)
        assert key is not None
        await world.store.write(lambda tx: tx.delete(ApiKey, key.id))
        await console.stream.ended()


@pytest.mark.attack("access")
async def test_who_loses_the_right_while_a_stream_pauses_is_told_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await world.user("boss", is_admin=True)
    key = world.store.snapshot.find(ApiKey, user_id=user.id)
    assert key is not None
    async with watching(world, "", world.keys[user.id]) as console:
        await console.until("synced")
        monkeypatch.setattr(change_stream, "PAUSE", 0.5)
        await world.model("first")
        await console.until("change")
        secret = await world.model("secret")
        await world.store.write(lambda tx: tx.delete(ApiKey, key.id))
        with pytest.raises(trio.EndOfChannel):
            await console.until("nothing")
        assert ("models", secret.id) not in console.records


async def test_what_many_watch_is_made_once_and_nothing_is_done_for_who_does_not_care(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int]] = []
    real = change_feed.changed_text

    def counting(kind: BriefKind, *more: Any) -> bytes:
        made.append((kind.value, more[1]))
        return real(kind, *more)

    monkeypatch.setattr(change_feed, "changed_text", counting)
    asked: list[int] = []
    since = ChangeFeed.since
    monkeypatch.setattr(ChangeFeed, "since", lambda feed, seen: (asked.append(seen), since(feed, seen))[1])
    _, instance, _ = await placed(world)
    async with (
        watching(world) as first,
        watching(world) as second,
        watching(world, "?kinds=model-files") as third,
    ):
        for console in (first, second, third):
            await console.until("synced")
        await world.store.write(lambda tx: tx.change(ModelInstance, instance.id, download_progress=3.21))
        assert await first.until("change") == await second.until("change")
        assert made == [("model-instances", instance.id)]
        asked.clear()
        source = SOURCE
        await world.store.write(
            lambda tx: tx.insert(ModelFile(worker_id=1, source=source, source_index=source.index))
        )
        assert (await third.until("change"))[0][2]["source_text"] == "/models/tiny.gguf"


CARDS = tuple(
    Device(
        index=index,
        name="NVIDIA H200",
        vendor="NVIDIA",
        type="cuda",
        memory=DeviceMemory(total=141 * GIB, foreign=0),
    )
    for index in range(8)
)
LOAD = WorkerLoad(
    cpu=43.2,
    memory=MemoryLoad(used=77 * GIB),
    gpu_devices=tuple(
        DeviceLoad(temperature=61.0, core=93.0, memory=MemoryLoad(used=83_345_678_901)) for _ in CARDS
    ),
)


async def test_a_large_cluster_is_at_most_3_mb(world: World) -> None:
    """A tenth of it: 100 workers with 8 GPUs each, and 500 instances."""

    def fill(tx: Any) -> None:
        model = tx.insert(Model(name="llama-3.3-70b", source=SOURCE))
        for number in range(100):
            worker = tx.insert(
                Worker(
                    name=f"gpu-node-{number:04}",
                    worker_uuid=str(number),
                    ip="10.20.30.40",
                    labels={"os": "linux", "arch": "amd64", "worker-name": f"gpu-node-{number:04}"},
                    status=WorkerStatus(memory=Memory(total=2048 * GIB), gpu_devices=CARDS),
                    condition=Condition(state=WorkerState.READY),
                )
            )
            world.context.workers.live.reported(worker.id, LOAD)
            for card in range(5):
                one = tx.insert(
                    ModelInstance(
                        name=f"llama-3.3-70b-{number:03}{card}",
                        model_id=model.id,
                        model_name=model.name,
                        source=SOURCE,
                    )
                )
                claim = Claim(ram=2 * GIB, vram={card: 88_345_678_901})
                tx.move(
                    one,
                    InstanceState.SCHEDULED,
                    by=Party.SCHEDULER,
                    placement=Placement(worker_id=worker.id, gpu_indexes=(card,), claim=claim),
                )

    await world.store.write(fill)
    size = 0
    async with watching(world) as console:
        name = ""
        while name != "synced":
            name, data = await console.event()
            assert data is None or len(data) <= 256
            size += len(orjson.dumps(data))
    assert len(console.records) == 601
    assert size <= 300_000, size
