"""What the control loops would make of a snapshot: replicas are reconciled and placed in memory by the same decisions,
as if engines started and ended at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import attrs

from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import SERVING, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.policy.placement import USUAL_GANGS, GangSettings
from gpustack.policy.preemption import Preemption, title
from gpustack.policy.reconcile import replica_plan
from gpustack.server.decisions import AT_ONCE, Ready, decide_all, ready_in, with_addresses
from gpustack.server.facts import FactsResult

Known = Callable[[Model], FactsResult | None]
"""What is known of the files of a model; ``None`` while that is nothing."""

_SOON = datetime(1, 1, 1, tzinfo=UTC)
"""When an instance ends of which that is only supposed."""
_MOST_PASSES = 100
_STARTS = (
    InstanceState.SCHEDULED,
    InstanceState.INITIALIZING,
    InstanceState.DOWNLOADING,
    InstanceState.STARTING,
)


@attrs.frozen(kw_only=True)
class Simulation:
    """What came of it. Instances that were created have ids beyond those there were."""

    before: Snapshot
    after: Snapshot
    ended: Mapping[int, str]
    """Why each instance ended, by its id, in the order in which they did."""
    waits: Mapping[int, str]
    """Why each instance that has no place waits."""
    unread: tuple[Model, ...]
    """Models of whose files nothing is known, so that it is not known what comes of them."""
    is_settled: bool
    """False where there was no end to it within the turns that were allowed."""

    @property
    def placed(self) -> list[ModelInstance]:
        """The instances that have a place which they did not have before."""
        former = self.before.instances
        return [
            one
            for key, one in sorted(self.after.instances.items())
            if one.placement is not None
            and (key not in former or former[key].placement is None or _moved(former[key], one))
        ]


def _moved(before: ModelInstance, after: ModelInstance) -> bool:
    assert before.placement is not None
    assert after.placement is not None
    return attrs.evolve(before.placement, score=0.0, note="") != attrs.evolve(
        after.placement, score=0.0, note=""
    )


def simulate(
    start: Snapshot, known: Known, gangs: GangSettings = USUAL_GANGS, *, before: Snapshot | None = None
) -> Simulation:
    """Let reconciler and scheduler take turns until nothing changes any more. ``before`` is what to compare the result
    with, ``start`` by default. The same arguments get the same answer. Takes as long as the decisions take."""
    # Whoever says already why it waits has been refused before, which counts when many are packed together.
    refused = [one.id for one in start.instances.values() if one.placement is None and one.state_message]
    course = _Course(start, known, gangs, considered=dict.fromkeys(refused))
    # Each turn ends, creates, starts or places an instance, or is the last one.
    for _ in range(4 * (len(start.instances) + sum(one.replicas for one in start.models.values())) + 8):
        if not course.turn():
            break
    else:
        course.is_settled = False
    now = course.snapshot.instances
    return Simulation(
        before=before or start,
        after=course.snapshot,
        ended=course.ended,
        waits={key: why for key, why in course.waits.items() if key in now and now[key].placement is None},
        unread=tuple(course.unread.values()),
        is_settled=course.is_settled,
    )


@attrs.define(eq=False)
class _Course:
    """The snapshot as it changes from turn to turn."""

    snapshot: Snapshot
    _known: Known
    _gangs: GangSettings
    ended: dict[int, str] = attrs.field(factory=dict)
    waits: dict[int, str] = attrs.field(factory=dict)
    unread: dict[int, Model] = attrs.field(factory=dict)
    is_settled: bool = True
    _considered: dict[int, object] = attrs.field(factory=dict)
    _restless: set[int] | None = None
    """Models of which something has changed since they were reconciled; ``None``: all."""

    def turn(self) -> bool:
        """Have the loops do all that they have to do, then the engines; true if anything changed."""
        changed = False
        for _ in range(_MOST_PASSES):
            if not self._reconcile() | self._place():
                break
            changed = True
        return self._go_on() or changed

    def _touch(self, *models: int) -> None:
        if self._restless is not None:
            self._restless.update(models)

    def _reconcile(self) -> bool:
        due = self.snapshot.models.keys() if self._restless is None else self._restless
        models = [self.snapshot.models[key] for key in sorted(due) if key in self.snapshot.models]
        self._restless = set()
        plans = [
            (model, replica_plan(model, self.snapshot.instances_of(model.id), self.snapshot))
            for model in models
        ]
        created: list[ModelInstance] = []
        gone: set[int] = set()
        ending: list[ModelInstance] = []
        next_id = max(self.snapshot.instances, default=0) + 1
        for model, plan in plans:
            for key in plan.end:
                one = self.snapshot.instances[key]
                self.ended[key] = _why_ended(one, model, self.snapshot)
                if one.placement is None:
                    gone.add(key)
                else:  # it holds its place until its engine has ended
                    ending.append(attrs.evolve(one, deleted_at=_SOON))
            created += [_new(model, next_id + len(created) + n) for n in range(plan.create)]
            if plan.end or plan.create:
                self._touch(model.id)
        orphans = self._orphans()
        gone |= orphans
        if not created and not gone and not ending:
            return False
        self.snapshot = self.snapshot.changed(*created, *ending, without=gone)
        return True

    def _orphans(self) -> set[int]:
        there = self.snapshot.models.keys() | self.snapshot.unread_of(Model)
        found = {one.id for one in self.snapshot.instances.values() if one.model_id not in there}
        self.ended.update(dict.fromkeys(sorted(found), "its model is gone"))
        return found

    def _place(self) -> bool:
        ready, unread = ready_in(self.snapshot, self._known)
        self.unread.update((model.id, model) for model in unread)
        changed = False
        for start in range(0, len(ready), AT_ONCE):
            changed = self._decide_on(ready[start : start + AT_ONCE]) or changed
        return changed

    def _decide_on(self, ready: Sequence[Ready]) -> bool:
        changes: dict[int, ModelInstance] = {}
        for one in decide_all(ready, self.snapshot, self._considered, self._gangs):
            instance = one.ready.instance
            if isinstance(one.decision, Placement):
                self._considered.pop(instance.id, None)
                self.waits.pop(instance.id, None)
                place = with_addresses(one.decision, self.snapshot)
                changes[instance.id] = attrs.evolve(
                    instance,
                    placement=place,
                    reserved=None,
                    state=InstanceState.SCHEDULED,
                    state_message="",
                )
                continue
            said = one.decision if isinstance(one.decision, str) else _unforeseen(one.decision)
            self.waits[instance.id] = said
            reserved = None if one.preemption is None else one.preemption.placement
            told = attrs.evolve(instance, state=InstanceState.PENDING, state_message=said, reserved=reserved)
            if one.preemption is None or one.preemption.is_kept:
                self._considered[instance.id] = one.inputs
            else:
                self._considered.pop(instance.id, None)
                changes.update((victim.id, victim) for victim in self._making_room(one.preemption))
            if told != instance:
                changes[instance.id] = told
        if not changes:
            return False
        self._touch(*(one.model_id for one in changes.values()))
        self.snapshot = self.snapshot.changed(*changes.values())
        return True

    def _making_room(self, preemption: Preemption) -> Iterator[ModelInstance]:
        """Those that end for another, as they end."""
        by = title(preemption.request.model)
        for victim in preemption.victims:
            self.ended[victim.id] = f"makes room for {by}"
            yield attrs.evolve(victim, deleted_at=_SOON, displaced_by=by)

    def _go_on(self) -> bool:
        """Engines that start run, those that end are gone."""
        started: list[ModelInstance] = []
        gone: set[int] = set()
        for one in self.snapshot.instances.values():
            if one.deleted_at is not None:
                gone.add(one.id)
                self.ended.setdefault(one.id, "it was being ended")
                self._touch(one.model_id)
            elif one.placement is not None and one.state in _STARTS:
                started.append(attrs.evolve(one, state=InstanceState.RUNNING))
                self._touch(one.model_id)
        if started or gone:
            self.snapshot = self.snapshot.changed(*started, without=gone)
        return bool(started or gone)


def _new(model: Model, key: int) -> ModelInstance:
    return ModelInstance(
        id=key,
        name=f"{model.name}-new-{key}",
        model_id=model.id,
        model_name=model.name,
        source=model.source,
        lora_adapters=tuple(adapter.name for adapter in model.lora_adapters),
        generation=model.generation,
    )


def _why_ended(instance: ModelInstance, model: Model, snapshot: Snapshot) -> str:
    if instance.generation < model.generation:
        return "replaced, since what its model runs changes"
    workers = (snapshot.workers.get(key) for key in _places(instance))
    drained = [one.name for one in workers if one is not None and one.draining]
    if drained:
        return f"moves away from {', '.join(drained)}, which is drained"
    serving = "" if instance.state in SERVING else ", and it does not serve"
    return f"more replicas than the {model.replicas} that are asked for{serving}"


def _places(instance: ModelInstance) -> list[int]:
    place = instance.placement
    return (
        []
        if place is None
        else [place.share(member).worker_id for member in range(1 + len(place.subordinates))]
    )


def _unforeseen(error: Exception) -> str:
    """The text of the exception is left out: it may hold a secret."""
    return f"it could not be decided on for a fault that nobody foresaw ({type(error).__name__})"
