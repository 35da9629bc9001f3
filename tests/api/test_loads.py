"""Loads of workers: they are shown, and cost no write; what a worker says of its machine is still checked and kept."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest
import trio

from gpustack.api import watch
from gpustack.api.load_document import read_load
from gpustack.domain.document import encode
from gpustack.domain.load import load_of
from gpustack.domain.report import StatusReport
from gpustack.domain.worker import Worker, WorkerStatus
from tests.domain.test_load import CARD, STATUS, other_load

from .stream import streaming
from .world import AWAY, World

BUSY = other_load(STATUS)


def body_of(status: WorkerStatus, **more: Any) -> dict[str, Any]:
    return {"status": orjson.loads(encode(status)), "ip": "10.9.9.9", "labels": {"disk": "ssd"}, **more}


async def told(world: World, *statuses: WorkerStatus | dict[str, Any]) -> Worker:
    """A worker that reported these, one after the other."""
    worker, credential = await world.worker("node", status=WorkerStatus())
    for status in statuses:
        body = status if isinstance(status, dict) else body_of(status)
        answer = await world.ask("PUT", f"/v1/workers/{worker.id}/status", credential, json=body)
        assert (answer.status_code, answer.json()) == (200, None)
    return world.store.snapshot.workers[worker.id]


def test_a_load_is_read_out_of_a_report_as_the_whole_report_would_be() -> None:
    for status in (STATUS, BUSY, WorkerStatus()):
        reading = read_load(encode(StatusReport(status=status)))
        assert reading is not None
        assert reading.load == load_of(status)
    same = [read_load(encode(StatusReport(status=status))) for status in (STATUS, BUSY)]
    assert same[0].rest == same[1].rest  # type: ignore[union-attr]  # both can be read
    for more in ({"ip": "10.0.0.1"}, {"labels": {"a": "b"}}):
        other = read_load(encode(StatusReport(status=STATUS, **more)))  # type: ignore[arg-type]  # of several types
        assert other.rest != same[0].rest  # type: ignore[union-attr]  # they can be read


async def test_a_report_of_another_load_writes_nothing_and_is_shown(world: World) -> None:
    worker = await told(world, STATUS)
    before = world.store.snapshot
    status = (await world.get(f"/v1/workers/{worker.id}"))["status"]
    assert (status["cpu"]["utilization_rate"], status["gpu_devices"][0]["core"]["utilization_rate"]) == (
        12.5,
        3.0,
    )
    await told_again(world, worker, BUSY, BUSY)
    assert world.store.snapshot is before
    status = (await world.get(f"/v1/workers/{worker.id}"))["status"]
    assert (status["cpu"]["utilization_rate"], status["filesystem"][0]["free"]) == (90.0, 99 << 30)
    assert "used" not in status["swap"], "what was measured once is not shown for ever"
    card = (await world.get("/v1/gpu-devices"))["items"][0]
    assert (card["temperature"], card["memory"]["used"]) == (80.0, 140 << 30)
    assert (await world.get("/v1/dashboard"))["system_load"]["current"]["cpu"] == 90.0


async def told_again(world: World, worker: Worker, *bodies: WorkerStatus | dict[str, Any]) -> list[int]:
    credential = f"gpustack_worker_{worker.id}_secret0of0node"
    path = f"/v1/workers/{worker.id}/status"
    found = []
    for body in bodies:
        document = body if isinstance(body, dict) else body_of(body)
        found.append((await world.ask("PUT", path, credential, json=document)).status_code)
    return found


async def test_a_machine_that_changed_is_written(world: World) -> None:
    worker = await told(world, STATUS, BUSY)
    lost = attrs.evolve(
        BUSY, gpu_devices=(CARD, attrs.evolve(STATUS.gpu_devices[1], fault="it fell off the bus"))
    )
    revision = world.store.snapshot.revision
    await told_again(world, worker, lost, STATUS)
    assert world.store.snapshot.revision == revision + 2
    assert world.store.snapshot.workers[worker.id].status.gpu_devices[1].fault is None


async def test_free_space_is_written_once_it_matters(world: World) -> None:
    worker = await told(world, STATUS)
    disk = STATUS.filesystem[0]
    full = attrs.evolve(STATUS, filesystem=(attrs.evolve(disk, free=50 << 30, available=40 << 30),))
    await told_again(world, worker, full)
    assert world.store.snapshot.workers[worker.id].status.filesystem[0].available == 40 << 30


async def test_what_an_administrator_took_away_is_brought_again_by_the_next_report(world: World) -> None:
    worker = await told(world, STATUS)
    await world.ask("PUT", f"/v1/workers/{worker.id}", world.admin, json={"labels": {}})
    assert "disk" not in world.store.snapshot.workers[worker.id].labels
    await told_again(world, worker, BUSY)
    assert world.store.snapshot.workers[worker.id].labels["disk"] == "ssd"


async def test_the_record_is_dated_now_and_then(world: World) -> None:
    worker = await told(world, STATUS)
    world.clock.forward(3601)
    await told_again(world, worker, BUSY)
    assert world.store.snapshot.workers[worker.id].heartbeat_time > worker.heartbeat_time  # type: ignore[operator]  # both have one


async def test_loads_are_unknown_until_a_worker_reports(world: World) -> None:
    """After a restart; also where a server of a former version wrote the loads into the record."""
    worker, _ = await world.worker("node", status=STATUS)
    world.context.workers.live.keep_only(())
    status = (await world.get(f"/v1/workers/{worker.id}"))["status"]
    assert status["cpu"] == {"total": 8.0}
    assert "temperature" not in status["gpu_devices"][0]
    assert status["gpu_devices"][0]["memory"].keys() == {"total", "is_unified_memory", "allocated"}
    assert (await world.get("/v1/dashboard"))["system_load"]["current"]["gpu"] is None


def _broken(name: str) -> dict[str, Any]:
    body = body_of(STATUS)
    status = body["status"]
    match name:
        case "a word for a rate":
            status["cpu"]["utilization_rate"] = "high"
        case "yes for bytes":
            status["gpu_devices"][1]["memory"]["used"] = True
        case "more bytes than can be stored":
            status["memory"]["used"] = 1 << 63
        case "half a byte":
            status["filesystem"][0]["free"] = 0.5
        case "no instant":
            status["uptime"]["boot_time"] = "yesterday"
        case "a list for a device":
            status["gpu_devices"][0] = []
        case "an address that is none":
            body["ip"] = "not an address"
    return body


@pytest.mark.parametrize(
    "fault",
    [
        "a word for a rate",
        "yes for bytes",
        "more bytes than can be stored",
        "half a byte",
        "no instant",
        "a list for a device",
        "an address that is none",
    ],
)
async def test_a_faulty_report_is_refused_after_good_ones_too(world: World, fault: str) -> None:
    worker = await told(world, STATUS, STATUS)
    before = world.context.workers.live.of(worker.id)
    assert await told_again(world, worker, _broken(fault)) == [422]
    assert world.context.workers.live.of(worker.id) == before


async def test_watchers_are_told_of_loads_now_and_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOADS_EVERY", 0.05)
    worker = await told(world, STATUS)
    other, _ = await world.worker("other")
    with trio.fail_after(30):
        async with (
            streaming(world, "/v1/workers?watch=true&sync=1", room=100) as workers,
            streaming(world, "/v1/gpu-devices?watch=true", room=100) as devices,
        ):
            seen = [await workers.event() for _ in range(3)]
            assert [event["type"] for event in seen] == [1, 1, 6]
            assert len([await devices.event() for _ in range(3)]) == 3
            await told_again(world, worker, BUSY)
            event = await workers.event()
            assert (event["type"], event["data"]["id"], event["revision"]) == (
                2,
                worker.id,
                seen[-1]["revision"],
            )
            assert event["data"] == await world.get(f"/v1/workers/{worker.id}")
            cards = [(await devices.event())["data"] for _ in range(2)]
            assert [card["temperature"] for card in cards] == [80.0, 80.0]
            await world.ask("DELETE", f"/v1/workers/{other.id}", world.admin)
            assert (await workers.event())["type"] == 3, "and of nothing that has not changed"


async def test_who_resumes_is_told_all_loads_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it knew of them is not known here."""
    monkeypatch.setattr(watch, "LOADS_EVERY", 0.05)
    worker = await told(world, STATUS)
    path = f"/v1/workers?watch=true&since={world.store.snapshot.revision}"
    with trio.fail_after(30):
        async with streaming(world, path, room=100) as stream:
            event = await stream.event()
    assert (event["type"], event["data"]["id"]) == (2, worker.id)


async def test_the_address_is_checked_anew_where_a_report_comes_from_elsewhere(world: World) -> None:
    """The server's own machine may name its loopback; no other may, though it sends the very same."""
    worker, credential = await world.worker("node", status=WorkerStatus())
    body = body_of(STATUS, ip="127.0.0.1")
    answers = []
    for peer in ("127.0.0.1", AWAY):
        async with world.client(credential, peer=peer) as client:
            answers.append((await client.put(f"/v1/workers/{worker.id}/status", json=body)).status_code)
    assert answers == [200, 422]
