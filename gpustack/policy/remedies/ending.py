"""Wait until instances that are being ended are gone: they hold their memory until then."""

from __future__ import annotations

from gpustack.domain.instance import workers_of
from gpustack.policy.remedy import Remedy, removal
from gpustack.policy.trial import MOST_TRIED, Trial

RANK = 10
KIND = "ending"
_NAMED = 3


def find(trial: Trial) -> Remedy | None:
    """One of them where that suffices, else all."""
    ending = [
        instance
        for instance in sorted(trial.snapshot.instances.values(), key=lambda one: one.id)
        if instance.deleted_at is not None and instance.placement is not None
    ]
    for instance in ending[:MOST_TRIED]:
        remedy = Remedy(
            kind=KIND, sentence=f"wait until {instance.name} has ended", changes=(removal(instance),)
        )
        there = [key for key in sorted(workers_of(instance)) if key in trial.snapshot.workers]
        if any(trial.helps(remedy, key) for key in there):
            return remedy
    if len(ending) < 2 and not (ending and trial.spans):
        return None
    names = ", ".join(instance.name for instance in ending[:_NAMED])
    more = f" and {len(ending) - _NAMED} more" if len(ending) > _NAMED else ""
    whole = Remedy(
        kind=KIND,
        sentence=f"wait until {names}{more} {'has' if len(ending) == 1 else 'have'} ended",
        changes=tuple(map(removal, ending)),
    )
    return whole if trial.helps(whole) else None
