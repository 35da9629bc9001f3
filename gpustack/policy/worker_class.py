"""Workers that are the same to a decision but for their names: one of them is looked at for all."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import claims_of, place_of
from gpustack.domain.snapshot import ClaimIndex, Held, Snapshot
from gpustack.domain.worker import Worker, WorkerState

from .gang import is_loopback
from .placement import PlacementRequest
from .standing import Standing, standing_of


class DeviceKind(NamedTuple):
    """What a device is to a decision."""

    type: str
    fault: str | None
    total: int | None
    """Bytes."""
    is_unified: bool
    compute_capability: str | None
    is_part: bool
    """Whether it is a part of a card."""
    name: str


@attrs.frozen(cache_hash=True)
class Shape:
    """Everything of a worker on which decisions and their sentences depend, but for its names, labels and claims."""

    facts: tuple[Hashable, ...]
    devices: tuple[DeviceKind, ...]
    """What each device is, in the order in which the worker tells them."""

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """The devices as numbers: equal ones are of equal devices."""
        known: dict[Hashable, int] = {}
        return tuple([known.setdefault(kind, len(known)) for kind in self.devices])

    @cached_property
    def types(self) -> dict[int, str]:
        """The type of the devices of each kind; parts of cards, which no process has beside others, are left out."""
        pairs = zip(self.kinds, self.devices, strict=True)
        return {kind: device.type for kind, device in pairs if not device.is_part}

    @cached_property
    def totals(self) -> dict[int, int | None]:
        """Bytes of a device of each kind."""
        return {kind: device.total for kind, device in zip(self.kinds, self.devices, strict=True)}


@attrs.frozen(cache_hash=True)
class Key:
    """What the workers of a class have in common."""

    shape: Shape
    ram: int | None
    """Bytes of host memory that are free."""
    count: int
    """Claims."""
    devices: tuple[tuple[int, int, int], ...]
    """Of each device its kind, the bytes that are free (-1 where it cannot be used) and the claims on it, whichever of
    equal devices that is."""
    unclaimed: tuple[tuple[int, int, int], ...]
    """The same of what is in use there and not claimed, by strangers and beyond claims; empty where there is none."""


Group = tuple[Worker, ...]
"""Workers that are the same to a request, in the order of their ids."""


@attrs.frozen(eq=False, repr=False)
class WorkerClasses:
    """All workers by shape and freedom. One that follows another costs what has changed between them."""

    workers: Mapping[int, Worker]
    claims: ClaimIndex
    keys: Mapping[int, Key]
    """Of each worker, by its id."""
    groups: Mapping[Key, Group]
    """The workers of a class, in the order of their ids."""
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
        touched = self._touched(snapshot)
        gone = self.workers.keys() - workers.keys() if workers is not self.workers else frozenset()
        if not touched and not gone:
            return attrs.evolve(self, workers=workers, claims=snapshot.claims)
        shapes = self.shapes if len(self.shapes) <= 2 * len(workers) + _SPARE else {}
        keys, said = dict(self.keys), dict(self.said)
        for worker_id in gone:
            del keys[worker_id], said[worker_id]
        for worker_id in touched:
            worker = workers[worker_id]
            if self.workers.get(worker_id) is worker and shapes is self.shapes:
                shape = keys[worker_id].shape
            else:
                made = _shape_of(worker)
                shape = shapes.setdefault(made, made)
                said[worker_id] = _said_of(worker)
            keys[worker_id] = _key_of(worker, shape, snapshot)
        groups = self._regrouped(workers, keys, touched, gone)
        is_same = (
            not gone and shapes is self.shapes and all(self.keys.get(key) == keys[key] for key in touched)
        )
        if is_same and all(
            self.said[key] == said[key] and _seats(former.get(key, ())) == _seats(held.get(key, ()))
            for key in touched
        ):
            return attrs.evolve(self, workers=workers, claims=snapshot.claims, groups=groups)
        return WorkerClasses(workers, snapshot.claims, keys, groups, said, shapes, self.looks)

    def _touched(self, snapshot: Snapshot) -> list[int]:
        """The workers that are not as they were, or whose claims are not."""
        workers, claims = snapshot.workers, snapshot.claims
        if workers is self.workers and claims.made_from is self.claims.token:
            return [key for key in claims.touched if key in workers]
        held, former = claims.by_worker, self.claims.by_worker
        return [
            key
            for key, worker in workers.items()
            if self.workers.get(key) is not worker or held.get(key, ()) is not former.get(key, ())
        ]

    def _regrouped(
        self,
        workers: Mapping[int, Worker],
        keys: Mapping[int, Key],
        touched: Collection[int],
        gone: Collection[int],
    ) -> Mapping[Key, Group]:
        groups = dict(self.groups)
        left = {*touched, *gone}
        joins: dict[Key, list[Worker]] = {self.keys[key]: [] for key in left if key in self.keys}
        for worker_id in touched:
            joins.setdefault(keys[worker_id], []).append(workers[worker_id])
        for key, come in joins.items():
            now = [worker for worker in groups.get(key, ()) if worker.id not in left] + come
            if now:
                groups[key] = tuple(sorted(now, key=_id))
            else:
                groups.pop(key, None)
        return groups


_SPARE = 64
"""Shapes that are kept beyond two for each worker before all are found anew."""


def classes_of(snapshot: Snapshot) -> WorkerClasses:
    """The classes of the workers of a snapshot, worked out once; from those of the former one, where it has one."""
    known: WorkerClasses | None = snapshot.worked_out.get(WorkerClasses)
    if known is None:
        former = snapshot.former
        while former is not None and WorkerClasses not in former.worked_out and former.former is not None:
            former = former.former  # of those between nobody has asked
        made = WorkerClasses.of(snapshot) if former is None else classes_of(former).following(snapshot)
        known = snapshot.worked_out[WorkerClasses] = made
        snapshot.forget_former()
    return known


def known_shape(worker: Worker, snapshot: Snapshot) -> Shape | None:
    """The shape of a worker of the snapshot, if the classes of that have been worked out."""
    classes: WorkerClasses | None = snapshot.worked_out.get(WorkerClasses)
    if classes is None or classes.workers.get(worker.id) is not worker:
        return None
    return classes.keys[worker.id].shape


def alike(request: PlacementRequest, snapshot: Snapshot) -> list[Group]:
    """All workers, those together that are the same to this request; each class, and all, in the order of ids.

    Workers that hold a replica of its model, or were picked, stand alone.
    """
    return sorted(unsorted_alike(request, snapshot), key=lambda group: group[0].id)


def unsorted_alike(request: PlacementRequest, snapshot: Snapshot) -> list[Group]:
    """The same in any order, which costs least."""
    classes, workers = classes_of(snapshot), snapshot.workers
    alone = holders(request, snapshot)
    if request.gpu_ids:
        alone |= {worker.id for worker in workers.values() if worker.name in request.picked}
    classed = dict(classes.groups)
    for key in {classes.keys[worker_id] for worker_id in alone}:
        classed[key] = tuple(worker for worker in classed[key] if worker.id not in alone)
    apart = list(_by_standing(classes, classed, standing_of(request, snapshot)))
    groups: Iterable[Group] = [*filter(None, classed.values()), *apart, *((workers[key],) for key in alone)]
    if request.model.worker_selector:
        groups = [part for group in groups for part in _by_labels(group, request.model.worker_selector)]
    return list(groups)


def _by_standing(classes: WorkerClasses, classed: dict[Key, Group], standing: Standing) -> Iterable[Group]:
    """Take the classes out of which some members stand otherwise, and give them in parts that stand alike."""
    for key in {classes.keys[worker_id] for worker_id in standing.marks}:
        found: dict[object, list[Worker]] = {}
        for worker in classed.pop(key):
            found.setdefault(standing.of(worker.id), []).append(worker)
        yield from map(tuple, found.values())


def holders(request: PlacementRequest, snapshot: Snapshot) -> set[int]:
    """The ids of the workers that hold a replica of the request's model."""
    placed = (snapshot.instances[key] for key in snapshot.claims.by_model.get(request.model.id, ()))
    places = (place for place in map(place_of, placed) if place is not None)
    return {key for place in places for key, _ in claims_of(place) if key in snapshot.workers}


