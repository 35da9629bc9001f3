"""When each worker was last heard, by the server's own monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs


@attrs.define(eq=False, repr=False)
class Leases:
    """The one owner of heartbeat times. A worker's own clock is never consulted."""

    _clock: Callable[[], float]
    _heard: dict[int, float] = attrs.field(factory=dict)

    def start_full(self, worker_ids: Iterable[int]) -> None:
        """After a (re)start nobody has been silent yet: every lease counts from now."""
        now = self._clock()
        self._heard = {worker_id: now for worker_id in worker_ids}

    def heard(self, worker_id: int) -> None:
        """A heartbeat, a status or any other word of the worker arrived now."""
        self._heard[worker_id] = self._clock()

    def drop(self, worker_id: int) -> None:
        """The worker was deleted."""
        self._heard.pop(worker_id, None)

    def last_heard(self, worker_id: int) -> float | None:
        """Seconds on the server's clock, or ``None`` for a worker never heard."""
        return self._heard.get(worker_id)

    def all(self) -> Mapping[int, float]:
        """A copy of the table."""
        return dict(self._heard)

    def __repr__(self) -> str:
        now = self._clock()
        oldest = max((now - at for at in self._heard.values()), default=0.0)
        return f"<Leases: {len(self._heard)} workers, the longest silent for {oldest:.0f} s>"
