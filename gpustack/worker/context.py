"""What the runs of all instances share: the owners of files, ports and reports, folders, the clock."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import attrs
import trio

from gpustack.domain.instance import Placement
from gpustack.domain.worker import EngineBuild
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.model_file import ModelFiles
from gpustack.worker.ports import PortLeases
from gpustack.worker.probe import Prober
from gpustack.worker.report import ReportQueue
from gpustack.worker.shutdown import ShutdownMode


@attrs.frozen(kw_only=True)
class WorkerContext:
    """Made once in ``cli/daemon/worker_role.py`` and handed to every run of an instance."""

    files: ModelFiles
    ports: PortLeases
    reports: ReportQueue
    prober: Prober
    keys: EngineKeys
    rng: random.Random
    """Makes the keys of engines."""
    shutdown: ShutdownMode
    builds: Callable[[], Awaitable[tuple[EngineBuild, ...]]]
    """Waits until the machine has been measured."""
    device_type: Callable[[Placement], str | None]
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

    def state_file(self, instance_id: int) -> Path:
        """The state file of an instance's engine, for the next daemon."""
        return self.state_dir / f"instance-{instance_id}.json"

    def log_file(self, instance_id: int) -> Path:
        """Where the engine of an instance writes."""
        return self.engine_logs / f"{instance_id}.log"

    @property
    def engine_logs(self) -> Path:
        """The folder of what engines write."""
        return self.log_dir / "serve"
