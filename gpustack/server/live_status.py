"""What each worker measured last of what changes all the time: in the memory of the server, in no record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import attrs

from gpustack.domain.load import WorkerLoad


@attrs.frozen
class MeasuredLoad:
    """A load, when it was reported on the server's clock, and its number among all loads that differed."""

    load: WorkerLoad
    at: float
    number: int


@attrs.define(eq=False, repr=False)
class LiveStatus:
    """Owns the loads. They are unknown from the start of the server until a worker reports, here or to another server.

    A worker that fell silent keeps the load that it reported last.
    """

    _clock: Callable[[], float]
    _measured: dict[int, MeasuredLoad] = attrs.field(factory=dict)
    _own: set[int] = attrs.field(factory=set)
    """Workers that reported to this server last."""
    number: int = 0
    """Of the newest load that differed from the one before it."""

    def of(self, worker_id: int) -> WorkerLoad | None:
        """The load that the worker reported last, if it is known."""
        measured = self._measured.get(worker_id)
        return None if measured is None else measured.load

    def reported(self, worker_id: int, load: WorkerLoad) -> None:
        """The worker reported the load to this server, now."""
        self._own.add(worker_id)
        self._take(worker_id, load, self._clock())

    def reported_elsewhere(self, worker_id: int, load: WorkerLoad, ago: float) -> None:
        """The worker reported the load to another server, ``ago`` seconds ago. What is older than known is left."""
        at, known = self._clock() - ago, self._measured.get(worker_id)
        if known is None or known.at < at:
            self._own.discard(worker_id)
            self._take(worker_id, load, at)

    def _take(self, worker_id: int, load: WorkerLoad, at: float) -> None:
        known = self._measured.get(worker_id)
        if known is not None and known.load == load:
            self._measured[worker_id] = MeasuredLoad(known.load, at, known.number)
            return
        self.number += 1
        self._measured[worker_id] = MeasuredLoad(load, at, self.number)

    def changed_since(self, number: int) -> Mapping[int, int]:
        """The workers whose load changed after the one of that number, each with the number of its newest."""
        if number >= self.number:
            return {}
        return {key: one.number for key, one in self._measured.items() if one.number > number}

    def own(self) -> Mapping[int, tuple[WorkerLoad, float]]:
        """The loads that were reported to this server, each with the seconds since then."""
        now = self._clock()
        found = ((key, self._measured[key]) for key in sorted(self._own))
        return {key: (one.load, now - one.at) for key, one in found}

    def keep_only(self, worker_ids: Collection[int]) -> None:
        """Forget the loads of all workers but these; the others were deleted."""
        for deleted in self._measured.keys() - set(worker_ids):
            del self._measured[deleted]
            self._own.discard(deleted)

    def __repr__(self) -> str:
        return f"<LiveStatus: the loads of {len(self._measured)} workers, {len(self._own)} reported here>"
