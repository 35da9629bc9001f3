"""Audit events: who did what, when and from where."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from .record import Record, stored


class AuditOutcome(StrEnum):
    """How an action ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@stored("audit_events", indexed=("at",), in_memory=False)
@attrs.frozen(kw_only=True)
class AuditEvent(Record):
    """One action. Names are stored beside the ids, so that they are known after the record is deleted. Holds no
    secrets.

    ``action`` is ``<what>.<verb>`` (``model.create``, ``auth.login``). Ids are ``None`` where there are none.
    """

    at: datetime
    action: str
    outcome: AuditOutcome
    status: int
    """HTTP status of the answer."""
    actor_id: int | None = None
    actor_name: str = ""
    actor_role: str = ""
    means: str = ""
    api_key_id: int | None = None
    address: str = ""
    target_type: str = ""
    target_id: int | None = None
    target_name: str = ""
    details: Mapping[str, Any] = attrs.field(factory=dict)
