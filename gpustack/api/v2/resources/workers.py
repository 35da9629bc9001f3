"""Machines, as GPUStack 2.x shows them: what it calls maintenance is to be cordoned here."""

from __future__ import annotations

from typing import Any

from gpustack.domain.snapshot import Snapshot

from ...problems import MalformedRequest
from ..cluster import IN_CLUSTER
from ..face import Face
from ..translation import Difference, Doc, Reading, Translation, renamed, shown


def _maintenance(value: Any, reading: Reading) -> Doc:
    if value is None:
        return {}
    if not isinstance(value, dict) or not isinstance(value.get("enabled", False), bool):
        raise MalformedRequest("maintenance: must be an object with enabled, which is true or false")
    if value.get("message"):
        reading.ignore("maintenance.message")
    return {"cordoned": value.get("enabled", False)}


def _shown_maintenance(document: Doc, snapshot: Snapshot) -> Doc:
    return {"enabled": bool(document.get("cordoned")), "message": None}


def _state(document: Doc, snapshot: Snapshot) -> Any:
    return "maintenance" if document.get("cordoned") else document.get("state")


FACES = (
    Face(
        path="/v1/workers",
        translation=Translation(
            differences=(
                IN_CLUSTER,
                Difference("maintenance", _maintenance, _shown_maintenance),
                Difference("state", shows=_state),
                Difference("advertise_address", shows=lambda document, snapshot: document.get("ip")),
                renamed("worker_version", "version"),
                shown("provider", "Docker"),
            ),
            owned=frozenset({"status", "heartbeat_time", "unreachable", "drain", "state_since", "provider"}),
        ),
        views=("Worker",),
    ),
)
