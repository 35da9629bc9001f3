"""The load of the cluster: averages over its ready workers, now and over the last hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import attrs
import trio

from gpustack.domain.load import UNKNOWN_LOAD, MemoryLoad, WorkerLoad
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker, WorkerState
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.ticker import ticks
from gpustack.server.live_status import LiveStatus

SAMPLE_EVERY = 60.0
KEPT = 60
"""Samples: one hour. They are in memory only."""


@attrs.frozen(kw_only=True)
class ClusterLoad:
    """Percent, each the mean of what was measured; ``None`` where nothing was."""

    cpu: float | None = None
    ram: float | None = None
    gpu: float | None = None
    vram: float | None = None

    @property
    def is_known(self) -> bool:
        return any(value is not None for value in (self.cpu, self.ram, self.gpu, self.vram))


@attrs.frozen
class LoadSample:
    """The load at an instant."""

    at: datetime
    load: ClusterLoad


@attrs.frozen(kw_only=True)
class _WorkerRates:
    """What one worker measured, percent; an entry for each device."""

    cpu: float | None
    ram: float | None
    gpu: tuple[float | None, ...]
    vram: tuple[float | None, ...]


def cluster_load(snapshot: Snapshot, live: LiveStatus) -> ClusterLoad:
    """The load now: host figures averaged over workers, device figures over devices.

    Workers that are not ready are left out: their last report is old.
    """
    return _load([_rates(worker, live.of(worker.id) or UNKNOWN_LOAD) for worker in _ready(snapshot)])


def _ready(snapshot: Snapshot) -> list[Worker]:
    return [w for w in snapshot.workers.values() if w.condition.state is WorkerState.READY]


def _rates(worker: Worker, load: WorkerLoad) -> _WorkerRates:
    pairs = zip(worker.status.gpu_devices, load.gpu_devices, strict=False)
    devices = [(device, measured) for device, measured in pairs if device.fault is None]
    return _WorkerRates(
        cpu=load.cpu,
        ram=_share(load.memory, worker.status.memory.total),
        gpu=tuple(measured.core for _, measured in devices),
        vram=tuple(_share(measured.memory, device.memory.total) for device, measured in devices),
    )


def _load(measured: Sequence[_WorkerRates]) -> ClusterLoad:
    return ClusterLoad(
        cpu=_mean(one.cpu for one in measured),
        ram=_mean(one.ram for one in measured),
        gpu=_mean(rate for one in measured for rate in one.gpu),
        vram=_mean(rate for one in measured for rate in one.vram),
    )


def _share(memory: MemoryLoad, total: int | None) -> float | None:
    if memory.utilization_rate is not None:
        return memory.utilization_rate
    return None if memory.used is None or not total else 100.0 * memory.used / total


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None


@attrs.define(eq=False, repr=False)
class LoadHistory:
    """Owns the samples; takes one every ``SAMPLE_EVERY`` seconds. Lets the loads of deleted workers be forgotten."""

    _snapshot: Callable[[], Snapshot]
    _live: LiveStatus
    _now: Callable[[], datetime]
    _samples: deque[LoadSample] = attrs.field(factory=lambda: deque(maxlen=KEPT))
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("load-history"))
    name: str = "load-history"

    @property
    def samples(self) -> tuple[LoadSample, ...]:
        """Oldest first."""
        return tuple(self._samples)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async for _ in ticks(SAMPLE_EVERY):
            self.sample()

    def sample(self) -> None:
        """Take a sample, unless nothing is known."""
        snapshot = self._snapshot()
        self._live.keep_only(snapshot.workers)
        measured: list[_WorkerRates] = []
        for worker in _ready(snapshot):
            with self._faults.row(worker.id):
                measured.append(_rates(worker, self._live.of(worker.id) or UNKNOWN_LOAD))
        load = _load(measured)
        if load.is_known:
            self._samples.append(LoadSample(self._now(), load))

    def __repr__(self) -> str:
        return f"<LoadHistory: {len(self._samples)} of {KEPT} samples>"
