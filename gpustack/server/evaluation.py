"""Whether a model could run here, and why an instance is where it is or waits: asked of policy, nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import attrs
import trio

from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement, claims_of
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.engines.registry import engine_for
from gpustack.errors import Invalid, NotFound
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.policy.estimate.learnt import KnownRuns
from gpustack.policy.explain import Explanation, explain
from gpustack.policy.location import where
from gpustack.policy.placement import USUAL_GANGS, GangSettings
from gpustack.policy.preemption import preempt
from gpustack.policy.schedule import PlacementRequest, Unschedulable, place
from gpustack.server.decisions import has_files
from gpustack.server.facts import FactsCache, FactsResult
from gpustack.store.store import Store

READ_WITHIN = 15.0
"""Seconds that an evaluation waits for a header; reading goes on for whoever asks next."""
_EXPLAIN_WITHIN = 5.0
"""Seconds that an explanation waits for a header."""
_EXPLAINING = threads("explanations", 1)
NO_PLACE = "Unable to find a schedulable worker for the model."


@attrs.frozen(kw_only=True)
class Evaluation:
    """Whether a model could run. ``error``: it could not be found out. ``ram`` and ``vram`` are estimates in bytes."""

    compatible: bool = True
    compatibility_messages: tuple[str, ...] = ()
    scheduling_messages: tuple[str, ...] = ()
    ram: int | None = None
    vram: int | None = None
    error: str | None = None


def incompatible(*messages: str) -> Evaluation:
    """A deployment that cannot run here, and why."""
    return Evaluation(compatible=False, compatibility_messages=messages)


@attrs.frozen(kw_only=True)
class EvaluationSettings:
    """At most ``most`` evaluations are kept, for ``keep_for`` seconds and for one revision of the records."""

    read_within: float = READ_WITHIN
    most: int = 1000
    keep_for: float = 3600.0
    gangs: GangSettings = USUAL_GANGS


@attrs.frozen
class _CachedEvaluation:
    facts: ModelFacts | None
    at: float
    found: Evaluation


@attrs.define(eq=False, repr=False)
class Evaluator:
    """Evaluates on the present snapshot. Results are kept: a console asks for every model of a list again and again."""

    _store: Store
    _facts: FactsCache
    _settings: EvaluationSettings = EvaluationSettings()
    _clock: Callable[[], float] = trio.current_time
    _kept: dict[tuple[str, int], _CachedEvaluation] = attrs.field(factory=dict)
    """By the model and the revision decided on; the oldest first."""
    _threads: ThreadLimiter = attrs.field(factory=lambda: threads("evaluation", 1))

    async def evaluate(self, model: Model) -> Evaluation:
        """Read the model's header and look for a place for one replica. Cancellable."""
        result = await self._facts_of(model)
        facts, fault = (None, None) if result is None else (result.facts, result.fault)
        try:
            engine = engine_for(model, facts)
        except Invalid as error:
            if result is None:
                return self._too_slow(model)
            return incompatible(fault or str(error))
        if facts is None and not engine.any_device:
            return self._too_slow(model) if fault is None else incompatible(fault)
        snapshot = self._store.snapshot
        request = PlacementRequest(
            model=model,
            facts=facts,
            engine_name=engine.name,
            gangs=self._settings.gangs,
            known=KnownRuns.of(snapshot, engine.name, facts),
        )
        key = (json.dumps(attrs.asdict(model), default=str, sort_keys=True), snapshot.revision)
        kept = self._kept.get(key)
        if kept is not None and kept.facts == facts and self._clock() - kept.at <= self._settings.keep_for:
            return kept.found
        found = await self._threads.run(_evaluated, request, snapshot, abandon=True)
        self._kept.pop(key, None)
        self._kept[key] = _CachedEvaluation(facts, self._clock(), found)
        while len(self._kept) > self._settings.most:
            del self._kept[next(iter(self._kept))]
        return found

    async def _facts_of(self, model: Model) -> FactsResult | None:
        """What the header says, or why it cannot be read; ``None`` when that took too long or was not needed."""

        def is_enough(result: FactsResult | None) -> bool:
            good = result is not None and result.facts is not None
            return good or _needs_no_facts(model) or self._facts.is_fresh(model, result)

        return await self._facts.wait_for(model, is_enough, within=self._settings.read_within)

    def _too_slow(self, model: Model) -> Evaluation:
        within = self._settings.read_within
        sentence = f"The header of {model.source.readable} could not be read within {within:g} s; ask again"
        return Evaluation(compatible=False, error=sentence)

    def __repr__(self) -> str:
        return f"<Evaluator: {len(self._kept)} verdicts kept>"


def _evaluated(request: PlacementRequest, snapshot: Snapshot) -> Evaluation:
    outcome = place(request, snapshot)
    made = None if isinstance(outcome, Placement) else preempt(request, snapshot)
    if made is None:
        return _verdict(outcome)
    ends = ", ".join(one.name for one in (*made.victims, *made.awaited))
    said = f"Others end first, to make room for it on {where(made.placement, snapshot)}: {ends}"
    found = _verdict(made.placement)
    return attrs.evolve(found, scheduling_messages=(said, *found.scheduling_messages))


def _verdict(outcome: Placement | Unschedulable) -> Evaluation:
    if not isinstance(outcome, Placement):
        advice = [] if outcome.smallest_change is None else [f"To make it fit: {outcome.smallest_change}"]
        reasons = [reason.sentence for reason in outcome.reasons]
        return attrs.evolve(incompatible(NO_PLACE), scheduling_messages=(*reasons, *advice))
    claims = [claim for _, claim in claims_of(outcome)]
    return Evaluation(
        scheduling_messages=(outcome.note,) if outcome.note else (),
        ram=sum(claim.ram for claim in claims),
        vram=sum(sum(claim.vram.values()) for claim in claims),
    )


def _needs_no_facts(model: Model) -> bool:
    try:
        return model.backend is not None and engine_for(model).any_device
    except Invalid:
        return False


async def explain_instance(
    store: Store,
    facts: FactsCache,
    instance_id: int,
    gangs: GangSettings = USUAL_GANGS,
    *,
    silence_allowed: timedelta | None = None,
) -> Explanation:
    """Decide again on the present snapshot, without writing; waits ``_EXPLAIN_WITHIN`` seconds for a header.

    Raises ``NotFound``. Cancellable.
    """
    snapshot = store.snapshot
    instance = snapshot.get(ModelInstance, instance_id)
    if instance is None:
        raise NotFound(f"Model instance {instance_id} does not exist")
    model = snapshot.get(Model, instance.model_id)
    if model is None:
        raise NotFound(f"The model of instance {instance.name} does not exist any more")
    known, fault, lasting = None, None, False
    if has_files(model):
        result = await facts.wait_for(model, lambda found: found is not None, within=_EXPLAIN_WITHIN)
        if result is None:
            fault = f"The header of {model.source.readable} is being read; ask again in a moment"
        else:
            known, fault, lasting = result.facts, result.fault, result.definite

    def facts_of(source: ModelSource) -> ModelFacts | None:
        read = facts.known(source)
        return None if read is None else read.facts

    look = partial(
        explain,
        model,
        instance,
        snapshot,
        known,
        fault=fault,
        lasting=lasting,
        gangs=gangs,
        facts_of=facts_of,
        silence_allowed=silence_allowed,
    )
    return await _EXPLAINING.run(look, abandon=True)
