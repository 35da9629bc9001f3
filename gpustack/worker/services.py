"""The services of the worker role, in the order of starting: one line each."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gpustack.nursery.service import Service
from gpustack.worker.assignment_watcher import AssignmentWatcher
from gpustack.worker.engine_environment import EngineEnvironments
from gpustack.worker.heartbeat import Heartbeat, StatusReporter
from gpustack.worker.log_retention import LogRetention
from gpustack.worker.membership import Membership
from gpustack.worker.model_file import ModelFiles
from gpustack.worker.ray_node import RayNode
from gpustack.worker.report import ReportQueue
from gpustack.worker.supervisor import InstanceSupervisor
from gpustack.worker.tool_fetcher import ToolFetcher


@attrs.frozen(kw_only=True)
class WorkerParts:
    """The services of a worker, made in ``cli/daemon/worker_role.py``."""

    membership: Membership
    reports: ReportQueue
    heartbeat: Heartbeat
    status: StatusReporter
    assignments: AssignmentWatcher
    files: ModelFiles
    supervisor: InstanceSupervisor
    log_retention: LogRetention
    tools: ToolFetcher | None = None
    ray: RayNode | None = None
    environments: EngineEnvironments | None = None


def work_services(parts: WorkerParts) -> Sequence[Service]:
    """In the order of starting; they stop the other way round, so reports outlive the engines they tell of."""
    found: tuple[Service, ...] = (
        parts.membership,
        parts.reports,
        parts.heartbeat,
        parts.status,
        parts.assignments,
        parts.files,
        parts.supervisor,
        parts.log_retention,
    )
    more = (parts.tools, parts.ray, parts.environments)
    return (*found, *(part for part in more if part is not None))
