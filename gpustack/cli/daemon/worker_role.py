"""The worker role of the daemon: the same whether its server is in this process or elsewhere."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import trio

from gpustack import __version__
from gpustack.artifacts.cache import Cache
from gpustack.artifacts.tools import Tools
from gpustack.cli.daemon.context import utc_now
from gpustack.cli.daemon.engine_build import build_finder, python_environments
from gpustack.cli.daemon.exporter import start_worker_exporter
from gpustack.cli.daemon.listener import LOOPBACK, worker_is_private
from gpustack.cli.daemon.model_file import facts_reader, model_cache
from gpustack.cli.daemon.ray import WorkerMachine, ray_machine
from gpustack.config.options import Options
from gpustack.config.secret import keep_token
from gpustack.domain.device import Device
from gpustack.domain.worker import SystemReserved, WorkerStatus
from gpustack.engines.visibility import visible_names
from gpustack.hardware.address import find_address
from gpustack.hardware.detection import DeviceMonitor
from gpustack.hardware.engine_build import BuildFinder, llama_server_fault
from gpustack.hardware.host import HostMonitor
from gpustack.hardware.monitor import HardwareMonitor
from gpustack.hardware.override import override_of
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reactor import Reactor
from gpustack.http1.server import HttpServer
from gpustack.metrics.process_sample import LoopLag
from gpustack.nursery.tier import Tier
from gpustack.ray.machine import RayMachine
from gpustack.remote.failover_client import FailoverClient
from gpustack.remote.pooled_client import PooledClient
from gpustack.remote.server_client import ServerClient
from gpustack.worker.assignment_watcher import AssignmentWatcher
from gpustack.worker.context import WorkerContext
from gpustack.worker.device_use import DeviceUses
from gpustack.worker.engine_environment import EngineEnvironments
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.engine_process import inherited_environment
from gpustack.worker.eviction import FileEvictor
from gpustack.worker.exporter import WorkerCollector
from gpustack.worker.file_server import FileServer
from gpustack.worker.flag_lists import FlagLists
from gpustack.worker.forward import ForwardHandler
from gpustack.worker.heartbeat import Heartbeat, StatusReporter
from gpustack.worker.identity import WorkerIdentity, host_name, load_servers, worker_name, worker_uuid
from gpustack.worker.log_retention import LogRetention
from gpustack.worker.membership import Membership
from gpustack.worker.model_disk import ModelDiskFinder
from gpustack.worker.model_file import ModelFiles
from gpustack.worker.peer import PeerFinder
from gpustack.worker.ports import PortLeases
from gpustack.worker.probe import Prober
from gpustack.worker.ray_node import RayNode
from gpustack.worker.report import ReportQueue
from gpustack.worker.services import WorkerParts, work_services
from gpustack.worker.shutdown import drain_worker
from gpustack.worker.supervisor import InstanceSupervisor
from gpustack.worker.tool_fetcher import ToolFetcher, ToolSettings

if TYPE_CHECKING:
    from gpustack.cli.daemon.context import DaemonContext


log = logging.getLogger(__name__)


@attrs.define(eq=False)
class WorkerRole:
    """Built beside the loop, started in the tree."""

    _daemon: DaemonContext
    _pool: ConnectionPool
    _front: HttpServer
    _parts: WorkerParts
    _collector: Callable[[LoopLag], WorkerCollector]
    keys: EngineKeys
    """The keys that the engines of this daemon ask for."""
    _state_dir: Path
    ray: RayMachine | None = None
    """The Ray of this machine, which the tree starts before everything else of the role."""

    @classmethod
    def build(cls, daemon: DaemonContext, reactor: Reactor) -> WorkerRole:
        """Import what a worker needs and put its services together. Blocking: run it in a thread."""
        options = daemon.loaded.options
        identity = _identity(daemon)
        pool = ConnectionPool(name="engine-pool", reactor=reactor)
        membership = _membership(daemon, identity, pool)
        reports = ReportQueue(membership, daemon.rng)
        assignments = AssignmentWatcher(membership, daemon.rng)
        keys = EngineKeys()
        ports = PortLeases(options.service_port_range.first, options.service_port_range.last)
        rpc = options.rpc_server_port_range
        tools = Tools(options.bin_dir, daemon.rng)
        host = HostMonitor(time.monotonic)
        environments = python_environments(options, os.environ)
        finder = build_finder(options, environments)
        hardware = _hardware(options, host, finder, daemon.loaded.environment.cann_chip)
        ray = ray_machine(
            daemon,
            WorkerMachine(uuid=identity.worker_uuid, address=identity.address, hardware=hardware),
        )
        cache = model_cache(daemon.loaded, daemon.rng)
        model_disk = ModelDiskFinder(cache.root, options.evict_unused_files)
        files = _model_files(options, cache, assignments, reports, PeerFinder(membership, pool))
        engine_environments = EngineEnvironments(
            environments=environments,
            finder=finder,
            builds=hardware.builds,
            assignments=assignments,
            now=utc_now,
        )
        device_uses = DeviceUses(
            state_dir=options.data_dir / "run", assigned=lambda: assignments.latest.value
        )
        context = WorkerContext(
            files=files,
            ports=ports,
            rpc_ports=PortLeases(rpc.first, rpc.last, "--rpc-server-port-range"),
            reports=reports,
            prober=Prober(pool, keys),
            keys=keys,
            rng=daemon.rng,
            shutdown=daemon.shutdown_mode,
            environments=engine_environments,
            device_type=hardware.device_type,
            device_names=lambda indexes: visible_names(hardware.latest.gpu_devices, indexes),
            device_memory=hardware.device_memory,
            device_use=device_uses.of,
            cann_version=daemon.loaded.environment.cann_version,
            cann_chip=hardware.cann_chip,
            gfx=hardware.gfx,
            flag_lists=FlagLists(options.data_dir / "flags", inherited_environment(os.environ)),
            cpu_count=host.look(utc_now()).cpu.total,
            data_dir=options.data_dir,
            log_dir=options.log_dir,
            now=utc_now,
            stop_grace=options.engine_stop_grace,
            address=identity.address,
            peer_port=identity.port,
            rpc_server_args=options.rpc_server_args,
            ray=ray,
        )
        forward = ForwardHandler(
            membership,
            ports,
            keys,
            pool,
            context.log_file,
            facts_reader(daemon.loaded, daemon.rng),
            FileServer(cache.shared),
            utc_now,
        )
        parts = WorkerParts(
            membership=membership,
            reports=reports,
            heartbeat=Heartbeat(membership, daemon.rng),
            status=StatusReporter(
                membership, _measure(hardware, device_uses, ray, model_disk), identity.address
            ),
            assignments=assignments,
            files=files,
            supervisor=InstanceSupervisor(context, assignments, daemon.rng),
            log_retention=LogRetention(folder=context.engine_logs, assignments=assignments, now=utc_now),
            tools=_tool_fetcher(daemon, tools, hardware),
            ray=None if ray is None else RayNode(assignments, ray),
            environments=engine_environments,
        )

        def collector(lag: LoopLag) -> WorkerCollector:
            return WorkerCollector(
                membership,
                assignments,
                parts.supervisor,
                ports,
                keys,
                pool,
                lag,
                lambda: hardware.latest,
                identity.address,
            )

        front = daemon.listeners.serve(
            HttpServer("worker", daemon.listeners.at("worker"), handler=forward, reactor=reactor)
        )
        return cls(daemon, pool, front, parts, collector, keys, context.state_dir, ray)

    async def read_engine_keys(self) -> None:
        """Read the keys of engines that a former daemon left, so that they can be asked before they are adopted."""
        await self.keys.expect(self._state_dir)

    async def start(self, edge: Tier, work: Tier) -> None:
        """Start the worker's port and its services."""
        await edge.start(self._pool)
        await edge.start(self._front)
        await start_worker_exporter(
            edge, self._daemon.listeners, self._front.reactor, self._collector, self.ray, self._pool
        )
        for service in work_services(self._parts):
            await work.start(service)

    async def drain(self) -> None:
        """Tell the server that this worker stops, so that it places nothing here while the engines end.

        With ``--leave`` the worker is emptied first.
        """
        options = self._daemon.loaded.options
        if options.leave:
            await drain_worker(self._parts.membership, self._parts.assignments, options.leave_timeout)
        await self._parts.membership.say_goodbye()

    async def finish(self, within: float) -> None:
        """Wait for requests to engines that are under way here, ``within`` seconds at most."""
        with trio.move_on_after(within):
            await self._front.drained()


