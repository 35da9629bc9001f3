"""Two machines with one identity: a data directory was copied, with the credential of the worker in it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from gpustack.domain.report import JoinRequest
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import Conflict
from gpustack.http1.upstream import UpstreamAddress

log = logging.getLogger(__name__)

COPIED: Final = ("worker_uuid", "worker_name", "worker_credential")
"""What of a data directory makes a machine the worker that it is."""
COPIED_FILES: Final = f"{', '.join(COPIED[:-1])} and {COPIED[-1]}"
_SAME_FOR = 3600.0
_MOST = 1000


class RunProbe(Protocol):
    """Finds out which daemon answers where a worker is recorded to be."""

    async def run_of(self, worker: Worker) -> str | None:
        """What that daemon calls its run, ``None`` where nobody answers."""


@attrs.define(eq=False)
class CloneDetector:
    """Refuses a machine that says to be a worker which answers elsewhere: the one that was there first stays."""

    _link: RunProbe
    _clock: Callable[[], float]
    _told: dict[tuple[int, str], float] = attrs.field(factory=dict)
    """When the log was told of a worker and the address of its twin."""

    async def refuse(self, request: JoinRequest, snapshot: Snapshot) -> None:
        """Raises ``Conflict`` with both addresses, and what to delete on the copy.

        A daemon that was started anew is on the machine of the one before it, or finds nobody at the address of that.
        """
        worker = snapshot.find(Worker, worker_uuid=request.worker_uuid)
        if worker is None or worker.leaving or worker.barred or not request.run:
            return
        here, there = (
            str(UpstreamAddress(request.ip, request.port)),
            str(UpstreamAddress(worker.ip, worker.port)),
        )
        if here == there or not worker.ip:
            return
        run = await self._link.run_of(worker)
        if run is None or run == request.run:
            return
        self._tell(worker, there, here)
        raise Conflict(
            f"Worker {worker.name} is at {there} and answers there, and the machine at {here} says to be the same "
            "worker: the data directory of one of them is a copy. On the machine that is the copy stop gpustack, "
            f"delete {COPIED_FILES} in its data directory and start it again: it joins as a "
            "worker of its own then"
        )

    def _tell(self, worker: Worker, there: str, here: str) -> None:
        """It tries again every few seconds: one line an hour is enough."""
        now = self._clock()
        if now - self._told.get((worker.id, here), -_SAME_FOR) < _SAME_FOR:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told[worker.id, here] = now
        log.warning(
            "Two machines say to be one worker, for a data directory was copied; the one that was there first stays, "
            "delete %s in that of the copy: worker=%s there=%s refused=%s",
            COPIED_FILES,
            worker.name,
            there,
            here,
        )