def _by_labels(group: Group, wanted: Iterable[str]) -> Iterable[Group]:
    """The workers of a class, those together whose labels are the same as far as they count."""
    found: dict[tuple[str | None, ...], list[Worker]] = {}
    for worker in group:
        found.setdefault(tuple(map(worker.labels.get, wanted)), []).append(worker)
    return map(tuple, found.values())


def _id(worker: Worker) -> int:
    return worker.id


def _shape_of(worker: Worker) -> Shape:
    status, condition = worker.status, worker.condition
    is_ready = condition.state is WorkerState.READY
    facts = (
        (bool(worker.ip), is_loopback(worker.ip)),
        status.kernel.name,
        None if status.ray is None else (status.ray.state, status.ray.message),
        worker.system_reserved,
        (condition.state, "" if is_ready else condition.why, worker.cordoned, worker.draining),
        worker.taints,
        tuple(device.links for device in status.gpu_devices if device.links),
        (status.memory.total, status.memory.is_unified_memory),
        status.engines,
    )
    return Shape(facts, tuple(map(_kind_of, status.gpu_devices)))


def _said_of(worker: Worker) -> Hashable:
    return worker.name, worker.ip, tuple(worker.labels.items())


def _seats(held: Held) -> Hashable:
    """Of claims, whose they are: what to stop, or to wait for, depends on that."""
    return tuple(
        (one.id, one.generation, one.placement, one.reserved, one.deleted_at is None) for one, _ in held
    )


def _kind_of(device: Device) -> DeviceKind:
    memory = device.memory
    is_part = device.slice_profile is not None
    return DeviceKind(
        device.type,
        device.fault,
        memory.total,
        memory.is_unified_memory,
        device.compute_capability,
        is_part,
        device.name,
    )


def _key_of(worker: Worker, shape: Shape, snapshot: Snapshot) -> Key:
    free = snapshot.free(worker)
    vram, sharing, there = free.vram, free.sharing, worker.status.gpu_devices
    devices = [
        (kind, vram.get(device.index, -1), sharing.get(device.index, 0))
        for kind, device in zip(shape.kinds, there, strict=True)
    ]
    devices.sort()
    is_strange = any([device.memory.unclaimed for device in there])
    unclaimed = tuple(sorted(map(_unclaimed, shape.kinds, there))) if is_strange else ()
    count = len(snapshot.claims.by_worker.get(worker.id, ()))
    return Key(shape, free.ram, count, tuple(devices), unclaimed)


def _unclaimed(kind: int, device: Device) -> tuple[int, int, int]:
    return kind, device.memory.foreign or 0, device.memory.overrun or 0
