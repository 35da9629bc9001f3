"""Wait in a rolling update, or a drain, without spare room: the replica to be replaced holds the memory."""

from __future__ import annotations

from gpustack.policy.eviction import on_drained
from gpustack.policy.placement import MAKES_ROOM
from gpustack.policy.remedy import Remedy, removal
from gpustack.policy.trial import Trial

RANK = 15
KIND = "older_replica"


def find(trial: Trial) -> Remedy | None:
    """The reconciler ends one once it reads this."""
    own = trial.request.instance
    if own is None:
        return None
    older = [
        instance
        for instance in trial.snapshot.instances.values()
        if instance.model_id == trial.request.model.id
        and instance.placement
        and (instance.generation < own.generation or on_drained(instance, trial.snapshot))
    ]
    remedy = Remedy(kind=KIND, sentence=f"wait until {MAKES_ROOM}", changes=tuple(map(removal, older)))
    return remedy if older and trial.helps(remedy) else None
