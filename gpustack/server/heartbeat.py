"""When each worker was last heard, by the server's own monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

import attrs


@attrs.define(eq=False, repr=False)
class HeartbeatTimes:
    """The one owner of heartbeat times. A worker's own clock is never consulted."""

    _clock: Callable[[], float]
    _known: dict[int, float] = attrs.field(factory=dict)
    """Since when we know of each worker: its lease began then, heard or not."""
    _heard: dict[int, float] = attrs.field(factory=dict)
    _untold: set[int] = attrs.field(factory=set)
    """Those heard here, of whom the other servers have not been told yet."""
    _judging_since: float = -math.inf

    def heard(self, worker_id: int) -> None:
        """A heartbeat, a status or any other word of the worker arrived now."""
        self._heard[worker_id] = self._clock()
        self._known.setdefault(worker_id, self._heard[worker_id])
        self._untold.add(worker_id)

    def heard_elsewhere(self, worker_id: int, ago: float) -> None:
        """Another server heard the worker ``ago`` seconds ago."""
        if worker_id in self._known:  # else it was deleted, or is news here: then its lease is full
            at = self._clock() - ago
            self._heard[worker_id] = max(self._heard.get(worker_id, at), at)

    def take_untold(self) -> Mapping[int, float]:
        """How many seconds ago those were heard of whom the other servers do not know; they count as told."""
        now = self._clock()
        taken = {worker_id: now - self._heard[worker_id] for worker_id in self._untold}
        self._untold.clear()
        return taken

    def put_back(self, worker_ids: Iterable[int]) -> None:
        """The other servers could not be told of these."""
        self._untold.update(set(worker_ids) & self._heard.keys())

    def drop(self, worker_id: int) -> None:
        """The worker was deleted."""
        self._known.pop(worker_id, None)
        self._heard.pop(worker_id, None)
        self._untold.discard(worker_id)

    def refill(self) -> None:
        """From now on we judge: nobody has been silent so far, for those may have spoken to who judged before."""
        self._judging_since = self._clock()

    def of(self, worker_ids: Collection[int]) -> Mapping[int, float]:
        """The leases of these workers, a copy; those of all others are forgotten.

        One that has no lease yet gets a full one: after a (re)start of ours nobody has been silent so far.
        """
        for gone in (self._known.keys() | self._heard.keys()) - set(worker_ids):
            self.drop(gone)
        now, floor, heard = self._clock(), self._judging_since, self._heard
        return {
            worker_id: max(self._known.setdefault(worker_id, now), heard.get(worker_id, floor), floor)
            for worker_id in worker_ids
        }

    def last_heard(self, worker_id: int) -> float | None:
        """Seconds on the server's clock, or ``None`` for a worker not heard since we started."""
        return self._heard.get(worker_id)

    def has_spoken(self, worker_id: int) -> bool:
        """Whether it was heard since we judge: a lease that is full because we have begun is no sign of life."""
        heard = self._heard.get(worker_id)
        return heard is not None and heard >= self._judging_since

    def __repr__(self) -> str:
        now = self._clock()
        oldest = max((now - self._heard.get(key, at) for key, at in self._known.items()), default=0.0)
        return f"<Leases: {len(self._known)} workers, the longest silent for {oldest:.0f} s>"
