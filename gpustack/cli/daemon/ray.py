"""The Ray of this daemon, put together from its options; and what a daemon without Ray does with one that was left."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from gpustack.cli.daemon.context import utc_now
from gpustack.cli.daemon.listener import LOOPBACK
from gpustack.cli.local import ANYWHERE
from gpustack.config.options import Options
from gpustack.config.secret import keep_token
from gpustack.engines.ray import RayPorts
from gpustack.errors import Unavailable
from gpustack.hardware.address import find_address, find_interface
from gpustack.hardware.monitor import HardwareMonitor
from gpustack.identity.derived_keys import ray_token
from gpustack.ray.machine import RayDevices, RayMachine, RaySettings
from gpustack.ray.process import RayPlaces, adopt_ray
from gpustack.worker.engine_process import inherited_environment

if TYPE_CHECKING:
    from gpustack.cli.daemon.context import DaemonContext

log = logging.getLogger(__name__)

_VLLM = "vllm"


@attrs.frozen(kw_only=True)
class WorkerMachine:
    """What the worker of this daemon knows of its machine."""

    uuid: str
    address: Callable[[], str]
    """May block."""
    hardware: HardwareMonitor


def ray_machine(daemon: DaemonContext, worker: WorkerMachine | None) -> RayMachine | None:
    """The owner of this machine's Ray, not started; ``None`` without ``--enable-ray``."""
    options = daemon.loaded.options
    if not options.enable_ray:
        return None
    return RayMachine(
        RaySettings(
            ports=ports_of(options),
            arguments=options.ray_args,
            places=_places(options),
            worker_uuid="" if worker is None else worker.uuid,
            address=_server_address(options) if worker is None else worker.address,
            interface=find_interface,
            token=lambda: ray_token(options.token or keep_token(options.data_dir, secrets.token_hex)),
            environment=_environment,
            devices=_no_devices if worker is None else _devices_of(worker.hardware),
            beside=_nothing_beside if worker is None else _beside(worker.hardware),
            incarnation=lambda: secrets.token_hex(8),
            places_within=daemon.loaded.environment.ray_placement_group_ready_timeout,
            ends=lambda: daemon.shutdown_mode.ends_engines,
            now=utc_now,
        )
    )


async def end_former_ray(options: Options) -> None:
    """End what a daemon with ``--enable-ray`` left here, for this one has none. Bounded."""
    try:
        former = await adopt_ray(_places(options))
    except Unavailable as error:
        log.error("A Ray of a former daemon is still there: reason=%s", error)
        return
    if former is not None:
        log.info("Ending the Ray of a former daemon: pid=%d", former.group.pid)
        await former.release(end=True)


def ports_of(options: Options) -> RayPorts:
    """The ports of Ray, as the options say."""
    return RayPorts(
        node_manager=options.ray_node_manager_port,
        object_manager=options.ray_object_manager_port,
        runtime_env_agent=options.ray_runtime_env_agent_port,
        dashboard_agent_grpc=options.ray_dashboard_agent_grpc_port,
        dashboard_agent_listen=options.ray_dashboard_agent_listen_port,
        metrics_export=options.ray_metrics_export_port,
        first_worker=options.ray_worker_port_range.first,
        last_worker=options.ray_worker_port_range.last,
        gcs=options.ray_port,
        client_server=options.ray_client_server_port,
        dashboard=options.ray_dashboard_port,
    )


def _places(options: Options) -> RayPlaces:
    return RayPlaces(
        state_dir=options.data_dir / "run",
        log_file=options.log_dir / "ray.log",
        folders=options.data_dir / "ray",
    )


def _server_address(options: Options) -> Callable[[], str]:
    def look() -> str:
        return (find_address() or LOOPBACK) if options.host in ANYWHERE else options.host

    return look


def _environment() -> Mapping[str, str]:
    # RAY_* tunes Ray; what authenticates is set by us.
    tuned = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    return {**inherited_environment(os.environ), **tuned}


async def _no_devices() -> RayDevices:
    return RayDevices(cpus=0)


def _devices_of(hardware: HardwareMonitor) -> Callable[[], Awaitable[RayDevices]]:
    async def count() -> RayDevices:
        await hardware.builds()  # waits for the first look
        devices = hardware.latest.gpu_devices
        npus = sum(1 for device in devices if device.type == "npu")
        return RayDevices(gpus=len(devices) - npus, npus=npus)

    return count


async def _nothing_beside() -> Sequence[str | None]:
    return ()


def _beside(hardware: HardwareMonitor) -> Callable[[], Awaitable[Sequence[str | None]]]:
    async def look() -> Sequence[str | None]:
        return [build.path for build in await hardware.builds() if build.engine == _VLLM]

    return look
