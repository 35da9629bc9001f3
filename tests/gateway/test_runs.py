"""One request makes no more than two engine runs, over warm connections, directly and through a worker."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.gateway.endpoints import WorkerRequests
from gpustack.store.transaction import Tx
from tests.fakes.running import RunningEngine
from tests.http1.wire import Client, Script, eventually

from .test_inference import closed_port, plain
from .test_worker_hop import UUID, Machine, start_machine
from .world import KEYS, FakeUpstreamExchange, World, busy, chat, error_of

StartEngine = Callable[..., RunningEngine]
POISON = b"poison"


class Mortal:
    """An engine that keeps its connections, and ends for good when it is given poison."""

    def __init__(self, last_words: bytes = b"") -> None:
        self.runs = 0
        self.poisoned = 0
        self.port = 0
        self._last_words = last_words
        self._life = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._life:
            async with trio.open_nursery() as nursery:
                serve = partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1")
                listeners = await nursery.start(serve)
                self.port = listeners[0].socket.getsockname()[1]
                task_status.started()

    async def _serve(self, stream: trio.SocketStream) -> None:
        client = Client(stream)
        try:
            while True:
                try:
                    body = await client.request_body(await client.until(b"\r\n\r\n"))
                except AssertionError:
                    return
                self.runs += 1
                if POISON in body:
                    self.poisoned += 1
                    if self._last_words:
                        await client.send(self._last_words)
                    self._life.cancel()
                    return
                await client.send(plain())
        finally:
            await trio.aclose_forcefully(stream)


@pytest.fixture
async def machine(world: World, tmp_path: Path) -> Machine:
    return await start_machine(world, tmp_path, KEYS.forward_key(UUID))


@attrs.define
class Site:
    """Where engines are: on this machine, or on another behind its worker."""

    world: World
    machine: Machine | None

    async def deploy(self, *ports: int) -> None:
        held = ports if self.machine is None else tuple(self.machine.hold(port) for port in ports)
        await self.world.deploy("m", *held, worker=None if self.machine is None else self.machine.worker)

    async def mortals(self, count: int, last_words: bytes = b"") -> list[Mortal]:
        """Deployed, each with a warm connection to it."""
        made = [Mortal(last_words) for _ in range(count)]
        for one in made:
            await self.world.nursery.start(one.run)
        await self.deploy(*(one.port for one in made))
        with trio.fail_after(30):
            while not all(one.runs for one in made):
                assert (await self.world.ask("m")).status == 200
        return made


@pytest.fixture(params=["direct", "behind a worker"])
async def site(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> AsyncIterator[Site]:
    hop = request.param != "direct"
    machine = await start_machine(world, tmp_path, KEYS.forward_key(UUID)) if hop else None
    yield Site(world, machine)


@pytest.mark.attack("engine")
@pytest.mark.parametrize("replicas", [1, 2, 3, 6])
async def test_what_kills_engines_kills_two_over_warm_connections(site: Site, replicas: int) -> None:
    mortals = await site.mortals(replicas)
    answer = await site.world.ask("m", text=POISON.decode())
    assert answer.status == 503
    assert sum(one.poisoned for one in mortals) == min(replicas, 2)
    if replicas > 2:
        assert "not tried again" in error_of(answer)["message"]
        assert (await site.world.ask("m")).status == 200, "the others serve on"


@pytest.mark.parametrize("status", [b"502 Bad Gateway", b"503 Service Unavailable"])
async def test_a_refusal_after_work_is_tried_on_one_other(site: Site, status: bytes) -> None:
    refusal = plain(b'{"error": "out of memory"}', status=status)
    mortals = await site.mortals(4, last_words=refusal)
    answer = await site.world.ask("m", text=POISON.decode())
    assert (answer.status, answer.body) == (int(status[:3]), b'{"error": "out of memory"}')
    assert b"x-gpustack-runs" not in answer.headers
    assert sum(one.poisoned for one in mortals) == 2


async def test_a_kept_connection_that_closed_is_replaced_by_one_to_the_same_engine(site: Site) -> None:
    """Engines close idle connections just as a request comes: a single replica must not fail for that."""

    async def act(client: Client, number: int) -> None:
        await script.request(client)
        await client.send(plain())
        await script.request(client)  # and closes

    script = Script(act)
    await site.world.nursery.start(script.run)
    await site.deploy(script.port)
    assert (await site.world.ask("m")).status == 200
    assert (await site.world.ask("m")).status == 200
    assert (script.connections, script.requests) == (2, 3)


async def test_two_runs_are_all_also_on_one_engine(site: Site) -> None:
    async def act(client: Client, number: int) -> None:
        await script.request(client)
        if number == 1:
            await client.send(plain())
            await script.request(client)

    script = Script(act)
    other = Mortal()
    await site.world.nursery.start(script.run)
    await site.world.nursery.start(other.run)
    await site.deploy(script.port)
    assert (await site.world.ask("m")).status == 200
    assert (await site.world.ask("m")).status == 503
    assert script.requests == 3


@pytest.mark.attack("engine")
@pytest.mark.parametrize(
    "begin",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"HTTP/1.1 100 Go on\r\n\r\n", b"?\r\n\r\n"],
)
async def test_what_breaks_off_after_its_head_is_run_twice_and_no_more(site: Site, begin: bytes) -> None:
    """A kept connection closes without a word, and its successor after the head: two runs of one replica."""
    poisoned = 0

    async def act(client: Client, number: int) -> None:
        nonlocal poisoned
        served = 0
        while POISON not in await script.request(client):
            await client.send(plain())
            served += 1
        poisoned += 1
        if not served and begin:
            await client.send(begin)

    scripts = [Script(act) for _ in range(4)]
    script = scripts[0]
    for one in scripts:
        await site.world.nursery.start(one.run)
    await site.deploy(*(one.port for one in scripts))
    for _ in range(12):
        assert (await site.world.ask("m")).status == 200
    assert (await site.world.ask("m", text=POISON.decode())).status == 503
    assert poisoned == 2


async def test_what_was_never_sent_is_no_run(site: Site) -> None:
    mortal = Mortal()
    await site.world.nursery.start(mortal.run)
    closed = [await closed_port() for _ in range(5)]
    await site.deploy(*closed, mortal.port)
    assert (await site.world.ask("m")).status == 200


async def test_after_a_kept_connection_and_a_refused_one_another_replica_answers(site: Site) -> None:
    """The first engine ended while it was idle, unnoticed until the request had been sent."""
    mortals = await site.mortals(1)
    other = Mortal()
    await site.world.nursery.start(other.run)
    await site.world.deploy("n", *_held(site, mortals[0].port, other.port), worker=_worker(site))
    route = site.world.endpoints.route("n")
    assert route is not None
    with busy(site.world.endpoints, route.endpoints[1]):  # so that the first is asked first
        assert (await site.world.ask("n")).status == 200
        mortals[0]._life.cancel()
        assert (await site.world.ask("n")).status == 200
    assert other.runs == 1


def _held(site: Site, *ports: int) -> list[int]:
    if site.machine is None:
        return list(ports)
    return [port if port in site.machine.ports.held else site.machine.hold(port) for port in ports]


def _worker(site: Site) -> Worker | None:
    return None if site.machine is None else site.machine.worker


@pytest.mark.attack("engine")
async def test_an_engine_does_not_speak_of_runs_for_its_worker(world: World, machine: Machine) -> None:
    async def act(client: Client, number: int) -> None:
        await script.request(client)
        await client.send(
            plain(b"{}", b"x-gpustack-runs: 0", b"x-gpustack-fault: refused", status=b"503 Busy")
        )

    script = Script(act)
    await world.nursery.start(script.run)
    await world.deploy("m", *(machine.hold(script.port) for _ in range(1)), worker=machine.worker)
    answer = await world.ask("m")
    assert (answer.status, answer.body) == (503, b"{}"), "its own words, not its worker's"
    assert b"x-gpustack-runs" not in answer.headers


# --- machines that vanish


async def set_state(world: World, worker: Worker, state: WorkerState, **more: bool) -> None:
    condition = Condition(state=state, why="silent for 45 s")
    await world.store.write(lambda tx: tx.change(Worker, worker.id, condition=condition, **more))


async def add_replica(world: World, model: Model, worker: Worker, port: int) -> None:
    def work(tx: Tx) -> None:
        made = tx.insert(
            ModelInstance(name="more", model_id=model.id, model_name=model.name, source=model.source)
        )
        at = Placement(worker_id=worker.id)
        placed = tx.move(made, InstanceState.SCHEDULED, by=Party.SCHEDULER, placement=at)
        tx.move(placed, InstanceState.RUNNING, by=Party.WORKER, port=port)

    await world.store.write(work)
    await world.routed(model.name, 2)


async def test_a_request_to_a_machine_that_fell_silent_is_asked_elsewhere(
    world: World, machine: Machine, fake_engine: StartEngine
) -> None:
    async def act(client: Client, number: int) -> None:
        await script.request(client)
        await trio.sleep_forever()

    script, good = Script(act), fake_engine("--reply", "here")
    await world.nursery.start(script.run)
    model = await world.deploy("m", machine.hold(script.port), worker=machine.worker)
    client = await world.connect()
    await client.send(world.request(chat("m")))
    await eventually(lambda: script.requests == 1)
    await add_replica(world, model, await world.worker(), good.port)
    await set_state(world, machine.worker, WorkerState.NOT_READY)
    answer = await client.answer()
    assert answer.status == 200
    assert b"here" in answer.body


async def test_a_stream_that_flows_outlives_the_silence_of_its_worker(
    world: World, machine: Machine, fake_engine: StartEngine
) -> None:
    """The server may be the one that is cut off, or the worker's heartbeats alone."""
    engine = fake_engine("--reply", "word", "--repeat", "40", "--slow-token", "0.02")
    await world.deploy("m", machine.hold(engine.port), worker=machine.worker)
    client = await world.connect()
    await client.send(world.request(chat("m", stream=True)))
    await client.until(b"word")
    await set_state(world, machine.worker, WorkerState.NOT_READY)
    await client.until(b"data: [DONE]")


def test_only_what_was_under_way_and_is_not_answered_is_given_up() -> None:
    requests = WorkerRequests()
    flowing, waiting, elsewhere, later = map(FakeUpstreamExchange, (99.0, -math.inf, 0.0, -math.inf))
    for worker_id, request in ((1, flowing), (1, waiting), (2, elsewhere)):
        requests.add(worker_id, request)
    assert requests.give_up([1], 100.0) is True
    assert [one.aborted for one in (flowing, waiting, elsewhere)] == [False, True, False]
    requests.add(1, later)  # sent because nobody else was left
    assert requests.give_up([1], 102.0) is True
    assert requests.give_up([1], 105.0) is False
    assert (flowing.aborted, later.aborted) == (True, False)
    for worker_id, request in ((1, flowing), (1, waiting), (1, later), (2, elsewhere)):
        requests.discard(worker_id, request)
    assert requests.give_up([], 106.0) is False
    assert repr(requests) == "<WorkerRequests: 0 to 0 workers>"
