"""When each worker was last heard, by the server's own monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

import attrs


@attrs.define(eq=False, repr=False)
class HeartbeatTimes:
    """Owns when each worker was last heard, on the server's clock; a worker's own clock is never used."""

    _clock: Callable[[], float]
    _known: dict[int, float] = attrs.field(factory=dict)
    """Since when this server knows of each worker: its silence is counted from then at the earliest."""
    _heard: dict[int, float] = attrs.field(factory=dict)
    _untold: set[int] = attrs.field(factory=set)
    """Workers heard here of which the other servers have not been told yet."""
    _judging_since: float = -math.inf

    def heard(self, worker_id: int) -> None:
        """A heartbeat, a status or any other request of the worker arrived now."""
        self._heard[worker_id] = self._clock()
        self._known.setdefault(worker_id, self._heard[worker_id])
        self._untold.add(worker_id)

    def heard_elsewhere(self, worker_id: int, ago: float) -> None:
        """Another server heard the worker ``ago`` seconds ago."""
        if worker_id in self._known:  # else it was deleted, or is new here: then its silence begins now
            at = self._clock() - ago
            self._heard[worker_id] = max(self._heard.get(worker_id, at), at)

    def take_untold(self) -> Mapping[int, float]:
        """Seconds ago that each untold worker was heard; they count as told from now on."""
        now = self._clock()
        taken = {worker_id: now - self._heard[worker_id] for worker_id in self._untold}
        self._untold.clear()
        return taken

    def put_back(self, worker_ids: Iterable[int]) -> None:
        """These could not be told: tell them the next time."""
        self._untold.update(set(worker_ids) & self._heard.keys())

    def drop(self, worker_id: int) -> None:
        """The worker was deleted."""
        self._known.pop(worker_id, None)
        self._heard.pop(worker_id, None)
        self._untold.discard(worker_id)

    def refill(self) -> None:
        """This server judges from now on. Nobody counts as silent before: workers spoke to the former leader."""
        self._judging_since = self._clock()

    def of(self, worker_ids: Collection[int]) -> Mapping[int, float]:
        """When each of these workers was last heard; at the earliest since this server knows it, or judges. Others are
        forgotten.
        """
        for deleted in (self._known.keys() | self._heard.keys()) - set(worker_ids):
            self.drop(deleted)
        now, floor, heard = self._clock(), self._judging_since, self._heard
        return {
            worker_id: max(self._known.setdefault(worker_id, now), heard.get(worker_id, floor), floor)
            for worker_id in worker_ids
        }

    def last_heard(self, worker_id: int) -> float | None:
        """An instant on the server's clock, in seconds; ``None`` for a worker not heard since this server started."""
        return self._heard.get(worker_id)

    def has_spoken(self, worker_id: int) -> bool:
        """Whether the worker itself was heard since this server judges."""
        heard = self._heard.get(worker_id)
        return heard is not None and heard >= self._judging_since

    def __repr__(self) -> str:
        now = self._clock()
        oldest = max((now - self._heard.get(key, at) for key, at in self._known.items()), default=0.0)
        return f"<HeartbeatTimes: {len(self._known)} workers, the longest silent for {oldest:.0f} s>"
