"""The smallest change that would make a replica fit, found by deciding again in a snapshot so changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from gpustack.domain.instance import Claim, ModelInstance, Placement, claims_of, workers_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import Condition, SystemReserved, Worker, WorkerState
from gpustack.engines import llama_cpp
from gpustack.engines.llama_cpp import slots
from gpustack.engines.program import version_of
from gpustack.engines.registry import engine_by_name

from .decision import decide, decide_on_groups, impossibilities
from .estimate.safetensors_demand import context_of
from .gang import may_span
from .look import objections
from .placement import MAKES_ROOM, PlacementRequest, Rejection
from .reconcile import on_drained
from .worker_class import Group, alike

_LEAST_CTX = 1024
_MOST_TRIALS = 32
"""How many instances are tried, one at a time, as the one to stop; those with the smallest claims first."""
_MOST_GANG_TRIALS = 4
"""How often a change is tried for its effect on all workers together, which costs more than on one alone."""
_MOST_LOOKED_AT = 64
"""Among how many workers, those with most free memory, such a change is tried."""
_MOST_ADDED = 3
"""How many workers are added at most to see whether the model could be divided among them."""


def smallest_change(
    request: PlacementRequest, snapshot: Snapshot, reasons: tuple[Rejection, ...]
) -> str | None:
    """A sentence, or ``None`` where the deployment itself is at fault."""
    if impossibilities(request):
        return None
    for remedy in _REMEDIES:
        change = remedy(request, snapshot)
        if change is not None:
            return change
    return _more_machines(request, reasons)


def _older_replica(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    """A rolling update, or a drain, without spare room: the replica to be replaced holds the memory."""
    if request.instance is None:
        return None
    older = frozenset(
        instance.id
        for instance in snapshot.instances.values()
        if instance.model_id == request.model.id
        and instance.placement
        and (instance.generation < request.instance.generation or on_drained(instance, snapshot))
    )
    return f"wait until {MAKES_ROOM}" if older and _fits(request, _without(snapshot, older)) else None


def _wait_for_worker(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    groups = [
        group for group in alike(request, snapshot) if group[0].condition.state is not WorkerState.READY
    ]
    found = _first_that_helps(request, snapshot, [_ready(group[0]) for group in groups])
    if found is not None:
        return f"bring worker {found.name} back"
    ready = [_ready(worker) for worker in sorted((w for group in groups for w in group), key=lambda w: w.id)]
    if may_span(request) and len(ready) > 1 and _fits_together(request, _with(snapshot, *ready)):
        return f"bring {len(ready)} workers back that are away ({', '.join(w.name for w in ready[:3])}, …)"
    return None


def _ready(worker: Worker) -> Worker:
    return attrs.evolve(worker, condition=Condition(state=WorkerState.READY))


def _uncordon(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    shut = [worker for worker in _unlike(request, snapshot) if not worker.takes_instances]
    opened = [attrs.evolve(worker, cordoned=False, draining=False) for worker in shut]
    found = _first_that_helps(request, snapshot, opened)
    if found is None:
        return None
    if snapshot.workers[found.id].draining:
        return f"add a worker, or uncordon worker {found.name}, which ends its drain"
    return f"uncordon worker {found.name}"


def _allow_division(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    if may_span(request):
        return None
    model = attrs.evolve(request.model, distributed_inference_across_workers=True)
    allowed = attrs.evolve(request, model=model)
    if may_span(allowed) and _fits_together(allowed, snapshot):
        return "allow it to be divided among workers (distributed_inference_across_workers)"
    return None


def _allow_cpu(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    if request.model.cpu_offloading is not False:
        return None
    allowed = attrs.evolve(request, model=attrs.evolve(request.model, cpu_offloading=True))
    return "allow CPU offloading (cpu_offloading)" if _fits(allowed, snapshot) else None


def _shorter_context(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    """The largest power of two, below what is asked, with which it fits."""
    flag, asked = _context(request)
    if asked is None:
        return None

    def fits(size: int) -> bool:
        given = (*request.model.backend_parameters, f"{flag}={size}")
        model = attrs.evolve(request.model, backend_parameters=given)
        return _fits(attrs.evolve(request, model=model), snapshot)

    size = 1 << max((asked - 1).bit_length() - 1, 0)
    if size < _LEAST_CTX or not fits(_LEAST_CTX):  # then none does: every try looks at all workers
        return None
    while not fits(size):
        size //= 2
    return f"lower {flag} from {asked} to {size} or below"


def _context(request: PlacementRequest) -> tuple[str, int | None]:
    """The parameter that sets the length of a request, and that length; ``None`` where memory does not depend on it."""
    facts, engine = request.facts, engine_by_name(request.engine_name)
    if facts is None or not facts.is_complete or engine is None:
        return "", None
    if engine.name == llama_cpp.ENGINE.name:
        return "--ctx-size", slots(request.model).context
    if engine.memory is None or not engine.memory.context or not facts.caches:
        return "", None
    return engine.memory.context[0], context_of(request.model, facts, engine.memory)


def _stop_one(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    for instance, size in _by_size(request, snapshot)[:_MOST_TRIALS]:
        there = [snapshot.workers[key] for key in sorted(workers_of(instance)) if key in snapshot.workers]
        without = _without(snapshot, frozenset({instance.id}))
        if any(_fits(request, without, worker) for worker in there):
            return _stop(instance, size, there)
    if may_span(request):
        for instance, size in _by_size(request, snapshot)[-_MOST_GANG_TRIALS:]:
            if _fits_together(request, _without(snapshot, frozenset({instance.id}))):
                there = [snapshot.workers[k] for k in sorted(workers_of(instance)) if k in snapshot.workers]
                return _stop(instance, size, there)
    return None


def _stop(instance: ModelInstance, size: int, there: list[Worker]) -> str:
    where = ", ".join(worker.name for worker in there)
    return f"stop {instance.name} ({human_bytes(size)}) on {where}"


def _lower_reserve(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    for worker in _unlike(request, snapshot):
        bare = attrs.evolve(worker, system_reserved=SystemReserved(ram=0, vram=0))
        placement = _place(request.variants[-1], _with(snapshot, bare), bare)
        if placement is None:
            continue
        free = _with(snapshot, bare).free(bare, without=request.own_id)
        vram = [free.vram[index] - size for index, size in placement.claim.vram.items()]
        ram = (free.ram or 0) - placement.claim.ram
        if placement.claim.is_unified_memory:
            ram -= sum(placement.claim.vram.values())
        limits = [
            f"{word} {human_bytes(now)} to {human_bytes(most)} or below"
            for word, now, most in (
                ("ram from", worker.system_reserved.ram, ram),
                ("vram from", worker.system_reserved.vram, min(vram, default=0)),
            )
            if most < now and (word.startswith("ram") or vram)
        ]
        return f"lower the system reserve of worker {worker.name}: {', '.join(limits)}"
    return None


def _label(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    wanted = request.model.worker_selector
    if not wanted:
        return None
    for worker in _unlike(request, snapshot):
        labelled = attrs.evolve(worker, labels={**worker.labels, **wanted})
        if labelled.labels != worker.labels and _fits(request, _with(snapshot, labelled), labelled):
            return f"label worker {worker.name} with {_pairs(wanted)}, or add a worker so labelled"
    return None


def _other_gpus(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    if not request.gpu_ids:
        return None
    free = attrs.evolve(request, model=attrs.evolve(request.model, gpu_selector=None))
    return "select other GPUs, or none (gpu_selector)" if _fits(free, snapshot) else None


def _more_like_one(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    """Workers like one that is there, so that the model can be divided among them."""
    if not may_span(request) or request.gpu_ids:
        return None
    kinds: dict[object, Worker] = {}
    for worker in _unlike(request, snapshot):
        if not objections(request, worker, snapshot):
            kinds.setdefault(_kind(worker), worker)
    first = max(snapshot.workers, default=0) + 1
    for worker in sorted(kinds.values(), key=_weight, reverse=True)[:_MOST_GANG_TRIALS]:
        more = [attrs.evolve(worker, id=first + n, name=f"{worker.name}+{n}") for n in range(_MOST_ADDED)]
        if not _fits_together(request, _with(snapshot, *more)):
            continue
        fewer = (n for n in range(1, _MOST_ADDED) if _fits_together(request, _with(snapshot, *more[:n])))
        count = next(fewer, _MOST_ADDED)
        added = "a worker" if count == 1 else f"{count} workers"
        return f"add {added} like {worker.name}, to divide it among workers"
    return None


def _install(request: PlacementRequest, snapshot: Snapshot) -> str | None:
    """Where no worker has the engine, and nothing else is against one of them."""
    workers = _unlike(request, snapshot)
    if any(request.build_on(worker) is not None for worker in workers):
        return None
    for worker in workers:
        if len(objections(request, worker, snapshot)) == 1:
            version = version_of(request.model.backend_version)
            wanted = f"{request.engine_name} {version}" if version else request.engine_name
            return f"install {wanted} on worker {worker.name}, or add a worker that has it"
    return None


def _weight(worker: Worker) -> int:
    """Bytes of all its memory."""
    devices = sum(device.memory.total or 0 for device in worker.status.gpu_devices)
    return devices + (worker.status.memory.total or 0)


def _kind(worker: Worker) -> object:
    devices = [(device.type, device.memory.total) for device in worker.status.gpu_devices]
    return worker.status.memory.total, tuple(devices), worker.status.engines, worker.system_reserved


_REMEDIES: tuple[Callable[[PlacementRequest, Snapshot], str | None], ...] = (
    _older_replica,
    _wait_for_worker,
    _uncordon,
    _other_gpus,
    _allow_division,
    _allow_cpu,
    _shorter_context,
    _stop_one,
    _lower_reserve,
    _label,
    _more_like_one,
    _install,
)
"""The least costly first."""


def _more_machines(request: PlacementRequest, reasons: tuple[Rejection, ...]) -> str:
    labelled = f" labelled {_pairs(request.model.worker_selector)}" if request.model.worker_selector else ""
    shortages = [reason.shortage for reason in reasons if reason.shortage is not None]
    if shortages:
        nearest = min(shortages, key=lambda shortage: shortage.short)
        return f"add a worker{labelled} with {human_bytes(nearest.need)} of free {nearest.of}, or choose a smaller file"
    return f"add a worker{labelled}"


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _by_size(request: PlacementRequest, snapshot: Snapshot) -> list[tuple[ModelInstance, int]]:
    held = [
        (instance, sum(_size(claim) for _, claim in claims_of(instance.placement)))
        for instance in snapshot.instances.values()
        if instance.placement is not None
        and instance.deleted_at is None
        and instance.id not in request.own_id
    ]
    return sorted(held, key=lambda pair: (pair[1], pair[0].id))


def _size(claim: Claim) -> int:
    return claim.ram + sum(claim.vram.values())


def _unlike(request: PlacementRequest, snapshot: Snapshot) -> list[Worker]:
    """One worker, the first, of all that are alike: what helps or does not on one is the same on the others."""
    return [group[0] for group in alike(request, snapshot)]


def _place(request: PlacementRequest, snapshot: Snapshot, on: Worker | None = None) -> Placement | None:
    outcome = decide(request, snapshot, among=None if on is None else (on,))
    return outcome if isinstance(outcome, Placement) else None


def _fits(request: PlacementRequest, snapshot: Snapshot, on: Worker | None = None) -> bool:
    return _place(request, snapshot, on) is not None


def _first_that_helps(request: PlacementRequest, snapshot: Snapshot, changed: list[Worker]) -> Worker | None:
    """The first of the workers, as they would be then, with which it fits: on that one, else on it and others."""
    for worker in changed:
        if _fits(request, _with(snapshot, worker), worker):
            return worker
    for worker in changed[:_MOST_GANG_TRIALS] if may_span(request) else []:
        if _fits_together(request, _with(snapshot, worker)):
            return worker
    return None


def _fits_together(request: PlacementRequest, snapshot: Snapshot) -> bool:
    """Whether it fits among the workers with most free memory, which are those that gangs are made of."""

    def free(group: Group) -> int:
        here = snapshot.free(group[0], without=request.own_id)
        return sum(here.vram.values()) + (here.ram or 0)

    kept = [group for group in alike(request, snapshot) if not objections(request, group[0], snapshot)]
    among: list[Group] = []
    left = _MOST_LOOKED_AT
    for group in sorted(kept, key=lambda group: (-free(group), group[0].id)):
        among.append(group[:left])
        left -= len(among[-1])
        if left == 0:
            break
    return isinstance(decide_on_groups(request, snapshot, among), Placement)


def _with(snapshot: Snapshot, *changed: Worker) -> Snapshot:
    return snapshot.changed(*changed)


def _without(snapshot: Snapshot, ids: frozenset[int]) -> Snapshot:
    return snapshot.changed(without=ids)
