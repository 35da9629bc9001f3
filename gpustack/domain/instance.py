"""A model instance: one replica, its placement and its state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from .artifact import ModelSource
from .lifecycle import InstanceState
from .record import Record, stored


@attrs.frozen(kw_only=True)
class Claim:
    """Bytes an instance holds on one worker: host memory, and video memory per device index.

    It is an estimate unless a user fixed it. ``offload_layers`` of ``total_layers`` run on devices.
    """

    ram: int = 0
    vram: Mapping[int, int] = attrs.field(factory=dict)
    offload_layers: int | None = None
    total_layers: int | None = None
    tensor_split: tuple[int, ...] = ()
    is_unified_memory: bool = False
    slots: int | None = None
    """Requests at a time that it has room for; ``None`` where that was not computed."""
    context: int | None = None
    """Tokens of one request that it has room for; ``None`` where the engine is not told by us."""
    kv_cache: int | None = None
    """Bytes of it that are the KV cache, on each device (on the host where there is none); ``None`` where the engine is
    not told."""


@attrs.frozen(kw_only=True)
class Subordinate:
    """The part of a distributed instance on a further worker."""

    worker_id: int
    gpu_indexes: tuple[int, ...] = ()
    claim: Claim = Claim()


@attrs.frozen(kw_only=True)
class Placement:
    """Where an instance runs. ``gpu_indexes`` empty means on the CPU."""

    worker_id: int
    gpu_indexes: tuple[int, ...] = ()
    claim: Claim = Claim()
    subordinates: tuple[Subordinate, ...] = ()
    score: float = 0.0
    note: str = ""
    """A remark on this choice for users, e.g. why no GPU was claimed."""


@stored("model_instances", unique=(("name",),), indexed=("model_id",))
@attrs.frozen(kw_only=True)
class ModelInstance(Record):
    """One replica. Who writes which field: ``server/README.md``."""

    name: str
    model_id: int
    model_name: str
    source: ModelSource
    generation: int = 1
    placement: Placement | None = None
    state: InstanceState = InstanceState.PENDING
    state_message: str = ""
    state_since: datetime | None = None
    pid: int | None = None
    port: int | None = None
    ports: tuple[int, ...] = ()
    download_progress: float | None = None
    resolved_path: str | None = None
    restart_count: int = 0
    last_restart_time: datetime | None = None
    next_retry_at: datetime | None = None
    deleted_at: datetime | None = None
    """Set when it is to end: its worker stops the engine, then the record is deleted and its claim is free."""

    @property
    def worker_id(self) -> int | None:
        """The main worker, once placed."""
        return None if self.placement is None else self.placement.worker_id


def workers_of(instance: ModelInstance) -> frozenset[int]:
    """Ids of every worker that an instance runs on; none while it has no place."""
    placement = instance.placement
    if placement is None:
        return frozenset()
    return frozenset((placement.worker_id, *(share.worker_id for share in placement.subordinates)))
