"""The load of the cluster: averages over its ready workers, now and over the last hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import attrs
import trio

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker, WorkerState
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.ticker import ticks

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
class _WorkerLoad:
    """What one worker measured, percent; an entry for each device."""

    cpu: float | None
    ram: float | None
    gpu: tuple[float | None, ...]
    vram: tuple[float | None, ...]


def load_of(snapshot: Snapshot) -> ClusterLoad:
    """The load now: host figures averaged over workers, device figures over devices.

    Workers that are not ready are left out: their last report is old.
    """
    return _load([_rates(worker) for worker in _ready(snapshot)])


def _ready(snapshot: Snapshot) -> list[Worker]:
    return [w for w in snapshot.workers.values() if w.condition.state is WorkerState.READY]


def _rates(worker: Worker) -> _WorkerLoad:
    status = worker.status
    devices = [device for device in status.gpu_devices if device.fault is None]
    return _WorkerLoad(
        cpu=status.cpu.utilization_rate,
        ram=_share(status.memory.utilization_rate, status.memory.used, status.memory.total),
        gpu=tuple(device.core.utilization_rate for device in devices if device.core is not None),
        vram=tuple(
            _share(device.memory.utilization_rate, device.memory.used, device.memory.total)
            for device in devices
        ),
    )


def _load(measured: Sequence[_WorkerLoad]) -> ClusterLoad:
    return ClusterLoad(
        cpu=_mean(one.cpu for one in measured),
        ram=_mean(one.ram for one in measured),
        gpu=_mean(rate for one in measured for rate in one.gpu),
        vram=_mean(rate for one in measured for rate in one.vram),
    )


def _share(rate: float | None, used: int | None, total: int | None) -> float | None:
    if rate is not None:
        return rate
    return None if used is None or not total else 100.0 * used / total


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None


@attrs.define(eq=False, repr=False)
class LoadHistory:
    """Owns the samples; takes one every ``SAMPLE_EVERY`` seconds."""

    _snapshot: Callable[[], Snapshot]
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
        measured: list[_WorkerLoad] = []
        for worker in _ready(self._snapshot()):
            with self._faults.row(worker.id):
                measured.append(_rates(worker))
        load = _load(measured)
        if load.is_known:
            self._samples.append(LoadSample(self._now(), load))

    def __repr__(self) -> str:
        return f"<LoadHistory: {len(self._samples)} of {KEPT} samples>"
