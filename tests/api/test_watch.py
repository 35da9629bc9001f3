"""Watch streams: replay, every change once and in order, and nobody who reads slowly holds up anybody."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpustack.api.watch import ChangeDocumentCache, WatchStream, WatchSubject
from gpustack.api.wire import MODEL
from gpustack.domain.access import ApiKey, User
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.worker import Worker, WorkerStatus

from .stream import streaming
from .world import PASSWORD, SOURCE, STATUS, World


def brief(event: dict[str, Any]) -> tuple[int, Any]:
    return event["type"], None if event["data"] is None else event["data"]["id"]


async def test_the_present_comes_first_then_every_change(world: World) -> None:
    await world.model("a")
    async with streaming(world, "/v1/models?watch=true") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert await stream.event() == {"type": 1, "data": await world.get("/v1/models/1")}
        await world.model("b")
        assert await stream.event() == {"type": 1, "data": await world.get("/v1/models/2")}
        await world.ask("PUT", "/v1/models/1", world.admin, json={"replicas": 4})
        updated = await stream.event()
        assert (updated["type"], updated["data"]["replicas"]) == (2, 4)
        last = await world.get("/v1/models/1")
        await world.ask("DELETE", "/v1/models/1", world.admin)
        assert await stream.event() == {"type": 3, "data": last}


async def test_each_event_is_a_line_followed_by_a_blank_one(world: World) -> None:
    await world.model("a")
    async with streaming(world, "/v1/models?watch=true") as stream:
        assert orjson.loads(await stream.line())["type"] == 1
        assert await stream.line() == b""


async def test_lines_are_ascii_whatever_the_names_are(world: World) -> None:
    """A client that decodes each piece that comes stops following at a letter that was cut in two."""
    name = "Grüße-模型-😀"
    await world.model(name)
    async with streaming(world, "/v1/models?watch=true") as stream:
        for _ in range(2):
            line = await stream.line()
            assert line.isascii()
            assert orjson.loads(line)["data"]["name"] == name
            await stream.line()
            await world.ask("PUT", "/v1/models/1", world.admin, json={"replicas": 4})


async def test_an_empty_list_answers_at_once_and_silence_is_broken_by_blank_lines(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    async with streaming(world, "/v1/models?watch=true") as stream:
        assert await stream.line() == b""
        began = trio.current_time()
        assert await stream.line() == b""
        assert trio.current_time() - began == 15


async def test_silence_is_broken_in_time_although_there_is_news_for_others(
    world: World, mock_clock: trio.testing.MockClock
) -> None:
    worker, credential = await world.worker("mine")
    async with streaming(world, "/v1/model-instances?watch=true&sync=1", credential) as stream:
        assert brief(await stream.event()) == (6, None)
        assert await stream.line() == b""  # the end of that event
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(10)
        await world.store.write(lambda tx: tx.change(Worker, worker.id, labels={"of": "no interest"}))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(5)
        with trio.fail_after(1):
            mock_clock.rate = 1.0
            assert await stream.line() == b""


async def test_the_end_of_the_replay_is_marked_on_demand(world: World) -> None:
    await world.model("a")
    revision = world.store.snapshot.revision
    async with streaming(world, "/v1/models?watch=true&sync=1") as stream:
        events = await stream.events(2)
        assert [brief(event) for event in events] == [(1, 1), (6, None)]
        assert events[1] == {"type": 6, "data": None, "revision": revision}
        await world.model("b")
        assert (await stream.event())["revision"] == revision + 1


async def test_a_watch_resumes_after_the_revision_it_saw(world: World) -> None:
    await world.model("a")
    seen = world.store.snapshot.revision
    await world.model("b")
    await world.ask("PUT", "/v1/models/1", world.admin, json={"replicas": 2})
    async with streaming(world, f"/v1/models?watch=true&since={seen}") as stream:
        assert [brief(event) for event in await stream.events(2)] == [(1, 2), (2, 1)]
        await world.ask("DELETE", "/v1/models/2", world.admin)
        assert brief(await stream.event()) == (3, 2)


async def test_a_revision_that_is_too_old_or_never_was_is_gone(world: World) -> None:
    for number in range(2):
        await world.store.write(
            lambda tx, number=number: [  # type: ignore[misc]
                tx.insert(Model(name=f"{number}-{n}", source=SOURCE)) for n in range(2500)
            ]
        )
    for since in (1, world.store.snapshot.revision + 1):
        answer = await world.ask("GET", f"/v1/models?watch=true&since={since}", world.admin)
        assert (answer.status_code, answer.json()["reason"]) == (410, "Gone")
    wrong = await world.ask("GET", "/v1/models?watch=true&since=yesterday", world.admin)
    assert wrong.status_code == 422


async def test_filters_hold_for_events_too(world: World) -> None:
    await world.model("a", categories=("llm",))
    await world.model("b", categories=("embedding",))
    async with streaming(world, "/v1/models?watch=true&sync=1&categories=llm") as stream:
        assert [brief(event) for event in await stream.events(2)] == [(1, 1), (6, None)]
        await world.ask("PUT", "/v1/models/2", world.admin, json={"replicas": 3})
        await world.ask("PUT", "/v1/models/2", world.admin, json={"categories": ["llm"]})
        await world.ask("PUT", "/v1/models/2", world.admin, json={"categories": ["image"]})
        entered, left = await stream.events(2)
        assert (brief(entered), brief(left)) == ((1, 2), (3, 2))
        assert left["data"]["categories"] == ["image"], "what left is shown as it is now"


async def test_a_worker_watches_only_what_is_placed_on_it(world: World) -> None:
    mine, credential = await world.worker("mine")
    other, _ = await world.worker("other")
    model = await world.model("m")
    async with streaming(world, "/v1/model-instances?watch=true&sync=1", credential) as stream:
        assert brief(await stream.event()) == (6, None)
        await world.instance(model, "m-1", other)
        placed = await world.instance(model, "m-2", mine)
        assert brief(await stream.event()) == (1, placed.id)

        def unplace(tx: Any) -> None:
            away = {"placement": None, "message": "the worker was silent"}
            tx.move(tx.get(type(placed), placed.id), InstanceState.PENDING, by=Party.LIVENESS, **away)

        await world.store.write(unplace)
        gone = await stream.event()
        assert (brief(gone), gone["data"]) == ((3, placed.id), {"id": placed.id})


@pytest.mark.attack("access")
async def test_who_may_not_see_a_model_any_more_learns_that_and_nothing_of_it(world: World) -> None:
    ada = await world.user("ada")
    model = await world.model("m")
    async with streaming(world, "/v1/models?watch=true&sync=1", world.keys[ada.id]) as stream:
        assert [brief(event) for event in await stream.events(2)] == [(1, model.id), (6, None)]
        change = {"access_policy": "allowed_users", "description": "not for her"}
        await world.ask("PUT", f"/v1/models/{model.id}", world.admin, json=change)
        gone = await stream.event()
        assert (brief(gone), gone["data"]) == ((3, model.id), {"id": model.id})
        change = {"allowed_users": [ada.id]}
        await world.ask("PUT", f"/v1/models/{model.id}", world.admin, json=change)
        assert brief(await stream.event()) == (1, model.id)


async def test_devices_come_and_go_with_what_their_worker_reports(world: World) -> None:
    await world.worker("node", status=WorkerStatus())
    async with streaming(world, "/v1/gpu-devices?watch=true&sync=1") as stream:
        assert brief(await stream.event()) == (6, None)
        for status, kind in ((STATUS, 1), (WorkerStatus(), 3)):
            await world.store.write(lambda tx, status=status: tx.change(Worker, 1, status=status))  # type: ignore[misc]
            assert brief(await stream.event()) == (kind, "node:cuda:0")


async def test_a_change_is_printed_once_for_all_who_watch(world: World) -> None:
    async with (
        streaming(world, "/v1/models?watch=true") as one,
        streaming(world, "/v1/models?watch=true&sync=1") as two,
    ):
        await one.line()
        await two.line()
        await two.line()
        await world.model("a")
        assert (await one.event())["data"] == (await two.event())["data"]
        assert repr(world.context.documents) == "<ChangeDocumentCache: 1 documents of changes>"


async def test_who_may_not_watch_any_more_is_cut_off(world: World) -> None:
    boss = await world.user("boss", is_admin=True)
    async with streaming(world, "/v1/users?watch=true&sync=1", world.keys[boss.id]) as stream:
        assert [brief(event) for event in await stream.events(3)] == [(1, 1), (1, boss.id), (6, None)]
        await world.store.write(lambda tx: tx.change(User, boss.id, is_admin=False))
        await stream.ended()
    async with streaming(world, "/v1/models?watch=true&sync=1") as stream:
        assert brief(await stream.event()) == (6, None)
        await world.store.write(lambda tx: [tx.delete(ApiKey, key) for key in list(tx.all(ApiKey))])
        await stream.ended()


@pytest.mark.attack("session")
async def test_a_watch_ends_with_its_login_and_with_its_password(world: World) -> None:
    path = "/v1/models?watch=true&sync=1"
    async with world.client() as client:
        await client.post("/auth/login", data={"username": "admin", "password": PASSWORD})
        cookie = f"gpustack_session={client.cookies['gpustack_session']}".encode()
        async with streaming(world, path, head=(b"cookie", cookie)) as stream:
            assert brief(await stream.event()) == (6, None)
            assert (await client.delete("/v1/users/me/sessions")).status_code == 200
            await stream.ended()
    basic = b"Basic " + base64.b64encode(f"admin:{PASSWORD}".encode())
    async with streaming(world, path, head=(b"authorization", basic)) as stream:
        assert brief(await stream.event()) == (6, None)
        await world.store.write(lambda tx: tx.change(User, world.admin.id, hashed_password="another"))
        await stream.ended()


@pytest.mark.attack("session")
async def test_a_busy_watch_ends_with_its_key_too(world: World) -> None:
    """What is told is told to who may hear it now: no silence is waited for."""
    body = {"name": "short", "expires_in": 60}
    key = (await world.ask("POST", "/v1/api-keys", world.admin, json=body)).json()["value"]
    async with streaming(world, "/v1/models?watch=true&sync=1", key) as stream:
        assert brief(await stream.event()) == (6, None)
        world.clock.forward(60)
        await world.model("m")
        await stream.ended()


async def test_a_watch_ends_when_its_client_leaves(world: World) -> None:
    async with streaming(world, "/v1/models?watch=true") as stream:
        await stream.line()
        stream.left.set()
        await stream.ended()


async def test_a_client_that_does_not_read_holds_up_nobody_and_is_given_up(world: World) -> None:
    hasty = world.rebuilt(stalled_after=0.2)
    await world.model("a")
    path = "/v1/models?watch=true"
    async with streaming(hasty, path) as idle, streaming(world, path) as busy:
        for number in range(200):
            await world.model(f"m-{number}")
        assert [brief(event)[1] for event in await busy.events(201)] == list(range(1, 202))
        await idle.left_by_server()


def a_watch(world: World) -> WatchStream:
    return WatchStream(
        store=world.store,
        documents=ChangeDocumentCache(),
        subject=WatchSubject(
            kind="Model",
            table="models",
            items=lambda record: (record,),
            key=lambda item: item.id,
            document=MODEL.of,
            predicate=lambda item: True,
        ),
        rendering=world.context.rendering,
        allowed=lambda: True,
    )


def test_printed_changes_are_forgotten_when_they_take_much_memory() -> None:
    kept = ChangeDocumentCache()
    for number in range(100):
        kept.of((number, "Model", 1), lambda: {"text": "x" * (1 << 20)})
    assert 0 < kept.size <= 32 << 20
    assert len(kept) < 33


async def test_a_watcher_too_slow_for_the_ring_is_dropped(world: World) -> None:
    async with a_watch(world) as watch:
        await anext(watch)
        await world.store.write(
            lambda tx: [tx.insert(Model(name=f"m-{n}", source=SOURCE)) for n in range(4000)]
        )
        pieces, events = [], 0
        while events < 4000:
            pieces.append(await anext(watch))
            events += pieces[-1].count(b"\n\n")
        assert events == 4000
        assert max(map(len, pieces)) < 300 << 10, "what waits for a slow client is bounded"
        await world.store.write(lambda tx: [tx.delete(Model, n) for n in list(tx.all(Model))])
        await world.store.write(
            lambda tx: [tx.insert(Model(name=f"n-{n}", source=SOURCE)) for n in range(4000)]
        )
        assert [line async for line in watch] == []


steps = st.lists(
    st.tuples(st.sampled_from(["put", "categorise", "delete", "look"]), st.integers(0, 3)), max_size=25
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_a_watcher_who_applies_events_has_what_the_list_has(steps: list[tuple[str, int]]) -> None:
    """Whatever happens and whenever the watcher looks: entering, leaving, deletion, and re-creation included."""
    trio.run(_follow, steps)


async def _follow(steps: list[tuple[str, int]]) -> None:
    import random
    import tempfile
    from pathlib import Path

    from gpustack.api.app import create_app
    from gpustack.api.context import AccessControl, ApiContext, WorkerServices
    from gpustack.api.throttle import LoginLimiters
    from gpustack.identity.derived_keys import DerivedKeys
    from gpustack.server.heartbeat import HeartbeatTimes
    from gpustack.server.live_status import LiveStatus
    from tests.fresh_store import open_fresh

    from .world import TOKEN, Clock, FakeLogSource

    clock = Clock()
    with tempfile.TemporaryDirectory() as place:
        store = await open_fresh(Path(place), clock)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            context = ApiContext(
                store=store,
                keys=DerivedKeys.of("x"),
                access=AccessControl(cluster_token=TOKEN, logins=LoginLimiters.of(clock.monotonic)),
                workers=WorkerServices(
                    heartbeats=HeartbeatTimes(clock.monotonic),
                    live=LiveStatus(clock.monotonic),
                    logs=FakeLogSource(),
                ),
                clock=clock,
                monotonic=clock.monotonic,
                rng=random.Random(1),
            )
            admin = await store.write(lambda tx: tx.insert(User(username="admin", is_admin=True)))
            world = World(
                store=store,
                context=context,
                app=create_app(context),
                clock=clock,
                link=FakeLogSource(),
                admin=admin,
            )
            await world.with_key(admin)
            async with streaming(world, "/v1/models?watch=true&categories=llm&sync=1", room=1000) as stream:
                known: dict[int, Any] = {}
                for what, which in [*steps, ("look", 0)]:
                    await _step(world, what, f"m-{which}")
                    if what == "look":
                        await _catch_up(world, stream, known)
                        listed = await world.get("/v1/models?categories=llm")
                        assert known == {item["id"]: item for item in listed["items"]}
            nursery.cancel_scope.cancel()


async def _step(world: World, what: str, name: str) -> None:
    model = world.store.snapshot.find(Model, name=name)
    if what == "put" and model is None:
        await world.model(name, categories=("llm",))
    elif what == "put" and model is not None:
        await world.store.write(lambda tx: tx.change(Model, model.id, replicas=model.replicas + 1))
    elif what == "categorise" and model is not None:
        now = () if model.categories else ("llm",)
        await world.store.write(lambda tx: tx.change(Model, model.id, categories=now))
    elif what == "delete" and model is not None:
        await world.store.write(lambda tx: tx.delete(Model, model.id))


async def _catch_up(world: World, stream: Any, known: dict[int, Any]) -> None:
    """Apply events up to a mark that is made now, and taken away again."""
    mark = await world.model("mark", categories=("llm",))
    await world.store.write(lambda tx: tx.delete(Model, mark.id))
    while True:
        event = await stream.event()
        if event["type"] == 6:
            continue
        if event["type"] == 3 and event["data"]["id"] == mark.id:
            known.pop(mark.id, None)
            return
        if event["type"] == 3:
            del known[event["data"]["id"]]
        else:
            known[event["data"]["id"]] = event["data"]


async def test_over_a_real_socket_events_arrive_as_they_happen(
    world: World, address: tuple[str, int]
) -> None:
    await world.model("first")
    key = world.keys[world.admin.id]
    head = f"GET /v1/models?watch=true HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n"
    with trio.fail_after(20):
        async with await trio.open_tcp_stream(*address) as socket:
            await socket.send_all(head.encode())
            got = b""
            for name in ("first", "second"):
                if name == "second":
                    await world.model(name)
                while f'"name":"{name}"'.encode() not in got:
                    got += await socket.receive_some()
    assert got.startswith(b"HTTP/1.1 200")
