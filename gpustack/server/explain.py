"""Why an instance is where it is, or why it waits, worker by worker."""

from __future__ import annotations

from functools import partial

import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.errors import NotFound
from gpustack.nursery.limiter import threads
from gpustack.nursery.wake import Wake
from gpustack.policy.explain import Explanation, explain
from gpustack.server.facts import FactsCache, FactsResult
from gpustack.server.scheduler import has_files
from gpustack.store.store import Store

_READ_WITHIN = 5.0
"""Seconds that somebody who asks why waits for a header."""
_THREADS = threads("explanations", 1)


async def explain_instance(store: Store, facts: FactsCache, instance_id: int) -> Explanation:
    """Decide again on the present snapshot and tell how it came out; waits a little for a header that is being read.

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
        finding = await _finding_of(facts, model)
        if finding is None:
            fault = f"The header of {model.source.readable} is being read; ask again in a moment"
        else:
            known, fault, lasting = finding.facts, finding.fault, finding.definite
    look = partial(explain, model, instance, snapshot, known, fault=fault, lasting=lasting)
    return await _THREADS.run(look, abandon=True)


async def _finding_of(facts: FactsCache, model: Model) -> FactsResult | None:
    """What is known of the model's source; after a restart nothing is, until it has been read once more."""
    wake = Wake()
    with facts.telling(wake), trio.move_on_after(_READ_WITHIN):
        while (finding := facts.ask(model)) is None:
            await wake.wait()
        return finding
    return None
