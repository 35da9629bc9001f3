"""Each worker learns what concerns it, whole at first and then every change, at a cost that stays small."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import attrs
import pytest
import trio
import trio.testing

from gpustack.api.worker_endpoint import StreamTiming, stream_assignments
from gpustack.domain.artifact import FileState
from gpustack.domain.assignment import (
    AssignmentEvent,
    AssignmentLine,
    AssignmentState,
    applied,
    lines_between,
)
from gpustack.domain.instance import Claim, Placement, Subordinate
from gpustack.domain.lifecycle import REPLACE, Party
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.worker import Worker
from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor
from gpustack.http1.server import HttpServer
from gpustack.nursery.quarantine import Quarantine
from gpustack.remote.pooled_client import PooledClient
from gpustack.remote.server_client import ServerClient
from gpustack.server import deployment
from gpustack.server.assignment_index import AssignmentIndex, assignment_states
from gpustack.server.lifecycle import give_up_place
from tests.http1.wire import Client, get

from .cluster import PATIENCE, Cluster, hub


@attrs.define
class Front:
    """Serves the stream as the front does; counts how each one ended."""

    cluster: Cluster
    index: AssignmentIndex
    timing: StreamTiming
    port: int = 0
    ended: list[str] = attrs.field(factory=list)
    news: trio.Event = attrs.field(factory=trio.Event)

    async def handle(self, exchange: Exchange) -> None:
        worker_id = int(exchange.head.path.split("/")[3])
        how = "left"
        try:
            await stream_assignments(exchange, self.cluster.store, self.index, worker_id, timing=self.timing)
            how = "finished" if exchange.response_complete else "cut"
        finally:
            self.ended.append(how)
            self.news.set()

    async def until_ended(self) -> str:
        with trio.fail_after(PATIENCE):
            await self.news.wait()
        return self.ended[-1]


Serve = Callable[..., Awaitable[Front]]


@pytest.fixture
def serve(cluster: Cluster, reactor: Reactor, nursery: trio.Nursery) -> Serve:
    async def start(**timing: float) -> Front:
        front = Front(cluster, AssignmentIndex(cluster.store), StreamTiming(**timing))
        (listener,) = open_listeners("127.0.0.1", 0)
        front.port = listener.getsockname()[1]
        server = HttpServer("test", [listener], handler=front.handle, reactor=reactor)
        await nursery.start(server.run)
        await nursery.start(front.index.run)
        return front

    return start


@attrs.define
class Reader:
    """A worker's end of the stream."""

    lines: AsyncIterator[AssignmentLine]
    state: AssignmentState = AssignmentState()

    async def next(self) -> AssignmentLine:
        with trio.fail_after(PATIENCE):
            line = await anext(self.lines)
        self.state = applied(self.state, line)
        return line

    async def until(self, word: AssignmentEvent) -> list[AssignmentLine]:
        found = [await self.next()]
        while found[-1].word is not word:
            found.append(await self.next())
        return found

    async def words(self, count: int) -> list[tuple[str, str, int]]:
        return [(line.word.value, line.kind, line.id) for line in [await self.next() for _ in range(count)]]


def client(front: Front, pool: ConnectionPool) -> ServerClient:
    return ServerClient(PooledClient.to(f"http://127.0.0.1:{front.port}", pool))


async def test_the_stream_is_the_whole_state_and_then_every_change(
    cluster: Cluster, serve: Serve, pool: ConnectionPool
) -> None:
    mine, other = await cluster.worker("mine"), await cluster.worker("other")
    model, unseen = await cluster.model("m"), await cluster.model("unseen")
    first = await cluster.instance(model, on=mine)
    await cluster.instance(unseen, on=other)
    file = await cluster.file(mine, hub("m"))
    await cluster.file(other, hub("m"))
    front = await serve()
    async with aclosing(client(front, pool).assignments(mine.id, quiet_for=PATIENCE)) as lines:
        reader = Reader(lines)
        assert await reader.words(4) == [
            ("put", "models", model.id),
            ("put", "files", file.id),
            ("put", "instances", first.id),
            ("synced", "", 0),
        ]
        assert reader.state == assignment_states(cluster.snapshot, Quarantine("test"))[mine.id]
        waiting = await cluster.instance(unseen)
        await cluster.change(file, state=FileState.READY)
        assert await reader.words(1) == [("put", "files", file.id)], "what is not placed concerns nobody"
        place = Placement(worker_id=mine.id, claim=Claim(ram=1))
        await cluster.store.write(
            lambda tx: tx.move(waiting, S.SCHEDULED, by=Party.SCHEDULER, placement=place)
        )
        assert await reader.words(2) == [("put", "models", unseen.id), ("put", "instances", waiting.id)]
        await deployment.update_model(cluster.store, unseen.id, {"replicas": 4})
        assert await reader.words(1) == [("put", "models", unseen.id)]
        now = cluster.now(waiting)
        await cluster.store.write(lambda tx: give_up_place(tx, now, REPLACE, "away"))
        assert await reader.words(2) == [("gone", "instances", waiting.id), ("gone", "models", unseen.id)]
        assert reader.state == assignment_states(cluster.snapshot, Quarantine("test"))[mine.id]


