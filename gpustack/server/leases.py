"""When each worker was last heard, by the server's own monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

import attrs


@attrs.define(eq=False, repr=False)
class Leases:
    """The one owner of heartbeat times. A worker's own clock is never consulted."""

    _clock: Callable[[], float]
    _since: dict[int, float] = attrs.field(factory=dict)
    _spoken: set[int] = attrs.field(factory=set)
    """Those really heard: the leases of the others only began because we did."""
    _untold: set[int] = attrs.field(factory=set)
    """Those heard here, of whom the other servers have not been told yet."""
    _judging_since: float = -math.inf

    def heard(self, worker_id: int) -> None:
        """A heartbeat, a status or any other word of the worker arrived now."""
        self._since[worker_id] = self._clock()
        self._spoken.add(worker_id)
        self._untold.add(worker_id)

    def heard_elsewhere(self, worker_id: int, ago: float) -> None:
        """Another server heard the worker ``ago`` seconds ago."""
        if worker_id in self._since:  # else it was deleted, or is not known here yet: then its lease is full
            self._since[worker_id] = max(self._since[worker_id], self._clock() - ago)
            self._spoken.add(worker_id)

    def take_untold(self) -> Mapping[int, float]:
        """How many seconds ago those were heard of whom the other servers do not know; they count as told."""
        now = self._clock()
        taken = {worker_id: now - self._since[worker_id] for worker_id in self._untold}
        self._untold.clear()
        return taken

    def put_back(self, worker_ids: Iterable[int]) -> None:
        """The other servers could not be told of these."""
        self._untold.update(set(worker_ids) & self._since.keys())

    def drop(self, worker_id: int) -> None:
        """The worker was deleted."""
        self._since.pop(worker_id, None)
        self._spoken.discard(worker_id)
        self._untold.discard(worker_id)

    def refill(self) -> None:
        """From now on we judge: nobody has been silent so far, for those may have spoken to who judged before."""
        self._judging_since = self._clock()

    def of(self, worker_ids: Collection[int]) -> Mapping[int, float]:
        """The leases of these workers, a copy; those of all others are forgotten.

        One that has no lease yet gets a full one: after a (re)start of ours nobody has been silent so far.
        """
        for gone in self._since.keys() - set(worker_ids):
            self.drop(gone)
        now, floor = self._clock(), self._judging_since
        return {worker_id: max(self._since.setdefault(worker_id, now), floor) for worker_id in worker_ids}

    def last_heard(self, worker_id: int) -> float | None:
        """Seconds on the server's clock, or ``None`` for a worker not heard since we started."""
        return self._since[worker_id] if worker_id in self._spoken else None

    def __repr__(self) -> str:
        now = self._clock()
        oldest = max((now - at for at in self._since.values()), default=0.0)
        return f"<Leases: {len(self._since)} workers, the longest silent for {oldest:.0f} s>"
