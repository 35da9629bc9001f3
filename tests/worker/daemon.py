"""A worker's part of the daemon, composed as ``gpustack start`` does it, to be crashed, stopped and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import trio

from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.artifacts.environment import PythonEnvironments
from gpustack.artifacts.installer import PipxFolders
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild, SystemReserved, WorkerStatus
from gpustack.hardware.engine_build import BuildFinder
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import new_reactor
from gpustack.http1.server import HttpServer
from gpustack.nursery.restart import RestartPolicy
from gpustack.nursery.service import function_service
from gpustack.nursery.tier import open_tier
from gpustack.remote.pooled_client import PooledClient
from gpustack.remote.server_client import ServerClient
from gpustack.worker.assignment_watcher import AssignmentWatcher
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_environment import EngineEnvironments
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.eviction import FileEvictor
from gpustack.worker.file_server import FileServer
from gpustack.worker.forward import ForwardHandler
from gpustack.worker.heartbeat import Heartbeat, StatusReporter
from gpustack.worker.identity import WorkerIdentity, worker_name, worker_uuid
from gpustack.worker.log_retention import LogRetention
from gpustack.worker.membership import Membership
from gpustack.worker.model_file import ModelFiles
from gpustack.worker.peer import PeerFinder
from gpustack.worker.ports import PortLeases
from gpustack.worker.probe import Prober
from gpustack.worker.report import ReportQueue
from gpustack.worker.services import WorkerParts, work_services
from gpustack.worker.shutdown import ShutdownMode
from gpustack.worker.supervisor import InstanceSupervisor
from tests.child import ROOT
from tests.ports import free_ports
from tests.worker.server import FORWARD_KEY, TOKEN, FakeServer

QUICK = RestartPolicy(first=0.05, factor=2.0, ceiling=0.2, budget=None, window=float("inf"))
BUILDS = (
    EngineBuild(engine="custom", origin="any program"),
    EngineBuild(engine="llama.cpp", version="1", origin="embedded xllamacpp 1"),
)
NOWHERE = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/none.gguf")
_PORTS = free_ports(20)
_RPC_PORTS = free_ports(10)
"""Of all daemons of this process, one after the other."""


def utc_now() -> datetime:
    return datetime.now(UTC)


@attrs.define(eq=False)
class Daemon:
    """Started by ``start``; ``port`` is then the worker's own."""

    server: FakeServer
    folder: Path
    ports: PortLeases = attrs.field(factory=lambda: PortLeases(_PORTS[0], _PORTS[-1]))
    rpc_ports: PortLeases = attrs.field(
        factory=lambda: PortLeases(_RPC_PORTS[0], _RPC_PORTS[-1], "--rpc-server-port-range")
    )
    back_off: RestartPolicy = QUICK
    status: WorkerStatus = WorkerStatus(engines=BUILDS)
    address: str = "127.0.0.1"
    token: str = TOKEN
    stop_grace: float = 5.0
    endpoint: str | None = None
    """Of the model hub."""
    evicts: bool = False
    builds: Callable[[], Awaitable[tuple[EngineBuild, ...]]] | None = None
    measure_every: float = 10.0
    port: int = 0
    shutdown: ShutdownMode = attrs.field(factory=ShutdownMode)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    gone: trio.Event = attrs.field(factory=trio.Event)
    keys: EngineKeys = attrs.field(factory=EngineKeys)
    pool: ConnectionPool = attrs.field(init=False)
    reports: ReportQueue = attrs.field(init=False)
    context: WorkerContext = attrs.field(init=False)
    supervisor: InstanceSupervisor = attrs.field(init=False)
    membership: Membership = attrs.field(init=False)
    cache: Cache = attrs.field(init=False)

    async def start(self, nursery: trio.Nursery) -> Daemon:
        await nursery.start(self._run)
        return self

    async def crash(self) -> None:
        """End as if the tree had failed: nobody has asked engines to end."""
        self.scope.cancel()
        await self.gone.wait()

    async def stop(self) -> None:
        """A plain stop."""
        self.shutdown.ends_engines = True
        await self.crash()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        rng = random.Random(7)
        reactor = new_reactor(tick=0.05)
        self.pool = ConnectionPool(reactor=reactor)
        listeners = open_listeners("127.0.0.1", 0)
        self.port = listeners[0].getsockname()[1]
        parts = self._parts(rng)
        forward = ForwardHandler(
            self.membership,
            self.ports,
            self.keys,
            self.pool,
            self.context.log_file,
            _no_facts,
            FileServer(self.cache.shared),
            utc_now,
        )
        try:
            with self.scope:
                async with open_tier("edge") as edge:
                    await edge.start(function_service("reactor", reactor.run))
                    await edge.start(self.pool)
                    await edge.start(HttpServer("worker", listeners, handler=forward, reactor=reactor))
                    async with open_tier("work") as work:
                        for service in work_services(parts):
                            await work.start(service)
                        task_status.started()
                        await trio.sleep_forever()
        finally:
            self.gone.set()

    def _parts(self, rng: random.Random) -> WorkerParts:
        self.folder.mkdir(parents=True, exist_ok=True)
        client = ServerClient(PooledClient.to(self.server.url, self.pool))
        identity = WorkerIdentity(
            name=worker_name(self.folder, None),
            worker_uuid=worker_uuid(self.folder),
            hostname="host",
            address=lambda: self.address,
            port=self.port,
            metrics_port=None,
            labels={"os": "linux"},
            system_reserved=SystemReserved(),
            version="1",
            data_dir=self.folder,
        )
        self.membership = Membership(client, identity, lambda: self.token, rng)
        self.reports = ReportQueue(self.membership, rng, retry_after=0.1)
        assignments = AssignmentWatcher(self.membership, rng)
        self.cache = Cache(self.folder / "cache", rng, CacheSettings(endpoint=self.endpoint, period=0.05))
        files = ModelFiles(
            self.cache,
            assignments,
            self.reports,
            find_peers=PeerFinder(self.membership, self.pool).find,
            evictor=FileEvictor(self.cache, self.reports, self.evicts),
            now=utc_now,
        )
        pipx = PipxFolders(self.folder / "pipx", self.folder / "bin")
        environments = EngineEnvironments(
            environments=PythonEnvironments(self.folder / "venvs", pipx, lambda: None),
            finder=BuildFinder(),
            builds=self.builds or self._builds,
            assignments=assignments,
            now=utc_now,
        )
        self.context = WorkerContext(
            files=files,
            ports=self.ports,
            rpc_ports=self.rpc_ports,
            reports=self.reports,
            prober=Prober(self.pool, self.keys),
            keys=self.keys,
            rng=rng,
            shutdown=self.shutdown,
            environments=environments,
            device_type=lambda indexes: None,
            cpu_count=2,
            data_dir=self.folder,
            log_dir=self.folder / "log",
            now=utc_now,
            stop_grace=self.stop_grace,
            address=lambda: self.address,
            peer_port=self.port,
        )
        self.supervisor = InstanceSupervisor(self.context, assignments, rng, self.back_off)
        return WorkerParts(
            membership=self.membership,
            reports=self.reports,
            heartbeat=Heartbeat(self.membership, rng),
            status=StatusReporter(self.membership, self._measure, identity.address, self.measure_every),
            assignments=assignments,
            files=files,
            supervisor=self.supervisor,
            log_retention=LogRetention(folder=self.context.engine_logs, assignments=assignments, now=utc_now),
        )

    async def _builds(self) -> tuple[EngineBuild, ...]:
        await trio.lowlevel.checkpoint()
        return self.status.engines

    async def _measure(self) -> WorkerStatus:
        await trio.lowlevel.checkpoint()
        return self.status

    # --- asking the worker's own port

    async def ask(
        self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of one request with the forward key (or ``authorization``), over a connection of its own."""
        fields = {"authorization": f"Bearer {FORWARD_KEY}", **headers}
        return await ask(self.port, path, method=method, body=body, headers=fields)

    async def through(self, engine_port: int, path: str = "/v1/models", **kinds: Any) -> tuple[int, bytes]:
        """The same, to an engine."""
        return await self.ask(f"/proxy{path}", x_target_port=str(engine_port), **kinds)


async def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """One request to a loopback port, read to the end of the connection."""
    lines = [f"{method} {path} HTTP/1.1", "host: test", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        answer = b""
        while piece := await stream.receive_some(65536):
            answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


async def _no_facts(source: ModelSource) -> ModelFacts:
    await trio.lowlevel.checkpoint()
    return ModelFacts(architecture=source.readable)


def engine_command(*arguments: str) -> str:
    """A fake engine as a custom command."""
    return " ".join([sys.executable, "-m", "tests.fakes.engine", "--port", "{port}", *arguments])


def custom_model(*arguments: str, **fields: Any) -> Model:
    given: dict[str, Any] = {
        "id": 1,
        "name": "m",
        "source": NOWHERE,
        "backend": "custom",
        "command": engine_command(*arguments),
        "health_path": "/health",
        "env": {"PYTHONPATH": str(ROOT)},
        **fields,
    }
    return Model(**given)


def instance_of(model: Model, key: int = 1, **fields: Any) -> ModelInstance:
    given: dict[str, Any] = {
        "id": key,
        "name": f"{model.name}-{key}",
        "model_id": model.id,
        "model_name": model.name,
        "source": model.source,
        "generation": model.generation,
        "placement": Placement(worker_id=1),
        "state": InstanceState.SCHEDULED,
        **fields,
    }
    return ModelInstance(**given)


def kill_leftovers(folder: Path) -> None:
    """End the engines on record below ``folder``, whatever became of the test."""
    for state in folder.glob("**/run/*.json"):
        try:
            os.killpg(int(json.loads(state.read_text())["pid"]), signal.SIGKILL)
        except (ProcessLookupError, ValueError, KeyError):
            continue
