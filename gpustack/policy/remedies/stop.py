"""Stop a replica of another model."""

from __future__ import annotations

from gpustack.domain.instance import ModelInstance, claims_of, workers_of
from gpustack.domain.model import Model
from gpustack.domain.unit import human_bytes
from gpustack.policy.remedy import MODEL, FieldChange, Remedy, removal
from gpustack.policy.trial import MOST_TRIED, Trial

RANK = 65
KIND = "stop"
_MOST_TOGETHER = 8
"""How many are tried for the effect on all workers together where these are many: the largest, for it costs more."""


def find(trial: Trial) -> Remedy | None:
    """The one that holds least, of those that would make enough room; of higher priority only where no other would."""
    held = enough(trial)
    tried = held if trial.is_small else held[-_MOST_TOGETHER:]
    together = {instance.id for instance, _ in tried} if trial.spans else set()
    for instance, size in sorted(held, key=lambda pair: _outranks(pair[0], trial)):
        higher = ", of higher priority" if _outranks(instance, trial) else ""
        there = [trial.snapshot.workers[key] for key in sorted(workers_of(instance))]
        remedy = Remedy(
            kind=KIND,
            sentence=f"stop {instance.name} ({human_bytes(size)}{higher}) on {', '.join(one.name for one in there)}",
            changes=(removal(instance), *_fewer(instance, trial)),
            by_api=True,
        )
        alone = any(trial.helps(remedy, worker) for worker in there)
        if alone or (instance.id in together and trial.helps(remedy)):
            return remedy
    return None


def _outranks(instance: ModelInstance, trial: Trial) -> bool:
    model = trial.snapshot.get(Model, instance.model_id)
    return model is not None and model.priority > trial.request.model.priority


def enough(trial: Trial) -> list[tuple[ModelInstance, int]]:
    """Instances of other models with the bytes that they hold, of which there may be enough; the smallest first."""
    found: list[tuple[ModelInstance, int]] = []
    need = _least_need(trial)
    for instance in trial.snapshot.instances.values():
        placement = instance.placement
        if placement is None or instance.deleted_at is not None or instance.id in trial.request.own_id:
            continue
        there = workers_of(instance)
        if instance.model_id == trial.request.model.id or not there <= trial.snapshot.workers.keys():
            continue
        size = sum(claim.ram + sum(claim.vram.values()) for _, claim in claims_of(placement))
        if trial.spans or size + max(_free(trial, key) for key in there) >= need:
            found.append((instance, size))
    found.sort(key=lambda pair: (pair[1], pair[0].id))
    return found[:MOST_TRIED] if len(found) <= 2 * MOST_TRIED else _spaced(found)


def _spaced(held: list[tuple[ModelInstance, int]]) -> list[tuple[ModelInstance, int]]:
    """The smallest, and of the others some of each size up to the largest."""
    few = MOST_TRIED // 2
    step = len(held) // few
    return [*held[:few], *held[few::step], held[-1]]


def _least_need(trial: Trial) -> int:
    """Bytes that it takes on one worker at least, however it runs there."""
    last = trial.request.variants[-1].demand
    ways = [last.cpu()] if last.on_cpu else []
    if last.on_devices:
        need = last.devices((1.0,))
        ways.append(need.ram if last.total_layers is not None else need.ram + sum(need.vram))
    return min(ways, default=0)


def _free(trial: Trial, worker_id: int) -> int:
    free = trial.snapshot.free(trial.snapshot.workers[worker_id], without=trial.request.own_id)
    return (free.ram or 0) + sum(free.vram.values())


def _fewer(instance: ModelInstance, trial: Trial) -> list[FieldChange]:
    """One replica less of its model, or another would be started in its place."""
    model = trial.snapshot.get(Model, instance.model_id)
    if model is None or model.replicas < 1:
        return []
    return [FieldChange(of=MODEL, id=model.id, name=model.name, field="replicas", value=model.replicas - 1)]
