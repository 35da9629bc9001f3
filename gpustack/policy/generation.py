"""Which changes of a deployment its running instances follow by themselves, so that they need no replacing."""

from __future__ import annotations

from collections.abc import Iterable

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.engines.adapter import loads_while_running
from gpustack.engines.registry import engine_at

_NOTHING: frozenset[str] = frozenset()
_ADAPTERS = frozenset({"lora_adapters"})


def taken_up(before: Model, instances: Iterable[ModelInstance]) -> frozenset[str]:
    """The fields of a deployment, as it was before a change, whose change the instances that run take up.

    Those are its LoRA adapters, where its engine loads them while it runs and was started with room for them. A gang is
    started anew: the files have to be on each of its workers. So are replicas of which all have failed: the change may
    be what mends them, and they need not wait for their next try.
    """
    own = [one for one in instances if one.generation == before.generation and one.deleted_at is None]
    if any(one.placement is not None and one.placement.subordinates for one in own):
        return _NOTHING
    if own and all(one.state is InstanceState.ERROR for one in own):
        return _NOTHING
    path = next((one.resolved_path for one in own if one.resolved_path), None)
    return _ADAPTERS if loads_while_running(engine_at(before, path), before) else _NOTHING
