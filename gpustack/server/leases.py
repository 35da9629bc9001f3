"""When each worker was last heard, by the server's own monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import attrs

from gpustack.nursery.wake import Wake


@attrs.define(eq=False, repr=False)
class Leases:
    """The one owner of heartbeat times. A worker's own clock is never consulted."""

    _clock: Callable[[], float]
    _since: dict[int, float] = attrs.field(factory=dict)
    _spoken: set[int] = attrs.field(factory=set)
    """Those really heard: the leases of the others only began because we did."""
    _left: set[int] = attrs.field(factory=set)
    """Those that said they stop. They may be heard while their engines end; only joining again takes it back."""
    news: Wake = attrs.field(factory=Wake)
    """Woken when a worker leaves: whoever judges need not wait for its silence."""

    def joined(self, worker_id: int) -> None:
        """The worker has (re)joined: heard, and not leaving any more."""
        self._left.discard(worker_id)
        self.heard(worker_id)

    def leaves(self, worker_id: int) -> None:
        """The worker said that it stops."""
        self._left.add(worker_id)
        self.news.wake()

    @property
    def left(self) -> frozenset[int]:
        """The workers that said they stop."""
        return frozenset(self._left)

    def heard(self, worker_id: int) -> None:
        """A heartbeat, a status or any other word of the worker arrived now."""
        self._since[worker_id] = self._clock()
        self._spoken.add(worker_id)

    def drop(self, worker_id: int) -> None:
        """The worker was deleted."""
        self._since.pop(worker_id, None)
        self._spoken.discard(worker_id)
        self._left.discard(worker_id)

    def of(self, worker_ids: Collection[int]) -> Mapping[int, float]:
        """The leases of these workers, a copy; those of all others are forgotten.

        One that has no lease yet gets a full one: after a (re)start of ours nobody has been silent so far.
        """
        for gone in self._since.keys() - set(worker_ids):
            self.drop(gone)
        now = self._clock()
        return {worker_id: self._since.setdefault(worker_id, now) for worker_id in worker_ids}

    def last_heard(self, worker_id: int) -> float | None:
        """Seconds on the server's clock, or ``None`` for a worker not heard since we started."""
        return self._since[worker_id] if worker_id in self._spoken else None

    def __repr__(self) -> str:
        now = self._clock()
        oldest = max((now - at for at in self._since.values()), default=0.0)
        return f"<Leases: {len(self._since)} workers, the longest silent for {oldest:.0f} s>"
