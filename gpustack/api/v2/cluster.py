"""The one cluster that there is here, as GPUStack 2.x numbers it; every document of theirs names its cluster."""

from __future__ import annotations

from typing import Any

from gpustack.errors import NotFound

from .translation import Difference, Doc, Reading

CLUSTER_ID = 1
CLUSTER_NAME = "Default"


def check_cluster(value: Any) -> None:
    """Raises ``NotFound`` for a cluster other than ours; ``None`` and empty mean ours."""
    if str(value) not in ("", "None", str(CLUSTER_ID)):
        raise NotFound(
            f"Cluster {str(value)[:40]!r} does not exist: this server is one cluster, number {CLUSTER_ID}, "
            f"called {CLUSTER_NAME}"
        )


def _read(value: Any, reading: Reading) -> Doc:
    check_cluster(value)
    return {}


IN_CLUSTER = Difference("cluster_id", _read, lambda document, snapshot: CLUSTER_ID)
"""The field ``cluster_id`` of a document."""
