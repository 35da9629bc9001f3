"""What a worker tells the server: the documents both sides of their protocol share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from .artifact import FileState
from .lifecycle import InstanceState
from .worker import SystemReserved, WorkerStatus


@attrs.frozen(kw_only=True)
class JoinRequest:
    """What a worker says of itself when it joins."""

    name: str
    explicit_name: bool = False
    """The name was given by an option; then it is never changed to make room."""
    worker_uuid: str
    hostname: str = ""
    ip: str = ""
    port: int = 10150
    metrics_port: int | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)
    system_reserved: SystemReserved = SystemReserved()
    version: str = ""
    run: str = ""
    """What this one daemon, from its start to its end, is told apart by. Workers of former versions do not say it."""
    keeps_credential: bool = False
    """It shows its credential when it joins again. Workers of former versions forget theirs, and do not say this."""


@attrs.frozen(kw_only=True)
class InstanceReport:
    """What a worker says of an instance; ``None`` leaves a field as it is.

    ``gone``: its engine has ended and nothing of it is left.
    """

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
    gone: bool = False

    def over(self, earlier: InstanceReport) -> InstanceReport:
        """Both in one: what this one leaves open is taken from ``earlier``."""
        return attrs.evolve(
            earlier,
            **{
                field.name: getattr(self, field.name)
                for field in attrs.fields(InstanceReport)
                if getattr(self, field.name) is not None
            },
        )


@attrs.frozen(kw_only=True)
class FileReport:
    """What a worker says of a model file; ``None`` leaves a field as it is. ``gone``: it has been removed."""

    state: FileState | None = None
    state_message: str | None = None
    size: int | None = None
    download_progress: float | None = None
    resolved_paths: tuple[str, ...] | None = None
    gone: bool = False


@attrs.frozen(kw_only=True)
class StatusReport:
    """The worker's measured status, with what may change while it runs."""

    status: WorkerStatus
    ip: str | None = None
    labels: Mapping[str, str] | None = None
