"""Replicas on other machines are reached through their worker, whose own troubles no client hears of."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import ModelFacts
from gpustack.domain.worker import SystemReserved, Worker, WorkerState
from gpustack.errors import NotFound
from gpustack.http1.listen import open_listeners
from gpustack.http1.server import HttpServer
from gpustack.nursery.wake import AsyncValue
from gpustack.remote.pooled_client import PooledClient
from gpustack.remote.server_client import ServerClient
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.file_server import FileServer
from gpustack.worker.forward import ForwardHandler
from gpustack.worker.identity import WorkerIdentity, WorkerName
from gpustack.worker.membership import Member, Membership
from gpustack.worker.ports import PortLeases
from tests.fakes.running import RunningEngine
from tests.http1.conftest import run_server
from tests.http1.wire import Client, Script, eventually

from .test_inference import closed_port, plain
from .world import KEYS, World, chat, error_of, events

StartEngine = Callable[..., RunningEngine]
UUID = "uuid-of-another"


@attrs.define
class Machine:
    """A worker's forward port, and the ports of its engines."""

    worker: Worker
    server: HttpServer
    leases: ExitStack
    ports: PortLeases
    keys: EngineKeys

    def hold(self, port: int) -> int:
        self.leases.enter_context(self.ports.keep(port, f"engine {port}"))
        return port


@pytest.fixture
async def machine(world: World, tmp_path: Path) -> Machine:
    return await start_machine(world, tmp_path, KEYS.forward_key(UUID))


async def start_machine(world: World, tmp_path: Path, forward_key: str, uuid: str = UUID) -> Machine:
    member = Member(worker_id=1, name="other", forward_key=forward_key, heartbeat_interval=15.0)
    client = ServerClient(PooledClient.to("http://127.0.0.1:1", world.pool))
    identity = WorkerIdentity(
        name=WorkerName("other", True),
        worker_uuid=uuid,
        hostname="other",
        address=lambda: "127.0.0.1",
        port=0,
        metrics_port=None,
        labels={},
        system_reserved=SystemReserved(),
        version="0",
        data_dir=tmp_path,
    )
    membership = Membership(client, identity, lambda: "", random.Random(1), AsyncValue(member))
    ports, keys = PortLeases(1, 65535), EngineKeys()
    forward = ForwardHandler(
        membership,
        ports,
        keys,
        world.pool,
        lambda key, _: tmp_path / f"{key}.log",
        _no_facts,
        FileServer(_no_file),
        lambda: datetime.now(UTC),
    )
    (listener,) = open_listeners("127.0.0.1", 0)
    server = HttpServer("worker", [listener], handler=forward, reactor=world.pool.reactor)
    served = await run_server(server, listener, world.nursery)
    worker = await world.worker(uuid, ip="127.0.0.1", port=served.port)
    return Machine(worker, server, ExitStack(), ports, keys)


async def _no_file(digest: str, patience: float) -> None:
    await trio.lowlevel.checkpoint()


async def _no_facts(source: ModelSource) -> ModelFacts:
    await trio.lowlevel.checkpoint()
    raise NotFound("there are none")


async def test_answers_come_back_through_the_worker(
    world: World, machine: Machine, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--reply", "from afar")
    await world.deploy("m", machine.hold(engine.port), worker=machine.worker)
    for _ in range(3):
        assert (await world.ask("m")).status == 200
    said = events((await world.ask("m", stream=True)).body)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in said[:-1]) == "from afar"
    last = engine.seen()["last"]
    assert last["path"] == "/v1/chat/completions"
    assert not {"authorization", "x-target-port"} & {name.lower() for name in last["headers"]}
    assert await world.sums() == (4, 0, 12, 8)
    assert len(machine.server.connections) == 1, "one kept connection was enough"


async def test_connections_are_kept_on_both_hops(world: World, machine: Machine) -> None:
    async def act(client: Client, number: int) -> None:
        while True:
            await script.request(client)
            await client.send(plain())

    script = Script(act)
    await world.nursery.start(script.run)
    await world.deploy("m", machine.hold(script.port), worker=machine.worker)
    client = await world.connect()
    for _ in range(5):
        assert (await client.ask(world.request(chat("m")))).status == 200
    assert (script.connections, script.requests) == (1, 5)


