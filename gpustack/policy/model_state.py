"""In one word how a model fares: of how many replicas are wanted, how many serve, and what the others do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model

States = Mapping[InstanceState, int]
"""How many instances of a model there are in each state, without those that are being ended."""


class ModelState(StrEnum):
    """What a list of models shows first."""

    STOPPED = "stopped"
    """None is wanted."""
    READY = "ready"
    """As many serve as are wanted."""
    PARTLY_READY = "partly_ready"
    """Some serve."""
    FAILED = "failed"
    """None serves, and at least one has failed."""
    WAITING = "waiting"
    """None serves, and all wait for a place."""
    STARTING = "starting"
    """None serves yet."""


_WAITING = frozenset({InstanceState.PENDING, InstanceState.ANALYZING})


def model_state(model: Model, states: States) -> ModelState:
    """How it fares; instances that serve are counted in ``states``, not in the record, which follows them."""
    serving = states.get(InstanceState.RUNNING, 0)
    if model.replicas == 0:
        return ModelState.STOPPED
    if serving:
        return ModelState.READY if serving >= model.replicas else ModelState.PARTLY_READY
    if states.get(InstanceState.ERROR):
        return ModelState.FAILED
    return ModelState.WAITING if _WAITING.issuperset(states) else ModelState.STARTING


def counted(instance: ModelInstance | None) -> InstanceState | None:
    """As what an instance counts; ``None`` for one that is being ended, or that is not there."""
    return None if instance is None or instance.deleted_at is not None else instance.state
