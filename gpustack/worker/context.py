"""What the runs of all instances share: the owners of files, ports and reports, folders, the clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import attrs
import trio

from gpustack.engines.engine import PortPool
from gpustack.worker.engine_environment import EngineEnvironments
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.flag_lists import FlagLists
from gpustack.worker.model_file import ModelFiles
from gpustack.worker.ports import PortLeases
from gpustack.worker.probe import LOOPBACK, Prober
from gpustack.worker.report import ReportQueue
from gpustack.worker.shutdown import ShutdownMode


class RayMembership(Protocol):
    """The Ray node of this worker, for gangs whose main process starts the others through Ray."""

    async def until_up(self, tell: Callable[[str], None]) -> None:
        """Return once the node is part of the cluster; ``tell`` is given sentences on what is waited for."""

    async def until_down(self) -> str:
        """Return once the node has left the cluster or died: the sentence that says why."""

    def environment(self) -> Mapping[str, str]:
        """What a driver on this node needs to find the cluster; with secrets."""


@attrs.frozen(kw_only=True)
class WorkerContext:
    """Made once in ``cli/daemon/worker_role.py`` and handed to every run of an instance."""

    files: ModelFiles
    ports: PortLeases
    rpc_ports: PortLeases
    """Of ``--rpc-server-port-range``."""
    reports: ReportQueue
    prober: Prober
    keys: EngineKeys
    rng: random.Random
    """Makes the keys of engines."""
    shutdown: ShutdownMode
    environments: EngineEnvironments
    """Where instances have their builds from."""
    device_type: Callable[[Sequence[int]], str | None]
    """The type of the devices with these indexes; ``None`` for none."""
    device_names: Callable[[Sequence[int]], tuple[str, ...] | None] = lambda indexes: None
    """What visibility variables call the devices with these indexes; ``None``: their indexes."""
    device_memory: Callable[[], Mapping[int, int]] = dict
    """Bytes that each device has in all, by its index; without those that are unknown."""
    device_use: Callable[[int, int], int | None] = lambda instance_id, member: None
    """Bytes of devices that a member of an instance was last seen to hold; ``None`` where that is not told."""
    cann_version: str | None = None
    """Of Ascend's toolkit, as told."""
    cann_chip: Callable[[Sequence[int]], str | None] = lambda indexes: None
    """The line of Ascend chips of the devices with these indexes; ``None`` for others."""
    gfx: Callable[[Sequence[int]], str | None] = lambda indexes: None
    """The compiler's name of the AMD chip with these indexes, such as ``gfx1101``; ``None`` for others."""
    flag_lists: FlagLists | None = None
    """Which parameters the builds here know; ``None``: nobody asks them."""
    address: Callable[[], str] = lambda: LOOPBACK
    """This worker's address as the other workers reach it. Blocks: call it in a thread."""
    peer_port: int = 10150
    """The port of all workers, by which the worker of a gang's main member is known to be there."""
    rpc_server_args: tuple[str, ...] = ()
    ray: RayMembership | None = None
    """This worker's node of the cluster's Ray; ``None`` without ``--enable-ray``."""
    cpu_count: float | None
    data_dir: Path
    log_dir: Path
    now: Callable[[], datetime]
    stop_grace: float = 10.0
    """Seconds an engine gets to end by itself at most; less where the engine says that less will do."""
    orphans_ended: trio.Event = attrs.field(factory=trio.Event)
    """Set once the engines that nobody wants any more have ended. No engine is started before: they hold memory."""

    @property
    def state_dir(self) -> Path:
        """Where the state files of engines are."""
        return self.data_dir / "run"

    def state_file(self, instance_id: int, member: int = 0) -> Path:
        """The state file of the process of an instance's member, for the next daemon."""
        return self.state_dir / f"instance-{instance_id}{_suffix(member)}.json"

    def log_file(self, instance_id: int, member: int = 0) -> Path:
        """Where the process of an instance's member writes."""
        return self.engine_logs / f"{instance_id}{_suffix(member)}.log"

    def port_owner(self, port: int, member: int) -> PortLeases:
        """Whose a port is that a former daemon gave to a member. All of the main one are service ports, whatever the
        ranges are by now."""
        in_rpc_range = self.rpc_ports.first <= port <= self.rpc_ports.last
        return self.rpc_ports if member and in_rpc_range else self.ports

    def leases(self, pool: PortPool) -> PortLeases:
        """The ports of a range."""
        return self.rpc_ports if pool is PortPool.RPC else self.ports

    @property
    def engine_logs(self) -> Path:
        """The folder of what engines write."""
        return self.log_dir / "serve"


def _suffix(member: int) -> str:
    return f"-member-{member}" if member else ""
