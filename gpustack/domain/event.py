"""Events: what happened to instances, models, workers and model files, in the order in which it was written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from .record import Record, stored


class EventSeverity(StrEnum):
    """Whether somebody should look."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ObjectKind(StrEnum):
    """What an event is about."""

    MODEL = "model"
    INSTANCE = "model-instance"
    WORKER = "worker"
    FILE = "model-file"


@stored("cluster_events", in_memory=False)
@attrs.frozen(kw_only=True)
class ClusterEvent(Record):
    """One thing that happened. The name is stored beside the id, so that it is known after the object is deleted. Holds
    no secrets.

    ``kind`` is ``<what>.<verb>`` (``instance.failed``). Ids grow in the order of commits.
    """

    at: datetime
    kind: str
    severity: EventSeverity
    object_kind: ObjectKind
    object_id: int
    object_name: str
    text: str
    actor: str = ""
    """The name of the account that did it; empty where nobody asked for it."""
    model_id: int | None = None
    """The model that it concerns: of an instance the one that it is a replica of."""
    worker_id: int | None = None
    """The worker that it concerns: of an instance where it runs, or ran."""
    data: Mapping[str, Any] = attrs.field(factory=dict)
    """The same for programs."""