async def test_who_was_away_gets_the_whole_state_again(
    cluster: Cluster, serve: Serve, pool: ConnectionPool
) -> None:
    worker, model = await cluster.worker("a"), await cluster.model("m")
    gone, stays = await cluster.instance(model, on=worker), await cluster.instance(model, on=worker)
    front = await serve()
    async with aclosing(client(front, pool).assignments(worker.id, quiet_for=PATIENCE)) as lines:
        await Reader(lines).until(AssignmentEvent.SYNCED)
    assert await front.until_ended() == "left"
    await cluster.store.write(lambda tx: give_up_place(tx, gone, REPLACE, "away"))
    async with aclosing(client(front, pool).assignments(worker.id, quiet_for=PATIENCE)) as lines:
        reader = Reader(lines)
        await reader.until(AssignmentEvent.SYNCED)
        assert set(reader.state.instances) == {stays.id}


async def test_a_quiet_stream_says_that_it_lives(
    cluster: Cluster, serve: Serve, pool: ConnectionPool
) -> None:
    worker = await cluster.worker("a")
    front = await serve(still_every=0.01)
    async with aclosing(client(front, pool).assignments(worker.id, quiet_for=PATIENCE)) as lines:
        assert [word for word, _, _ in await Reader(lines).words(3)] == ["synced", "still", "still"]


async def test_a_deleted_worker_is_told_nothing_more(
    cluster: Cluster, serve: Serve, pool: ConnectionPool
) -> None:
    worker = await cluster.worker("a")
    await cluster.instance(await cluster.model("m"), on=worker)
    front = await serve()
    async with aclosing(client(front, pool).assignments(worker.id, quiet_for=PATIENCE)) as lines:
        reader = Reader(lines)
        await reader.until(AssignmentEvent.SYNCED)
        await deployment.delete_worker(cluster.store, worker.id)
        with pytest.raises(StopAsyncIteration):
            await reader.next()
    assert await front.until_ended() == "finished"
    async with aclosing(client(front, pool).assignments(worker.id, quiet_for=PATIENCE)) as lines:
        with pytest.raises(StopAsyncIteration):
            await Reader(lines).next()


async def test_the_stream_of_a_void_credential_ends(
    cluster: Cluster, serve: Serve, pool: ConnectionPool
) -> None:
    worker = await cluster.worker("a")
    front = await serve()
    async with aclosing(client(front, pool).assignments(worker.id, quiet_for=PATIENCE)) as lines:
        reader = Reader(lines)
        await reader.until(AssignmentEvent.SYNCED)
        await cluster.change(worker, credential_hash="another")
        with pytest.raises(StopAsyncIteration):
            await reader.next()


async def test_a_reader_that_takes_nothing_is_dropped_and_nobody_waits_for_it(
    cluster: Cluster, serve: Serve, pool: ConnectionPool
) -> None:
    worker = await cluster.worker("a")
    model = await cluster.model("m", env={"BIG": "x" * (1 << 20)})
    await cluster.instance(model, on=worker)
    front = await serve(stalled_after=0.2)
    stalled = Client(await trio.open_tcp_stream("127.0.0.1", front.port))
    try:
        await stalled.send(get(f"/v1/workers/{worker.id}/assignments"))

        async def edit() -> None:
            for number in range(1000):
                await cluster.change(model, description=str(number))
                if front.ended:
                    return

        with trio.fail_after(PATIENCE):
            await edit()
            assert await front.until_ended() == "cut"
    finally:
        await stalled.close()


async def test_a_burst_of_changes_is_few_words_and_ends_with_the_last(
    cluster: Cluster, serve: Serve, pool: ConnectionPool
) -> None:
    worker, model = await cluster.worker("a"), await cluster.model("m")
    instance = await cluster.instance(model, on=worker)
    front = await serve()
    async with aclosing(client(front, pool).assignments(worker.id, quiet_for=PATIENCE)) as lines:
        reader = Reader(lines)
        await reader.until(AssignmentEvent.SYNCED)
        for number in range(50):
            await cluster.change(instance, state_message=str(number))
        while reader.state.instances[instance.id].state_message != "49":
            await reader.next()
        assert reader.state.instances[instance.id] == cluster.now(instance)


