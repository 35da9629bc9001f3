"""What runs in the worker role: one line each."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gpustack.nursery.service import Service
from gpustack.worker.assignment import Assignments
from gpustack.worker.file import Files
from gpustack.worker.heartbeat import Heartbeat, StatusPush
from gpustack.worker.membership import Membership
from gpustack.worker.old_logs import OldLogs
from gpustack.worker.reports import Reports
from gpustack.worker.runners import Runners
from gpustack.worker.tools import ToolFetch


@attrs.frozen(kw_only=True)
class WorkerParts:
    """The services of a worker, made by whoever composes the daemon."""

    membership: Membership
    reports: Reports
    heartbeat: Heartbeat
    status: StatusPush
    assignments: Assignments
    files: Files
    runners: Runners
    old_logs: OldLogs
    tools: ToolFetch | None = None


def work_services(parts: WorkerParts) -> Sequence[Service]:
    """In the order of starting; they stop the other way round, so reports outlive the engines they tell of."""
    found: tuple[Service, ...] = (
        parts.membership,
        parts.reports,
        parts.heartbeat,
        parts.status,
        parts.assignments,
        parts.files,
        parts.runners,
        parts.old_logs,
    )
    return found if parts.tools is None else (*found, parts.tools)