def _membership(daemon: DaemonContext, identity: WorkerIdentity, pool: ConnectionPool) -> Membership:
    """This worker's registration with its server, and the client for it."""
    options = daemon.loaded.options
    client: PooledClient | FailoverClient
    if daemon.loaded.role == "server+worker":
        # They start and end together. The certificate does not name the loopback address, so it is trusted itself.
        trust = None if daemon.certificate is None else daemon.certificate.for_ourselves
        client = PooledClient.to(daemon.url, pool, trust=trust)
    else:
        client = FailoverClient(daemon.url, lambda url: PooledClient.to(url, pool), daemon.rng)
        client.learn(load_servers(options.data_dir))
    # Read at each use: beside a server the file changes once the servers on the database have agreed on a token.
    return Membership(
        ServerClient(client),
        identity,
        lambda: options.token or keep_token(options.data_dir, _no_token),
        daemon.rng,
    )


def _no_token(_: int) -> str:
    raise AssertionError("configuration sees to it that a worker without a server in it has a token")


def _identity(daemon: DaemonContext) -> WorkerIdentity:
    """Who this worker is, and where it is reached."""
    options = daemon.loaded.options
    address = options.worker_ip or (LOOPBACK if worker_is_private(daemon.loaded) else None)
    server = urlsplit(daemon.url).hostname
    return WorkerIdentity(
        name=worker_name(options.data_dir, options.worker_name),
        worker_uuid=worker_uuid(options.data_dir),
        hostname=host_name(),
        address=lambda: address or find_address(server) or LOOPBACK,
        port=daemon.listeners.port("worker") or 0,
        metrics_port=daemon.listeners.port("worker-metrics"),
        labels={"os": platform.system().lower(), "arch": platform.machine().lower()},
        system_reserved=SystemReserved(
            ram=options.system_reserved.ram_bytes, vram=options.system_reserved.vram_bytes
        ),
        version=__version__,
        data_dir=options.data_dir,
        run=secrets.token_hex(8),
    )


