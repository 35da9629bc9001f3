"""What a request finds on one worker, in sentences and as data: for all workers that are the same to it at once."""

from __future__ import annotations

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import Placement
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import Worker

from .capability import is_too_old
from .capacity import driven
from .decision import decide_alone, impossibilities
from .estimate.need import MemoryDemand
from .location import where
from .look import Looks, filters_against
from .placement import Shortage
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
    devices = _devices(looks, worker, snapshot)
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


def _devices(looks: Looks, worker: Worker, snapshot: Snapshot) -> tuple[DeviceVerdict, ...]:
    request, least, build = looks.request, looks.variants[-1], looks.request.build_on(worker)
    free = snapshot.free(worker, without=request.own_id)
    usable = {device.index for device in driven(request, worker)}
    capability = request.capability
    held: dict[int, list[str]] = {}
    for instance, claim in snapshot.claims_on(worker.id):
        if instance.id not in request.own_id:
            for index in claim.vram:
                held.setdefault(index, []).append(instance.name)

    def of(device: Device) -> DeviceVerdict:
        there = free.vram.get(device.index)
        made = DeviceVerdict(
            index=device.index,
            type=device.type,
            total=device.memory.total,
            free=there,
            held_by=tuple(held.get(device.index, ())),
        )
        if device.fault is not None:
            return attrs.evolve(made, holds=False, sentence=f"it cannot be used: {device.fault}")
        if build is not None and device.index not in usable:
            told = f"no build of {request.engine_name} there drives it"
            return attrs.evolve(made, holds=False, sentence=told)
        if capability is not None and is_too_old(device, capability):
            return attrs.evolve(made, holds=False, sentence="it is too old for the model")
        need = _whole(least.at(build, device.name).demand, device)
        if need is None or there is None:
            return made
        told = "" if need <= there else f"short by {human_bytes(need - there)} for all of it"
        return attrs.evolve(made, need=need, holds=need <= there, sentence=told)

    return tuple(map(of, worker.status.gpu_devices))


def _whole(demand: MemoryDemand, device: Device) -> int | None:
    """Bytes that one device needs for the whole model, with as few requests at a time as may be; ``None`` where nothing
    is known of it."""
    if not demand.on_devices or (demand.device_counts and 1 not in demand.device_counts):
        return None
    return demand.taken(demand.devices((1.0,)).vram[0], device.memory.total) or None