@pytest.mark.attack("ssrf")
async def test_what_a_client_says_of_ports_reaches_no_worker(world: World, machine: Machine) -> None:
    async def act(client: Client, number: int) -> None:
        seen.append(await script.request(client))
        await client.send(plain())

    seen: list[bytes] = []
    script = Script(act)
    await world.nursery.start(script.run)
    await world.deploy("m", machine.hold(script.port), worker=machine.worker)
    fields = ["x-target-port: 22", "connection: x-target-port, authorization", "x-gpustack-fault: refused"]
    client = await world.connect()
    answer = await client.ask(world.request(chat("m"), "/v1/chat/completions", *fields))
    assert answer.status == 200
    assert b"x-target-port" not in seen[0].lower()


async def test_an_engine_that_is_gone_is_tried_elsewhere_and_no_client_sees_the_worker(
    world: World, machine: Machine, fake_engine: StartEngine
) -> None:
    """Its port is not held any more, or nobody listens there: the worker says so with a 503 of its own."""
    engine = fake_engine()
    await world.deploy(
        "m", 9, machine.hold(await closed_port()), machine.hold(engine.port), worker=machine.worker
    )
    for _ in range(5):
        assert (await world.ask("m")).status == 200
    assert engine.seen()["finished"] == 5
    await world.deploy("gone", 9, machine.hold(await closed_port()), worker=machine.worker)
    answer = await world.ask("gone")
    assert answer.status == 503
    assert "2 tried" in error_of(answer)["message"]
    assert b"x-gpustack-fault" not in answer.headers


async def test_a_worker_that_does_not_know_us_is_no_reason_to_doubt_the_clients_key(
    world: World, tmp_path: Path, fake_engine: StartEngine
) -> None:
    machine = await start_machine(world, tmp_path, "another key")
    engine = fake_engine()
    await world.deploy("m", machine.hold(engine.port), worker=machine.worker)
    answer = await world.ask("m")
    assert (answer.status, error_of(answer)["type"]) == (503, "ServiceUnavailable")
    assert engine.seen()["requests"] == 0


async def test_an_engine_behind_a_worker_refuses_in_its_own_words(
    world: World, machine: Machine, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--refuse-next", "1")
    await world.deploy("m", machine.hold(engine.port), worker=machine.worker)
    answer = await world.ask("m")
    assert answer.status == 503
    assert error_of(answer)["message"] == "busy, as told"


@pytest.mark.attack("engine")
async def test_what_kills_engines_does_not_go_through_all_of_them_behind_workers_either(
    world: World, machine: Machine, fake_engine: StartEngine
) -> None:
    engines = [fake_engine("--reset-next", "1") for _ in range(4)]
    await world.deploy("m", *(machine.hold(engine.port) for engine in engines), worker=machine.worker)
    assert (await world.ask("m")).status == 503
    assert sum(engine.seen()["script"]["reset_next"] for engine in engines) == 2


async def test_a_client_that_leaves_ends_the_work_behind_the_worker(
    world: World, machine: Machine, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--reply", "word", "--repeat", "100000", "--slow-token", "0.01")
    await world.deploy("m", machine.hold(engine.port), worker=machine.worker)
    client = await world.connect()
    await client.send(world.request(chat("m", stream=True)))
    await client.until(b"word")
    await client.close()
    seen = await trio.to_thread.run_sync(lambda: engine.seen(aborted=1))
    assert seen["finished"] == 0
    await eventually(lambda: world.endpoints.in_flight == 0)


async def test_a_machine_that_went_quiet_is_asked_last_but_is_asked(
    world: World, machine: Machine, fake_engine: StartEngine
) -> None:
    quiet = await world.worker(
        "uuid-of-quiet", state=WorkerState.NOT_READY, ip="127.0.0.1", port=machine.worker.port
    )
    engine = fake_engine()
    await world.deploy("only", machine.hold(engine.port), worker=quiet)
    # The forward key is another worker's: the point is that it was asked.
    assert "1 tried" in error_of(await world.ask("only"))["message"]
