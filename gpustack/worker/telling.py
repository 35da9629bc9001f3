"""What is said of one instance, by moves that its life allows (``domain/lifecycle.py``)."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party, allowed
from gpustack.domain.report import InstanceReport
from gpustack.worker.report import ReportQueue


@attrs.define(eq=False)
class InstanceReporter:
    """Remembers the state last told, so that each move is one the server takes from there."""

    _reports: ReportQueue
    _instance_id: int
    state: InstanceState
    """As told last; at first as recorded."""
    _last: InstanceReport | None = None
    tries_again: bool = False
    """It failed last time: that it is started once more is no news for the log before it works."""

    def say(self, state: InstanceState, message: str = "", **fields: Any) -> None:
        """Tell a state, with fields of ``InstanceReport``. Never waits.

        Where the move is not allowed, the way leads over ``INITIALIZING``, which may follow any state.
        """
        self._lead_to(state)
        self._last = InstanceReport(state=state, state_message=message, **fields)
        self._reports.instance(self._instance_id, self._last)
        self.state = state

    def repeat(self, record: ModelInstance) -> None:
        """Tell the last state again to a server whose record shows another."""
        if self._last is not None and self.differs(record):
            self.state = record.state
            self._lead_to(self._last.state or record.state)
            self._reports.instance(self._instance_id, self._last)
            self.state = self._last.state or record.state

    def differs(self, record: ModelInstance) -> bool:
        """Whether the record shows another state than was told, with no word about it under way."""
        told = self._last is not None and record.state is not self.state
        return told and not self._reports.pending_for(self._instance_id)

    def _lead_to(self, state: InstanceState) -> None:
        if not allowed(self.state, state, Party.WORKER):
            over = InstanceReport(state=InstanceState.INITIALIZING, state_message="")
            self._reports.instance(self._instance_id, over)
