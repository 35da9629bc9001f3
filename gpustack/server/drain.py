"""Drains of workers: what one would lead to, asked before it begins, and its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.nursery.limiter import threads
from gpustack.policy.drain_plan import DrainMove, DrainWay, drain_plan, instances_on
from gpustack.policy.location import where
from gpustack.policy.placement import USUAL_GANGS, GangSettings, PlacementRequest
from gpustack.server.decisions import has_files, request_for
from gpustack.server.facts import FactsCache, FactsResult
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

_READ_WITHIN = 10.0
"""Seconds that a plan waits for all headers together; reading goes on for whoever asks next."""
_PLANNING = threads("drain plans", 1)


@attrs.frozen(kw_only=True)
class DrainStep:
    """What would come of one instance. ``to``: where its replacement would run, in words; ``None`` where it would have
    no place, and ``why`` says why. ``ends``: instances of lower priority that would end for that."""

    instance: str
    model: str
    way: DrainWay
    to: str | None = None
    worker: str | None = None
    ends: tuple[str, ...] = ()
    why: str = ""


@attrs.frozen(kw_only=True)
class DrainOutlook:
    """What would come of all instances on the workers, in this order."""

    workers: tuple[str, ...]
    steps: tuple[DrainStep, ...]


async def plan_drain(
    store: Store, facts: FactsCache, worker_ids: Sequence[int], gangs: GangSettings = USUAL_GANGS
) -> DrainOutlook:
    """Decide on the present snapshot as the loops would; nothing is written. Waits ``_READ_WITHIN`` seconds at most for
    headers. Cancellable."""
    snapshot = store.snapshot
    there = {one.model_id for one in instances_on(worker_ids, snapshot)}
    models = [snapshot.models[key] for key in sorted(there) if key in snapshot.models]
    known = await _facts_of(models, facts)

    def ask(model: Model, instance: ModelInstance) -> PlacementRequest | str:
        result = known.get(model.id)
        if result is None and has_files(model):
            return f"The header of {model.source.readable} is being read; ask again in a moment"
        return request_for(model, instance, result, snapshot, gangs)

    plan = await _PLANNING.run(partial(drain_plan, worker_ids, snapshot, ask), abandon=True)
    names = (snapshot.workers[key].name for key in worker_ids if key in snapshot.workers)
    return DrainOutlook(workers=tuple(names), steps=tuple(_step(move, plan.after) for move in plan.moves))


async def _facts_of(models: Sequence[Model], facts: FactsCache) -> dict[int, FactsResult]:
    found: dict[int, FactsResult] = {}

    async def read(model: Model) -> None:
        result = await facts.wait_for(model, lambda known: known is not None, within=_READ_WITHIN)
        if result is not None:
            found[model.id] = result

    async with trio.open_nursery() as nursery:
        for model in filter(has_files, models):
            nursery.start_soon(read, model)
    return found


def _step(move: DrainMove, after: Snapshot) -> DrainStep:
    place = move.placement
    worker = None if place is None else after.workers.get(place.worker_id)
    return DrainStep(
        instance=move.instance,
        model=move.model,
        way=move.way,
        to=None if place is None else where(place, after),
        worker=None if worker is None else worker.name,
        ends=move.ends,
        why=move.why,
    )


def begin_drain(tx: Tx, worker_id: int, **fields: Any) -> Worker:
    """Have what the worker runs replaced elsewhere, with further fields of its record. How much that is at the
    beginning is kept, to show how far the drain is. Raises ``NotFound``."""
    worker = tx.get(Worker, worker_id)
    if worker is None or not worker.draining:
        fields["drain_total"] = len(list(instances_on([worker_id], tx.snapshot)))
    return tx.change(Worker, worker_id, **{**fields, "draining": True})
