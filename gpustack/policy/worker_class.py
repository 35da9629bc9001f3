"""Workers that are the same to a decision but for their names: one of them is looked at for all."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import workers_of
from gpustack.domain.snapshot import ClaimIndex, Held, Snapshot
from gpustack.domain.worker import Worker, WorkerState

from .gang import is_loopback
from .placement import PlacementRequest


@attrs.frozen(cache_hash=True)
class Shape:
    """Everything of a worker on which decisions and their sentences depend, but for its names, labels and claims."""

    facts: tuple[Hashable, ...]
    devices: tuple[Hashable, ...]
    """What each device is, in the order in which the worker tells them."""


Key = tuple[Shape, Hashable]
"""A shape, and what is free and held there."""


@attrs.frozen(eq=False, repr=False)
class WorkerClasses:
    """All workers by shape and freedom. One that follows another costs what has changed between them."""

    workers: Mapping[int, Worker]
    claims: ClaimIndex
    keys: Mapping[int, Key]
    """Of each worker, by its id."""
    members: Mapping[Key, tuple[int, ...]]
    """The ids of the workers of a class, ascending."""
    said: Mapping[int, Hashable]
    """Of each worker, what sentences say of it and its class does not."""
    shapes: dict[Shape, Shape] = attrs.field(factory=dict)
    """One object of each shape, so that equal ones are found by identity; it only grows."""
    looks: dict[Any, Any] = attrs.field(factory=dict)
    """What requests found on workers (``look.py``), kept from snapshot to snapshot."""
    token: object = attrs.field(factory=object)
    """The same object as long as nothing changes on which a decision or its sentences depend."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> WorkerClasses:
        return cls({}, ClaimIndex({}, {}, {}), {}, {}, {}).following(snapshot)

    def following(self, snapshot: Snapshot) -> WorkerClasses:
        """Those of ``snapshot``, in which most is the same; with the same token if all is that decisions depend on."""
        workers, held, former = snapshot.workers, snapshot.claims.by_worker, self.claims.by_worker
        touched = [
            key
            for key, worker in workers.items()
            if self.workers.get(key) is not worker or held.get(key, ()) is not former.get(key, ())
        ]
        gone = self.workers.keys() - workers.keys()
        if not touched and not gone:
            return attrs.evolve(self, workers=workers, claims=snapshot.claims)
        shapes = self.shapes if len(self.shapes) <= 2 * len(workers) + _SPARE else {}
        keys, said = dict(self.keys), dict(self.said)
        for worker_id in gone:
            del keys[worker_id], said[worker_id]
        for worker_id in touched:
            worker = workers[worker_id]
            if self.workers.get(worker_id) is worker and shapes is self.shapes:
                shape = keys[worker_id][0]
            else:
                made = _shape_of(worker)
                shape = shapes.setdefault(made, made)
                said[worker_id] = _said_of(worker)
            keys[worker_id] = shape, _freedom_of(worker, shape, snapshot)
        moved = [key for key in touched if self.keys.get(key) != keys[key]]
        is_same = not moved and not gone and shapes is self.shapes
        if is_same and all(
            self.said[key] == said[key] and _seats(former.get(key, ())) == _seats(held.get(key, ()))
            for key in touched
        ):
            return attrs.evolve(self, workers=workers, claims=snapshot.claims)
        members = self._regrouped(keys, moved, gone)
        return WorkerClasses(workers, snapshot.claims, keys, members, said, shapes, self.looks)

    def _regrouped(
        self, keys: Mapping[int, Key], moved: Iterable[int], gone: Collection[int]
    ) -> Mapping[Key, tuple[int, ...]]:
        joins: dict[Key, set[int]] = {}
        leaves: dict[Key, set[int]] = {}
        for worker_id in moved:
            joins.setdefault(keys[worker_id], set()).add(worker_id)
            if worker_id in self.keys:
                leaves.setdefault(self.keys[worker_id], set()).add(worker_id)
        for worker_id in gone:
            leaves.setdefault(self.keys[worker_id], set()).add(worker_id)
        members = dict(self.members)
        for key in joins.keys() | leaves.keys():
            now = (set(members.get(key, ())) - leaves.get(key, set())) | joins.get(key, set())
            if now:
                members[key] = tuple(sorted(now))
            else:
                members.pop(key, None)
        return members


