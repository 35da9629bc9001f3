"""Which status the record of each worker has, so that a report of another load costs no more than reading that load."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.load import disk_loads, is_near
from gpustack.domain.worker import Worker, WorkerStatus
from gpustack.server.report import MOST_WORKERS

from .load_document import StatusReading


@attrs.frozen
class _TakenStatus:
    """A report that was taken, and those parts of the record that it would be merged with again."""

    rest: bytes
    peer: str
    status: WorkerStatus
    labels: Mapping[str, str]
    ip: str


@attrs.define(eq=False, repr=False)
class StatusIntake:
    """Remembers of each worker the last report that its record agrees with."""

    _taken: dict[int, _TakenStatus] = attrs.field(factory=dict)

    def agrees(self, worker: Worker, reading: StatusReading, peer: str) -> bool:
        """Whether the record already says all that the report says but for its load.

        The record's parts are compared by identity: they are other objects after anybody has written them.
        """
        taken = self._taken.get(worker.id)
        return (
            taken is not None
            and taken.rest == reading.rest
            and taken.peer == peer
            and taken.status is worker.status
            and taken.labels is worker.labels
            and taken.ip == worker.ip
            and is_near(disk_loads(worker.status), reading.load.filesystem)
        )

    def was_taken(self, worker: Worker, reading: StatusReading, peer: str) -> None:
        """The report was checked, and merged into the record, which is now ``worker``."""
        if len(self._taken) >= MOST_WORKERS and worker.id not in self._taken:
            self._taken.clear()
        self._taken[worker.id] = _TakenStatus(reading.rest, peer, worker.status, worker.labels, worker.ip)

    def __repr__(self) -> str:
        return f"<StatusIntake: the reports of {len(self._taken)} workers>"
