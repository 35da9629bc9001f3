"""The metrics of the daemon's own process: event loop, tasks, threads, descriptors and memory."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector

from gpustack import __commit__, __version__
from gpustack.nursery.limiter import LimiterStatistics, limiters

from . import registry
from .family import Samples

_LOOK_EVERY = 0.5
_WINDOW = 15.0
_DECLARED = frozenset(metric.name for metric in registry.METRICS)


@attrs.define(eq=False, repr=False)
class LoopLag:
    """A service that measures how late the event loop wakes a sleeping task, and keeps the worst of 15 to 30 s."""

    name: str = "event-loop-lag"
    _begun: float = 0.0
    _former: float = 0.0
    _present: float = 0.0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Measure until cancelled."""
        self._begun = trio.current_time()
        task_status.started()
        while True:
            due = trio.current_time() + _LOOK_EVERY
            await trio.sleep_until(due)
            self._note(trio.current_time(), trio.current_time() - due)

    def _note(self, now: float, late: float) -> None:
        if now - self._begun >= _WINDOW:
            self._begun, self._former, self._present = now, self._present, 0.0
        self._present = max(self._present, late)

    @property
    def worst(self) -> float:
        """Seconds, of the last 15 to 30 s."""
        return max(self._former, self._present)

    def __repr__(self) -> str:
        return f"<LoopLag: {self.worst:.3f} s at worst>"


@attrs.frozen(kw_only=True)
class ProcessObservation:
    """What must be observed in the Trio thread. ``lag`` is in seconds."""

    lag: float
    tasks: int
    threads: Sequence[LimiterStatistics] = ()


def observe_process(lag: LoopLag) -> ProcessObservation:
    """Observe the process. Call it in the Trio thread."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    return ProcessObservation(lag=lag.worst, tasks=tasks, threads=limiters())


def sample_process(state: ProcessObservation, samples: Samples) -> list[Family]:
    """Add the samples of ``state``; returns the families of the operating system. Reads /proc: call it in a thread."""
    samples.add(registry.BUILD, (__version__, __commit__), 1)
    samples.add(registry.LOOP_LAG, (), state.lag)
    samples.add(registry.TASKS, (), state.tasks)
    busy: dict[str, tuple[int, int]] = {}
    for use in state.threads:
        # Limiters may share a name: that of a server and that of the worker in the same process.
        so_far = busy.get(use.name, (0, 0))
        busy[use.name] = (so_far[0] + use.busy, so_far[1] + use.waiting)
    for name, (at_work, waiting) in busy.items():
        samples.add(registry.THREADS_BUSY, (name,), at_work)
        samples.add(registry.THREADS_WAITING, (name,), waiting)
    found = ProcessCollector(registry=None).collect()
    return [family for family in found if all(sample.name in _DECLARED for sample in family.samples)]