def _model_files(
    options: Options, cache: Cache, assignments: AssignmentWatcher, reports: ReportQueue, peers: PeerFinder
) -> ModelFiles:
    return ModelFiles(
        cache,
        assignments,
        reports,
        token=options.huggingface_token,
        find_peers=peers.find,
        evictor=FileEvictor(cache, reports, options.evict_unused_files),
        now=utc_now,
    )


def _hardware(
    options: Options, host: HostMonitor, finder: BuildFinder, cann_chip: str | None
) -> HardwareMonitor:
    """What measures this machine; the configuration can override what it finds."""
    return HardwareMonitor(
        utc_now,
        host,
        DeviceMonitor(),
        finder,
        None if options.resources is None else override_of(options.resources),
        None if options.llama_server_path is None else str(options.llama_server_path),
        cann_chip=cann_chip,
    )


def _measure(
    hardware: HardwareMonitor, device_uses: DeviceUses, ray: RayMachine | None, model_disk: ModelDiskFinder
) -> Callable[[], Awaitable[WorkerStatus]]:
    """What the server is told of this machine."""

    async def look() -> WorkerStatus:
        status = await device_uses.over(await hardware(), hardware.uses)
        disk = await model_disk.among(status.filesystem)
        return attrs.evolve(status, ray=None if ray is None else ray.status, model_disk=disk)

    return look


def _tool_fetcher(daemon: DaemonContext, tools: Tools, hardware: HardwareMonitor) -> ToolFetcher:
    """The service that fetches llama.cpp's programs from ``--tools-download-base-url``, if that is set."""

    async def devices() -> Sequence[Device]:
        await hardware.builds()  # waits for the first look
        return hardware.latest.gpu_devices

    settings = ToolSettings(
        base=daemon.loaded.options.tools_download_base_url,
        static=daemon.loaded.environment.disable_dynamic_link_llama_box,
        cuda=daemon.loaded.environment.cuda_version,
    )
    return ToolFetcher(
        tools=tools, settings=settings, devices=devices, try_out=llama_server_fault, rng=daemon.rng
    )
