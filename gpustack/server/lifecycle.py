"""The place of an instance, and what is forgotten with it."""

from __future__ import annotations

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.store.transaction import Tx


def workers_of(instance: ModelInstance) -> frozenset[int]:
    """Every worker that an instance runs on; none while it has no place."""
    placement = instance.placement
    if placement is None:
        return frozenset()
    return frozenset((placement.worker_id, *(share.worker_id for share in placement.subordinates)))


def give_up_place(tx: Tx, instance: ModelInstance, why: str) -> None:
    """Free what it claims on workers that are gone: it looks for another place, or goes if it was being ended."""
    if instance.deleted_at is not None:
        tx.delete(instance)
        return
    tx.move(
        instance,
        InstanceState.PENDING,
        by=Party.LIVENESS,
        message=why,
        placement=None,
        pid=None,
        port=None,
        ports=(),
        download_progress=None,
        resolved_path=None,
        next_retry_at=None,
    )
