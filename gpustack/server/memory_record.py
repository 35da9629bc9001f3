"""Keeps what workers measure of engines, so that later estimates learn from it."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import timedelta
from typing import Final

import attrs

from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.memory_use import MeasuredMemory, MemoryPlan, MemoryRecord, MemorySample, TermBytes
from gpustack.domain.worker import Worker
from gpustack.policy.estimate.learnt import measured_terms, recent
from gpustack.store.transaction import Tx

MOST_RECORDS: Final = 256
FORGOTTEN_AFTER: Final = timedelta(days=90)
"""A record of which there was no run for so long."""
_LARGEST = 1 << 50
_LONGEST_TEXT = 255


def take_measured(tx: Tx, instance: ModelInstance, measured: MeasuredMemory) -> None:
    """Keep one sample of the runs of this kind; the last one of this instance is replaced.

    The figures are ``credible``. Nothing is kept where nobody estimated it term by term, or where its devices are of
    several kinds.
    """
    placement = instance.placement
    if placement is None or placement.memory is None or placement.subordinates:
        return
    worker = tx.get(Worker, placement.worker_id)
    device = None if worker is None else device_of(worker, placement)
    terms = measured_terms(placement.memory, measured)
    if device is None or not terms:
        return
    plan, build = placement.memory, measured.build[:_LONGEST_TEXT]
    sample = MemorySample(
        at=tx.now,
        instance_id=instance.id,
        worker_id=placement.worker_id,
        estimated={name: plan.estimated[name] for name in terms},
        measured=terms,
    )
    key = _key(plan, build, device)
    known = tx.find(MemoryRecord, key=key)
    if known is not None:
        tx.change(MemoryRecord, known.id, samples=recent((*known.samples, sample)))
        return
    _make_room(tx)
    tx.insert(
        MemoryRecord(
            key=key,
            engine=plan.engine,
            build=build,
            architecture=plan.architecture,
            device=device,
            settings=plan.settings,
            samples=(sample,),
        )
    )


def device_of(worker: Worker, placement: Placement) -> str | None:
    """The name that all devices of a placement have; empty for none, ``None`` where they differ or are not known."""
    found = {
        None if (device := worker.device(index)) is None else device.name for index in placement.gpu_indexes
    }
    return "" if not found else found.pop() if len(found) == 1 else None


def credible(measured: MeasuredMemory) -> MeasuredMemory:
    """The same without figures that no machine has."""

    def known(size: int | None) -> int | None:
        return size if size is not None and 0 <= size < _LARGEST else None

    terms: TermBytes = {name: size for name, size in measured.terms.items() if known(size) is not None}
    return attrs.evolve(
        measured,
        terms=terms,
        host=known(measured.host),
        host_peak=known(measured.host_peak),
        devices=known(measured.devices),
        devices_peak=known(measured.devices_peak),
    )


def _key(plan: MemoryPlan, build: str, device: str) -> str:
    words = (plan.engine, build, plan.architecture, device, plan.settings)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _make_room(tx: Tx) -> None:
    """Forget records that are too old; and where there are as many as there may be, the oldest one of the worker that
    told last of most of them, so that one that tells of ever other builds pushes out none but its own."""
    by_age = sorted(tx.all(MemoryRecord).values(), key=lambda one: (one.updated_at or tx.now, one.id))
    left: list[MemoryRecord] = []
    for record in by_age:
        if record.updated_at is not None and tx.now - record.updated_at > FORGOTTEN_AFTER:
            tx.delete(MemoryRecord, record.id)
        else:
            left.append(record)
    while len(left) >= MOST_RECORDS:
        told = Counter(map(_teller, left))
        most = max(told.values())
        victim = next(one for one in left if told[_teller(one)] == most)
        left.remove(victim)
        tx.delete(MemoryRecord, victim.id)


def _teller(record: MemoryRecord) -> int:
    return record.samples[-1].worker_id if record.samples else 0