Group = tuple[Worker, ...]
"""Workers that are the same to a request, in the order of their ids."""

_SPARE = 64
"""Shapes that are kept beyond two for each worker before all are found anew."""


def classes_of(snapshot: Snapshot) -> WorkerClasses:
    """The classes of the workers of a snapshot, worked out once; from those of the former one, where it has one."""
    known: WorkerClasses | None = snapshot.worked_out.get(WorkerClasses)
    if known is None:
        former = snapshot.former
        made = WorkerClasses.of(snapshot) if former is None else classes_of(former).following(snapshot)
        known = snapshot.worked_out[WorkerClasses] = made
        snapshot.forget_former()
    return known


def alike(request: PlacementRequest, snapshot: Snapshot) -> list[Group]:
    """All workers, those together that are the same to this request; each class, and all, in the order of ids.

    Workers that hold a replica of its model, or were picked, stand alone.
    """
    classes, workers = classes_of(snapshot), snapshot.workers
    placed = (snapshot.instances[key] for key in snapshot.claims.by_model.get(request.model.id, ()))
    alone = {worker_id for instance in placed for worker_id in workers_of(instance) if worker_id in workers}
    if request.gpu_ids:
        alone |= {worker.id for worker in workers.values() if worker.name in request.picked}
    selector = request.model.worker_selector
    found: list[Group] = [(workers[key],) for key in alone]
    for ids in classes.members.values():
        kept = [workers[key] for key in ids if key not in alone] if alone else [workers[key] for key in ids]
        if not kept:
            continue
        if not selector:
            found.append(tuple(kept))
            continue
        by_labels: dict[tuple[str | None, ...], list[Worker]] = {}
        for worker in kept:
            by_labels.setdefault(tuple(map(worker.labels.get, selector)), []).append(worker)
        found += map(tuple, by_labels.values())
    found.sort(key=lambda group: group[0].id)
    return found


def _shape_of(worker: Worker) -> Shape:
    status, condition = worker.status, worker.condition
    is_ready = condition.state is WorkerState.READY
    facts = (
        (bool(worker.ip), is_loopback(worker.ip)),
        status.kernel.name,
        None if status.ray is None else (status.ray.state, status.ray.message),
        worker.system_reserved,
        (condition.state, "" if is_ready else condition.why, worker.cordoned, worker.draining),
        (status.memory.total, status.memory.is_unified_memory),
        status.engines,
    )
    return Shape(facts, tuple(map(_kind_of, status.gpu_devices)))


def _said_of(worker: Worker) -> Hashable:
    return worker.name, worker.ip, tuple(worker.labels.items())


def _seats(held: Held) -> Hashable:
    """Of claims, whose they are: what to stop, or to wait for, depends on that."""
    return tuple((one.id, one.generation, one.placement, one.deleted_at is None) for one, _ in held)


def _kind_of(device: Device) -> Hashable:
    memory = device.memory
    return device.type, device.fault, memory.total, memory.is_unified_memory, device.compute_capability


def _freedom_of(worker: Worker, shape: Shape, snapshot: Snapshot) -> Hashable:
    """What is free and held, whichever of its equal devices that is."""
    free = snapshot.free(worker)
    kinds: dict[Hashable, int] = {}
    devices = sorted(
        (
            kinds.setdefault(kind, len(kinds)),
            free.vram.get(device.index, -1),
            free.sharing.get(device.index, 0),
            device.memory.foreign or 0,
            device.memory.overrun or 0,
        )
        for kind, device in zip(shape.devices, worker.status.gpu_devices, strict=True)
    )
    return free.ram, len(snapshot.claims.by_worker.get(worker.id, ())), tuple(devices)
