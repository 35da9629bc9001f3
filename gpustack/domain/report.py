"""What a worker reports to the server: documents of the protocol that both sides share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from .artifact import FileState
from .instance import MemberStatus, ModelInstance, status_of
from .lifecycle import InstanceState
from .memory_use import MeasuredMemory
from .worker import SystemReserved, WorkerStatus


@attrs.frozen(kw_only=True)
class JoinRequest:
    """What a worker says about itself when it joins."""

    name: str
    explicit_name: bool = False
    """The name was set by an option, so the server does not change it to make it unique."""
    worker_uuid: str
    hostname: str = ""
    ip: str = ""
    port: int = 10150
    metrics_port: int | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)
    system_reserved: SystemReserved = SystemReserved()
    version: str = ""
    run: str = ""
    """Identifies one run of the daemon. Empty from workers of former versions."""
    keeps_credential: bool = False
    """The worker keeps its credential and presents it when it joins again. Workers of former versions do not."""


@attrs.frozen(kw_only=True)
class InstanceReport:
    """What a worker reports of an instance; ``None`` leaves a field unchanged.

    ``gone``: its engine has ended and no process of it is left. ``member`` is 0 for the main member, which speaks for
    the instance, and k for the k-th follower of a gang, which speaks for itself: ``attempt``, ``address``, ``state``,
    ``state_message``, ``pid``, ``ports`` and ``download_progress`` are then its own.
    """

    member: int = 0

    state: InstanceState | None = None
    state_message: str | None = None
    pid: int | None = None
    port: int | None = None
    ports: tuple[int, ...] | None = None
    download_progress: float | None = None
    resolved_path: str | None = None
    restart_count: int | None = None
    last_restart_time: datetime | None = None
    next_retry_at: datetime | None = None
    attempt: int | None = None
    address: str | None = None
    lora_adapters: tuple[str, ...] | None = None
    """Names of the adapters that its engine has now; only of engines that load them while they run."""
    outgrown: bool | None = None
    """Its engine was started with too little room for what the deployment has come to name: it is to be replaced."""
    memory: MeasuredMemory | None = None
    """What its engine was found to take."""
    gone: bool = False

    def over(self, earlier: InstanceReport) -> InstanceReport:
        """Both reports as one: fields that are ``None`` here are taken from ``earlier``."""
        return attrs.evolve(
            earlier,
            **{
                field.name: getattr(self, field.name)
                for field in attrs.fields(InstanceReport)
                if getattr(self, field.name) is not None
            },
        )


def members_after(instance: ModelInstance, report: InstanceReport) -> tuple[MemberStatus, ...]:
    """What is known of all followers once one of them has reported; the report is of the present attempt."""
    before = status_of(instance, report.member)
    if report.state is not None and report.state is not before.state:
        before = attrs.evolve(before, state_message="", download_progress=None)
    said = {field.name: getattr(report, field.name) for field in attrs.fields(MemberStatus)}
    status = attrs.evolve(before, **{name: value for name, value in said.items() if value is not None})
    count = 0 if instance.placement is None else len(instance.placement.subordinates)
    return tuple(
        status if member == report.member else status_of(instance, member) for member in range(1, count + 1)
    )


@attrs.frozen(kw_only=True)
class FileReport:
    """What a worker reports of a model file; ``None`` leaves a field unchanged.

    ``gone``: it has been removed. ``evicted``: the same, by the worker's own decision; it says why.
    """

    state: FileState | None = None
    state_message: str | None = None
    size: int | None = None
    download_progress: float | None = None
    download_speed: float | None = None
    fetched_from: str | None = None
    resolved_paths: tuple[str, ...] | None = None
    last_used_at: datetime | None = None
    gone: bool = False
    evicted: str | None = None


@attrs.frozen(kw_only=True)
class StatusReport:
    """The measured status of a worker, and its address and labels where they changed."""

    status: WorkerStatus
    ip: str | None = None
    labels: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class FileHolder:
    """A worker that has the files of a source or is fetching them, and what another worker may read them with."""

    name: str
    host: str
    port: int
    fetching: bool = False
    ticket: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class FileRecord:
    """The answer to a worker that needs files: the id of their record, and who has them, the best first."""

    id: int
    holders: tuple[FileHolder, ...] = ()
