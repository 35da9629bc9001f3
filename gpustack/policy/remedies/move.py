"""Move a replica of another model to where it fits as well, so that there is room for this one."""

from __future__ import annotations

import attrs

from gpustack.domain.instance import ModelInstance, Placement, claims_of, workers_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.engines.registry import engine_for
from gpustack.errors import Invalid
from gpustack.policy.decision import decide
from gpustack.policy.estimate.learnt import KnownRuns
from gpustack.policy.location import where
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.remedies.stop import enough
from gpustack.policy.remedy import Remedy, removal
from gpustack.policy.trial import Trial

RANK = 60
KIND = "move"
ONLY_ASKED = True
_MOST_MOVED = 16


def find(trial: Trial) -> Remedy | None:
    """The one that holds least, of those of whose models is known what they need. It is ended: this replica, which has
    waited for longer than its successor, is placed first, and the successor where it fits then."""
    tried = 0
    for instance, size in enough(trial):
        again = _request(instance, trial)
        if again is None:
            continue
        tried += 1
        if tried > _MOST_MOVED:
            return None
        ended = Remedy(kind=KIND, sentence="", changes=(removal(instance),), by_api=True)
        place = next(filter(None, (trial.place(ended, key) for key in sorted(workers_of(instance)))), None)
        if place is None:
            continue
        moved = decide(again, _with_this(trial, place, instance))
        if not isinstance(moved, Placement) or workers_of(instance) & {key for key, _ in claims_of(moved)}:
            continue
        return attrs.evolve(
            ended,
            sentence=f"move {instance.name} ({human_bytes(size)}) to {where(moved, trial.snapshot)}",
        )
    return None


def _request(instance: ModelInstance, trial: Trial) -> PlacementRequest | None:
    """The request of its successor; ``None`` where what it needs is not known."""
    model = trial.snapshot.get(Model, instance.model_id)
    if model is None or model.generation != instance.generation:
        return None
    facts = trial.facts_of(model.source)
    try:
        engine = engine_for(model, facts)
    except Invalid:
        return None
    if facts is None and engine.fetches(model):
        return None
    new = attrs.evolve(instance, id=_next_id(trial.snapshot) + 1, placement=None, state=InstanceState.PENDING)
    return PlacementRequest(
        model=model,
        instance=new,
        facts=facts,
        engine_name=engine.name,
        gangs=trial.request.gangs,
        known=KnownRuns.of(trial.snapshot, engine.name, facts),
    )


def _with_this(trial: Trial, place: Placement, instead_of: ModelInstance) -> Snapshot:
    """The world in which this replica is in the place of that one."""
    own = trial.request.instance or ModelInstance(
        id=_next_id(trial.snapshot),
        name=trial.request.model.name,
        model_id=trial.request.model.id,
        model_name=trial.request.model.name,
        source=trial.request.model.source,
    )
    return trial.snapshot.changed(attrs.evolve(own, placement=place), without=[instead_of.id])


def _next_id(snapshot: Snapshot) -> int:
    return max(snapshot.instances, default=0) + 1
