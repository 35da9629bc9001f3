"""What the lives of instances share: the owners of files, ports and reports, and where things lie."""

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
    """Handed to every life."""

    files: ModelFiles
    ports: PortLeases
    reports: ReportQueue
    prober: Prober
    keys: EngineKeys
    rng: random.Random
    """Makes the keys of engines."""
    intent: ShutdownMode
    builds: Callable[[], Awaitable[tuple[EngineBuild, ...]]]
    """Waits until the machine has been looked at."""
    device_type: Callable[[Placement], str | None]
    cpu_count: float | None
    data_dir: Path
    log_dir: Path
    now: Callable[[], datetime]
    stop_grace: float = 10.0
    """Seconds an engine gets to end by itself at most; less where the engine says that less will do."""
    cleared: trio.Event = attrs.field(factory=trio.Event)
    """Set once the engines nobody wants any more have ended: before, none is started in the memory they hold."""

    @property
    def state_dir(self) -> Path:
        """Where engines are written down for the next daemon."""
        return self.data_dir / "run"

    def state_file(self, instance_id: int) -> Path:
        """Where the engine of an instance is written down."""
        return self.state_dir / f"instance-{instance_id}.json"

    def log_file(self, instance_id: int) -> Path:
        """Where the engine of an instance writes (behaviour.md s.1.8)."""
        return self.engine_logs / f"{instance_id}.log"

    @property
    def engine_logs(self) -> Path:
        """The folder of what engines write."""
        return self.log_dir / "serve"