# --- the index


async def test_the_index_agrees_with_a_fresh_look_whatever_happens(cluster: Cluster) -> None:
    chance = random.Random(5)
    workers = [await cluster.worker(name) for name in "abc"]
    models = [await cluster.model(name) for name in "mn"]
    index = AssignmentIndex(cluster.store)
    told = {worker.id: index.of(worker.id) for worker in workers}
    for _ in range(150):
        await _something(cluster, chance, workers, models)
        fresh = assignment_states(cluster.snapshot, Quarantine("test"))
        for worker in workers:
            now = index.of(worker.id)
            assert now == fresh.get(worker.id, AssignmentState())
            for line in lines_between(told[worker.id], now):
                told[worker.id] = applied(told[worker.id], line)
            assert told[worker.id] == now


async def _something(cluster: Cluster, chance: random.Random, workers: list[Worker], models: list) -> None:  # type: ignore[type-arg]  # of models
    instances = list(cluster.snapshot.instances.values())
    one = chance.choice(instances) if instances else None
    what = chance.randrange(7)
    if what <= 1 or one is None:
        await cluster.instance(chance.choice(models), on=chance.choice([None, *workers]))
    elif what == 2:
        await cluster.change(one, state_message=str(chance.random()))
    elif what == 3:
        await cluster.change(chance.choice(models), description=str(chance.random()))
    elif what == 4:
        await deployment.delete_instance(cluster.store, one.id)
    elif what == 5 and one.placement is not None:
        share = Subordinate(worker_id=chance.choice(workers).id)
        await cluster.change(one, placement=attrs.evolve(one.placement, subordinates=(share,)))
    elif one.placement is not None:
        await cluster.store.write(lambda tx: give_up_place(tx, one, REPLACE, "away"))


async def test_a_commit_wakes_only_those_that_follow_a_worker_it_concerns(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    index = AssignmentIndex(cluster.store)
    await nursery.start(index.run)
    a, b = await cluster.worker("a"), await cluster.worker("b")
    model = await cluster.model("m")
    with index.follow(a.id) as of_a, index.follow(a.id) as also_of_a, index.follow(b.id) as of_b:

        async def woken() -> list[bool]:
            await trio.testing.wait_all_tasks_blocked()
            return [await wake.wait(0) for wake in (of_a, also_of_a, of_b)]

        await woken()
        one = await cluster.instance(model, on=a)
        assert await woken() == [True, True, False]
        assert await woken() == [False, False, False]
        await cluster.change(b, cordoned=True)
        assert await woken() == [False, False, True]
        assert one.placement is not None
        both = attrs.evolve(one.placement, subordinates=(Subordinate(worker_id=b.id),))
        await cluster.change(one, placement=both)
        assert await woken() == [True, True, True]
        await cluster.change(model, description="other")
        assert await woken() == [True, True, True]
    await cluster.change(a, cordoned=True)  # nobody follows any more


async def test_a_commit_costs_what_it_concerns_however_many_ask(cluster: Cluster) -> None:
    """200 workers and 2000 instances: a report of one draws one state, and the others are not looked at."""
    from gpustack.domain.instance import ModelInstance
    from gpustack.store.transaction import Tx

    model = await cluster.model("m")
    base = await cluster.worker("w0")

    def fill(tx: Tx) -> list[ModelInstance]:
        found = []
        for number in range(1, 200):
            tx.insert(attrs.evolve(base, id=0, name=f"w{number}", worker_uuid=f"u{number}"))
        for number in range(2000):
            made = tx.insert(
                ModelInstance(name=f"i{number}", model_id=model.id, model_name="m", source=model.source)
            )
            place = Placement(worker_id=base.id + number % 200)
            found.append(tx.move(made, S.SCHEDULED, by=Party.SCHEDULER, placement=place))
        return found

    instances = await cluster.store.write(fill)
    index = AssignmentIndex(cluster.store)
    ids = sorted(cluster.snapshot.workers)
    before = {key: index.of(key) for key in ids}
    drawn = index.drawn
    assert drawn == len(ids) == 200
    for instance in instances[:10]:
        await cluster.change(instance, state_message="50 %")
        after = {key: index.of(key) for key in ids}
        changed = [key for key in ids if after[key] is not before[key]]
        assert changed == [instance.worker_id]
        before = after
    assert index.drawn == drawn + 10
    await cluster.change(cluster.snapshot.workers[ids[0]], cordoned=True)
    assert all(index.of(key) is before[key] for key in ids), "what workers say of themselves is nobody's task"
    assert index.drawn == drawn + 10
