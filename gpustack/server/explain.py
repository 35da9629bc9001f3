"""Why an instance is where it is, or why it waits, worker by worker."""

from __future__ import annotations

from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.errors import NotFound
from gpustack.policy.explain import Explanation, explain
from gpustack.server.facts import FactsSource
from gpustack.store.store import Store


def explain_instance(store: Store, facts: FactsSource, instance_id: int) -> Explanation:
    """Decide again on the present snapshot and tell how it came out. Raises ``NotFound``."""
    snapshot = store.snapshot
    instance = snapshot.get(ModelInstance, instance_id)
    if instance is None:
        raise NotFound(f"Model instance {instance_id} does not exist")
    model = snapshot.get(Model, instance.model_id)
    if model is None:
        raise NotFound(f"The model of instance {instance.name} does not exist any more")
    finding = facts.ask(model)
    return explain(
        model,
        instance,
        snapshot,
        None if finding is None else finding.facts,
        fault=None if finding is None else finding.fault,
    )
