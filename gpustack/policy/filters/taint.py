"""Only workers whose taints the deployment tolerates."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import TaintEffect, seconds_tolerated, untolerated
from gpustack.domain.worker import Worker
from gpustack.policy.placement import PlacementRequest

OF_SHAPE = True


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when no taint keeps the deployment away. One of ``NoExecute`` that is tolerated only for a time does: an
    instance would be ended again."""
    if not worker.taints:
        return None
    tolerations = request.model.tolerations
    against = untolerated(worker.taints, tolerations, TaintEffect.NO_SCHEDULE, TaintEffect.NO_EXECUTE)
    if against:
        marks = " and ".join(map(str, against))
        taints = "taint" if len(against) == 1 else "taints"
        return f"worker {worker.name} has the {taints} {marks}, which the deployment does not tolerate"
    for taint in worker.taints:
        if taint.effect is TaintEffect.NO_EXECUTE and seconds_tolerated(taint, tolerations) is not None:
            return (
                f"worker {worker.name} has the taint {taint}, which the deployment tolerates only for a time"
            )
    return None
