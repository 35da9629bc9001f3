"""What a request finds on one worker, in sentences and as data: for all workers that are the same to it at once."""

from __future__ import annotations

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import Placement
from gpustack.domain.snapshot import FreeMemory, Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import Worker

from .capability import is_too_old
from .capacity import driven
from .decision import decide_alone, impossibilities
from .location import where
from .look import Looks, filters_against
from .placement import PlacementRequest, Shortage
from .schedule import unjudged
from .seat import Score, scores_of, seated
from .worker_class import Group

_UNREAD = "nothing is against it, but what the model needs is known only once its file can be read"
UNKNOWN_YET = frozenset({"build", "measured"})
"""Filters that rule a worker out as long as it has not reported."""


@attrs.frozen(kw_only=True)
class Binding:
    """One thing that is against a worker. ``rule`` is the filter that says so, ``deployment``, ``memory``, or ``gpus``
    (how many, or which). Bytes of ``memory`` are those of the nearest way to fit."""

    rule: str
    sentence: str
    of: str = ""
    """Which memory: ``memory`` or ``video memory``, perhaps as a share."""
    need: int | None = None
    free: int | None = None
    total: int | None = None
    short: int | None = None


@attrs.frozen(kw_only=True)
class DeviceVerdict:
    """One device, in bytes: ``need`` is what the whole model would take of it; ``None`` where that is not known, or is
    not held by one device. ``held_by`` are the instances that hold memory there."""

    index: int
    type: str
    total: int | None
    free: int | None
    need: int | None = None
    holds: bool | None = None
    """Whether all of it would fit there."""
    sentence: str = ""
    """Why it is not used, or what it is short of; empty where nothing is against it."""
    held_by: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class WorkerVerdict:
    """How it would fit on one worker alone, or everything that is against that; the same is true of the ``others``,
    which have the same hardware and as much free.

    ``fits`` is ``None`` where it is not known yet: the worker has not reported, or what the model needs is unknown.
    """

    worker_id: int
    worker: str
    fits: bool | None
    sentences: tuple[str, ...]
    others: tuple[str, ...] = ()
    binds: tuple[Binding, ...] = ()
    devices: tuple[DeviceVerdict, ...] = ()
    score: float | None = None
    """Of the place there, by which it is compared with others that are as good in what counts more."""
    scores: tuple[Score, ...] = ()


Found = tuple[WorkerVerdict, Placement | None]
"""A verdict, and the place on that worker."""


def verdicts_of(looks: Looks, group: Group, snapshot: Snapshot, *, unread: bool) -> list[Found]:
    """The verdict on workers that are alike: one, but for those of which one meets a fault that nobody foresaw, which
    are told one by one. ``unread``: what the model needs could not be read."""
    try:
        return [_verdict(looks, group, snapshot, unread=unread)]
    except Exception as error:  # noqa: BLE001  whatever it is, it is this worker's
        met = _of(group[:1], None, (unjudged(group[0], error).sentence,))
        alone = (verdicts_of(looks, (one,), snapshot, unread=unread) for one in group[1:])
        return [(met, None), *(found for each in alone for found in each)]


def _of(group: Group, fits: bool | None, sentences: tuple[str, ...]) -> WorkerVerdict:
    first, *others = group
    return WorkerVerdict(
        worker_id=first.id,
        worker=first.name,
        fits=fits,
        sentences=sentences,
        others=tuple(worker.name for worker in others),
    )


def _verdict(looks: Looks, group: Group, snapshot: Snapshot, *, unread: bool) -> Found:
    request, worker = looks.request, group[0]
    binds = [Binding(rule="deployment", sentence=fault) for fault in impossibilities(request)]
    filters = filters_against(request, worker, snapshot)
    if not worker.has_reported:
        filters = tuple((rule, told) for rule, told in filters if rule != "measured")
    binds += [Binding(rule=rule, sentence=told) for rule, told in filters]
    devices = tuple(_device(request, device, worker, snapshot) for device in worker.status.gpu_devices)
    if binds:
        awaited = not worker.has_reported and all(bind.rule in UNKNOWN_YET for bind in binds)
        told = tuple(bind.sentence for bind in binds)
        verdict = _of(group, None if awaited else False, told)
        return attrs.evolve(verdict, binds=tuple(binds), devices=devices), None
    if unread:
        return _of(group, None, (_UNREAD,)), None
    found = decide_alone(worker, looks, snapshot)
    if isinstance(found, Placement):
        fits = (f"fits on {where(found, snapshot)}", *([found.note] if found.note else ()))
        seat = seated(found, snapshot)
        scores = () if seat is None else scores_of(seat, request, snapshot)
        verdict = _of(group, True, fits)
        return attrs.evolve(verdict, devices=devices, score=found.score, scores=scores), found
    binds = [_binding(reason.sentence, reason.shortage) for reason in found]
    told = tuple(bind.sentence for bind in binds)
    return attrs.evolve(_of(group, False, told), binds=tuple(binds), devices=devices), None


def _binding(sentence: str, shortage: Shortage | None) -> Binding:
    if shortage is None:
        return Binding(rule="gpus", sentence=sentence)
    return Binding(
        rule="memory",
        sentence=sentence,
        of=shortage.of,
        need=shortage.need,
        free=shortage.free,
        total=shortage.total,
        short=shortage.short,
    )


def _device(request: PlacementRequest, device: Device, worker: Worker, snapshot: Snapshot) -> DeviceVerdict:
    free = snapshot.free(worker, without=request.own_id)
    made = DeviceVerdict(
        index=device.index,
        type=device.type,
        total=device.memory.total,
        free=free.vram.get(device.index),
        held_by=tuple(
            instance.name
            for instance, claim in snapshot.claims_on(worker.id)
            if device.index in claim.vram and instance.id not in request.own_id
        ),
    )
    asked = request.at(request.build_on(worker), device.name)
    need, capability = _whole(asked, device), request.capability
    if device.fault is not None:
        return attrs.evolve(made, holds=False, sentence=f"it cannot be used: {device.fault}")
    if request.build_on(worker) is not None and device not in driven(request, worker):
        told = f"no build of {request.engine_name} there drives it"
        return attrs.evolve(made, holds=False, sentence=told)
    if capability is not None and is_too_old(device, capability):
        return attrs.evolve(made, holds=False, sentence="it is too old for the model")
    if need is None or made.free is None:
        return made
    return attrs.evolve(made, need=need, holds=need <= made.free, sentence=_short(need, made.free, free))


def _short(need: int, there: int, free: FreeMemory) -> str:
    if need <= there:
        return ""
    return f"short by {human_bytes(need - there)} for all of it"


def _whole(request: PlacementRequest, device: Device) -> int | None:
    """Bytes that one device needs for the whole model, with as few requests at a time as may be; ``None`` where nothing
    is known of it."""
    demand = request.variants[-1].demand
    if not demand.on_devices or (demand.device_counts and 1 not in demand.device_counts):
        return None
    return demand.taken(demand.devices((1.0,)).vram[0], device.memory.total) or None
