"""What workers send all the time, on the front's own HTTP core."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
import trio
import trio.testing

from gpustack.api.context import AccessRules
from gpustack.api.worker_endpoint import WorkerEndpoint, is_worker_request
from gpustack.domain.assignment import AssignmentEvent, AssignmentLine
from gpustack.domain.document import decode, encode
from gpustack.domain.worker import Worker
from gpustack.errors import Unavailable
from gpustack.http1.head import parse_request_head
from gpustack.http1.listen import open_listeners
from gpustack.http1.server import HttpServer
from gpustack.server.assignment_index import AssignmentIndex
from gpustack.server.credential import bar
from gpustack.store import Store

from .world import STATUS, TOKEN, World


@pytest.fixture
async def core(world: World) -> AsyncIterator[str]:
    """The address of a core that serves worker requests alone."""
    async with serving(world) as address:
        yield address


@asynccontextmanager
async def serving(world: World, *servers: str) -> AsyncIterator[str]:
    (listener,) = open_listeners("127.0.0.1", 0)
    strict = world.rebuilt(rules=AccessRules(force_auth_localhost=True), server_urls=lambda: servers)
    index = AssignmentIndex(world.store)
    endpoint = WorkerEndpoint(strict.context, index)
    server = HttpServer("test", [listener], handler=endpoint.handle)
    async with trio.open_nursery() as nursery:
        await nursery.start(index.run)
        await nursery.start(server.run)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize(
    ("line", "claimed"),
    [
        ("POST /v1/workers/1/heartbeat", True),
        ("PUT /v1/workers/12/status", True),
        ("POST /v1/workers/12/files", True),
        ("GET /v1/workers/12/assignments", True),
        ("PUT /v1/model-instances/3/report", True),
        ("PUT /v1/model-files/3/report", True),
        ("GET /v1/workers/1/heartbeat", False),
        ("POST /v1/workers", True),
        ("GET /v1/workers", False),
        ("PUT /v1/workers/1", False),
        ("PUT /v1/workers/x/status", False),
        ("PUT /v1/workers/1/status/", False),
        ("GET /v1/models", False),
        ("GET /", False),
    ],
)
def test_only_worker_requests_are_claimed(line: str, claimed: bool) -> None:
    head = parse_request_head(f"{line} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert is_worker_request(head) is claimed  # type: ignore[arg-type]


async def test_a_worker_is_heard(world: World, core: str) -> None:
    worker, credential = await world.worker("node")
    async with httpx.AsyncClient(base_url=core, headers=bearer(credential)) as client:
        beat = await client.post(f"/v1/workers/{worker.id}/heartbeat", json={})
        assert (beat.status_code, beat.json()["interval"]) == (200, 15)
        assert world.context.workers.heartbeats.last_heard(worker.id) == world.clock.since_boot
        status = {"status": orjson.loads(encode(STATUS)), "ip": "10.9.9.9"}
        assert (await client.put(f"/v1/workers/{worker.id}/status", json=status)).json() is None
        assert world.store.snapshot.workers[worker.id].ip == "10.9.9.9"
        await world.instance(await world.model("m"), "m-1", worker)
        report = {"state": "initializing", "pid": 7}
        assert (await client.put("/v1/model-instances/1/report", json=report)).status_code == 200
        assert world.store.snapshot.instances[1].pid == 7
        asked = {"source": {"kind": "local_path", "local_path": "/models/tiny.gguf"}}
        made = await client.post(f"/v1/workers/{worker.id}/files", json=asked)
        assert made.json() == {"id": 1, "holders": []}
        assert (await client.put("/v1/model-files/1/report", json={"size": 3})).status_code == 200
        assert world.store.snapshot.files[1].size == 3


@pytest.mark.parametrize(
    ("who", "body", "status"),
    [
        (None, b"{}", 401),
        ("nonsense", b"{}", 401),
        (TOKEN, b"{}", 403),
        ("admin", b"{}", 403),
        ("other", b'{"status": {}}', 403),
        ("mine", b"", 400),
        ("mine", b"\xff", 400),
        ("mine", b"{}", 422),
        ("mine", b'{"status": {"cpu": {"total": "many"}}}', 422),
        ("mine", b" " * (3 << 20), 413),
    ],
)
async def test_what_is_wrong_is_told_as_everywhere(
    world: World, core: str, who: str | None, body: bytes, status: int
) -> None:
    mine, credential = await world.worker("mine")
    _, other = await world.worker("other")
    named = {"mine": credential, "other": other, "admin": world.keys[world.admin.id]}
    headers = {} if who is None else bearer(named.get(who, who))
    async with httpx.AsyncClient(base_url=core, headers=headers) as client:
        answer = await client.put(f"/v1/workers/{mine.id}/status", content=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "reason", "message"}


async def test_a_worker_is_told_its_assignments_and_no_others(world: World, core: str) -> None:
    mine, credential = await world.worker("mine")
    other, _ = await world.worker("other")
    model = await world.model("m")
    await world.instance(model, "m-1", mine)
    await world.instance(model, "m-2", other)
    with trio.fail_after(20):
        lines = await first_lines(core, f"/v1/workers/{mine.id}/assignments", credential, 3)
    told = [decode(line, AssignmentLine) for line in lines]
    assert [(line.word, line.kind, line.id) for line in told] == [
        (AssignmentEvent.PUT, "models", model.id),
        (AssignmentEvent.PUT, "instances", 1),
        (AssignmentEvent.SYNCED, "", 0),
    ]


async def first_lines(core: str, path: str, credential: str, count: int) -> list[bytes]:
    """The first lines of a chunked answer that goes on."""
    host, _, port = core.removeprefix("http://").partition(":")
    head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {credential}\r\n\r\n"
    async with await trio.open_tcp_stream(host, int(port)) as socket:
        await socket.send_all(head.encode())
        got = b""
        lines: list[bytes] = []
        while len(lines) < count:
            got += await socket.receive_some()
            lines = [line for line in got.split(b"\n") if line.startswith(b"{") and line.endswith(b"}")]
    return lines


async def test_a_worker_hears_that_the_stream_lives_although_only_others_have_news(
    world: World, core: str, mock_clock: trio.testing.MockClock
) -> None:
    mine, credential = await world.worker("mine")
    other, _ = await world.worker("other")
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            lines = await first_lines(core, f"/v1/workers/{mine.id}/assignments", credential, 2)
            assert [decode(line, AssignmentLine).word for line in lines] == [
                AssignmentEvent.SYNCED,
                AssignmentEvent.STILL,
            ]
            nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        for seconds in (1, 13):  # the first one ends the gathering of changes
            await trio.testing.wait_all_tasks_blocked(0.1)
            mock_clock.jump(seconds)
        await world.store.write(lambda tx: tx.change(Worker, other.id, labels={"of": "no interest"}))
        await trio.testing.wait_all_tasks_blocked(0.1)
        mock_clock.jump(3)
        mock_clock.rate = 1.0
        await trio.sleep(10)
        raise AssertionError("nothing was heard in time")


async def test_the_assignments_of_others_are_closed(world: World, core: str) -> None:
    other, _ = await world.worker("other")
    _, credential = await world.worker("mine")
    async with httpx.AsyncClient(base_url=core) as client:
        path = f"/v1/workers/{other.id}/assignments"
        assert (await client.get(path, headers=bearer(credential))).status_code == 403
        assert (await client.get(path, headers=bearer(world.keys[world.admin.id]))).status_code == 403
        assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize("others", [0, 1])
async def test_who_is_cut_off_tells_no_old_state_while_another_server_knows_better(
    world: World, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """That the database is gone is seen only when it is asked once more: the snapshot may be old already."""

    async def refresh(store: Store) -> bool:
        store._failure = Unavailable("The database is away", 5.0)
        return True

    monkeypatch.setattr(Store, "refresh", refresh)
    worker, credential = await world.worker("node")
    path = f"/v1/workers/{worker.id}/assignments"
    async with serving(world, *["http://10.0.0.1", "http://10.0.0.2"][: 1 + others]) as core:
        if not others:
            with trio.fail_after(20):
                (line,) = await first_lines(core, path, credential, 1)
            assert decode(line, AssignmentLine).word is AssignmentEvent.SYNCED, "nobody knows better"
            return
        async with httpx.AsyncClient(base_url=core, headers=bearer(credential)) as client:
            for answer in (
                await client.get(path),
                await client.post(f"/v1/workers/{worker.id}/heartbeat", json={}),
            ):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
                assert answer.json()["message"] == "The database is away"


@pytest.mark.attack("worker")
async def test_a_stream_does_not_begin_by_a_credential_that_another_server_has_voided(
    world: World, core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is good by our snapshot, and seen to be void when that is made new."""
    worker, credential = await world.worker("node")

    async def refresh(store: Store) -> bool:
        await bar(store, worker.id)
        return True

    monkeypatch.setattr(Store, "refresh", refresh)
    async with httpx.AsyncClient(base_url=core, headers=bearer(credential)) as client:
        answer = await client.get(f"/v1/workers/{worker.id}/assignments")
        assert answer.status_code == 503
        monkeypatch.undo()
        assert (await client.get(f"/v1/workers/{worker.id}/assignments")).status_code == 401


async def test_a_heartbeat_writes_nothing(world: World, core: str) -> None:
    worker, credential = await world.worker("node")
    before = world.store.snapshot
    async with httpx.AsyncClient(base_url=core, headers=bearer(credential)) as client:
        for _ in range(3):
            answer: Any = await client.post(f"/v1/workers/{worker.id}/heartbeat", content=b"")
            assert orjson.loads(answer.content)["revision"] == before.revision
    assert world.store.snapshot is before
