"""The requests under way to each worker, so that they can be given up when its machine has vanished."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import Final

import attrs

from gpustack.http1.upstream_exchange import UpstreamExchange

_ANSWERING: Final = 5.0
"""Seconds: an engine of which something came within them is there, whatever its worker's heartbeats say."""


@attrs.define(eq=False, repr=False)
class WorkerRequests:
    """Owns the list. Holding costs no more than a set's entry: it is on the way of every request."""

    _calls: dict[int, set[UpstreamExchange]] = attrs.field(factory=dict)
    _doubted: dict[int, set[UpstreamExchange]] = attrs.field(factory=dict)
    """Of each silent worker the requests that were under way when it fell silent: whoever is sent to it since then is
    sent because nobody else is left, and has the usual time."""

    def holding(self, worker_id: int, call: UpstreamExchange) -> _TrackedRequest:
        """One request to the worker is under way for as long as it is entered."""
        return _TrackedRequest(self._calls, worker_id, call)

    def give_up(self, silent: Collection[int], now: float) -> bool:
        """End the requests to workers that fell silent, but for those that are being answered all the same; whether
        some are left to be looked at again.

        ``now`` is by the clock of the connections' reactor, which is Trio's.
        """
        for worker_id in self._doubted.keys() - set(silent):
            del self._doubted[worker_id]
        for worker_id in silent:
            if worker_id not in self._doubted:
                self._doubted[worker_id] = set(self._calls.get(worker_id, ()))
        for worker_id, doubted in self._doubted.items():
            doubted &= self._calls.get(worker_id, set())
            for call in [call for call in doubted if call.heard < now - _ANSWERING]:
                doubted.remove(call)
                call.abort()
        return any(self._doubted.values())

    def __repr__(self) -> str:
        return f"<WorkerCalls: {sum(map(len, self._calls.values()))} to {len(self._calls)} workers>"


class _TrackedRequest:
    """A generator would cost twice as much."""

    __slots__ = ("_call", "_calls", "_worker_id")

    def __init__(
        self, calls: dict[int, set[UpstreamExchange]], worker_id: int, call: UpstreamExchange
    ) -> None:
        self._calls = calls
        self._worker_id = worker_id
        self._call = call

    def __enter__(self) -> None:
        self._calls.setdefault(self._worker_id, set()).add(self._call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held = self._calls[self._worker_id]
        held.discard(self._call)
        if not held:
            del self._calls[self._worker_id]
