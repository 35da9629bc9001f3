"""What tells workers apart to one request beyond their class: the files that are there, and whom it would be beside.

Only workers of which there is something to tell are marked, so that it costs nothing where there is nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property

import attrs

from gpustack.domain.affinity import HOSTNAME, AntiAffinityTerm
from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, claims_of, place_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Held, Snapshot
from gpustack.domain.worker import Worker

from .model_file import EvictionPlan, evict
from .placement import PlacementRequest

_STEPS = 4
"""A download counts in so many steps, so that not each of its reports makes a difference."""


_FETCHING = frozenset(
    {
        InstanceState.PENDING,
        InstanceState.SCHEDULED,
        InstanceState.INITIALIZING,
        InstanceState.DOWNLOADING,
    }
)
"""States in which files may still have to be fetched."""


@attrs.frozen
class Neighbour:
    """An instance that a place would be beside, against an anti-affinity."""

    name: str
    shared: str = ""
    """The label that is shared; empty where it is the worker."""
    demanded_by: str = ""
    """The name of the model whose anti-affinity that is; empty where it is the request's own."""


@attrs.frozen
class DiskShortage:
    """Bytes that would have to be fetched, and that may still be written where they go."""

    need: int
    free: int


@attrs.frozen
class WorkerMark:
    """What is to be told of one worker: workers of a class are alike to the request if their marks are equal."""

    locality: float = 0.0
    """The share of the model's files that is there, 0 to 1; what is being fetched counts half."""
    beside: Neighbour | None = None
    """What it must not be beside, and would be."""
    crowded: float = 0.0
    """The share of the preferred anti-affinities against which it would be, 0 to 1."""
    disk: DiskShortage | None = None
    """That the files which are not there have no room."""


UNMARKED = WorkerMark()


@attrs.frozen(eq=False)
class Standing:
    """The workers of which there is something to tell, by id. Each decision asks for it, so it is worked out once for a
    snapshot."""

    model: Model
    facts: ModelFacts | None
    """Both are kept so that their identities are not given to others."""
    marks: Mapping[int, WorkerMark]

    @cached_property
    def token(self) -> object:
        """Equal as long as no worker stands otherwise."""
        return frozenset(self.marks.items())

    def of(self, worker_id: int) -> WorkerMark:
        return self.marks.get(worker_id, UNMARKED)


def standing_of(request: PlacementRequest, snapshot: Snapshot) -> Standing:
    """How workers stand to a request."""
    return standing_of_model(request.model, request.facts, request.own_id, snapshot)


def standing_of_model(
    model: Model, facts: ModelFacts | None, own_id: frozenset[int], snapshot: Snapshot
) -> Standing:
    """The same for replicas of a model, of which those of ``own_id`` do not count."""
    known: dict[object, Standing] = snapshot.worked_out.setdefault(Standing, {})
    own = own_id & snapshot.claims.by_model.get(model.id, frozenset()) if own_id else own_id
    key = id(model), id(facts), own
    found = known.get(key)
    if found is None:
        marks = _marks(model, own, snapshot)
        size = _bytes_to_fetch(model, facts)
        for worker_id, short in _short_of_disk(model, size, snapshot) if size else ():
            marks[worker_id] = attrs.evolve(marks.get(worker_id, UNMARKED), disk=short)
        found = known[key] = Standing(model, facts, marks)
    return found


def _bytes_to_fetch(model: Model, facts: ModelFacts | None) -> int:
    """Bytes of all files of a model that are fetched; 0 where there are none, or it is not known."""
    if facts is None or model.source.kind is SourceKind.LOCAL_PATH:
        return 0
    return (facts.file_size or 0) + (facts.projector_size or 0)


def _short_of_disk(model: Model, size: int, snapshot: Snapshot) -> Iterator[tuple[int, DiskShortage]]:
    """The workers that have no room for what is not there of the files, beside what others are still to fetch."""
    free = snapshot.disks_free
    pending = _pending(model.source, snapshot) if free else {}
    most = max(pending.values(), default=0)
    here = {file.worker_id: file for file in snapshot.files_of(model.source)}
    for available, worker_id in free[: bisect_left(free, (size + most, 0))]:
        need = size - _fetched(here.get(worker_id), size)
        room = available - pending.get(worker_id, 0)
        if need > room and snapshot.workers[worker_id].evicts_files:
            room += _evictable(worker_id, model.source, snapshot)
        if need > room:
            yield worker_id, DiskShortage(need, max(room, 0))


def _fetched(file: ModelFile | None, size: int) -> int:
    """Bytes of the files that are on the disk already."""
    if file is None or file.local_dir or file.deleted_at is not None:
        return 0
    if file.state is FileState.READY:
        return size
    return int(size * (file.download_progress or 0.0) / 100)


def _pending(source: ModelSource, snapshot: Snapshot) -> dict[int, int]:
    """Bytes that placed instances of other sources are still to fetch, by worker."""
    told, found = snapshot.told_of_files, dict[int, int]()
    for worker_id, held in snapshot.claims.by_worker.items():
        known: tuple[Held, Mapping[ModelSource, int]] | None = told.get(("pending", worker_id))
        if known is None or known[0] is not held:
            known = told["pending", worker_id] = held, _pending_on(worker_id, held, snapshot)
        if known[1]:
            found[worker_id] = sum(size for other, size in known[1].items() if other != source)
    return found


def _pending_on(worker_id: int, held: Held, snapshot: Snapshot) -> Mapping[ModelSource, int]:
    """The same of each source on one worker. Where its size is not known yet, it is what they claim: no less than their
    weights."""
    waited: dict[ModelSource, int] = {}
    for one, claim in held:
        if one.state in _FETCHING and one.source.kind is not SourceKind.LOCAL_PATH:
            waited[one.source] = max(waited.get(one.source, 0), claim.ram + sum(claim.vram.values()))
    found: dict[ModelSource, int] = {}
    for other, claimed in waited.items():
        file = next((one for one in snapshot.files_on(worker_id) if one.source == other), None)
        size = claimed if file is None or file.size is None else file.size
        found[other] = size - _fetched(file, size)
    return found


def _evictable(worker_id: int, source: ModelSource, snapshot: Snapshot) -> int:
    """Bytes of files of other sources that the worker may remove."""
    held, models = snapshot.claims.by_worker.get(worker_id, ()), snapshot.models
    known: tuple[Held, object, EvictionPlan] | None = snapshot.told_of_files.get(("evictable", worker_id))
    if known is None or known[0] is not held or known[1] is not models:
        there = {one.id: one for one, _ in held}
        plan = evict(snapshot.files_on(worker_id), list(there.values()), models, needed=None)
        known = snapshot.told_of_files["evictable", worker_id] = held, models, plan
    return sum(file.size or 0 for file in known[2].files if file.source != source)


def _marks(model: Model, own_id: frozenset[int], snapshot: Snapshot) -> dict[int, WorkerMark]:
    marks = {
        file.worker_id: _here(share)
        for file in snapshot.files_of(model.source)
        if (share := _locality(file)) and file.worker_id in snapshot.workers
    }
    for worker_id, neighbour in _forbidden(model, own_id, snapshot):
        mark = marks.get(worker_id, UNMARKED)
        if mark.beside is None:
            marks[worker_id] = attrs.evolve(mark, beside=neighbour)
    preferred = () if model.anti_affinity is None else model.anti_affinity.preferred
    for term in preferred:
        for worker_id in {key for key, _ in _beside(term, _meant(term, model, own_id, snapshot), snapshot)}:
            mark = marks.get(worker_id, UNMARKED)
            marks[worker_id] = attrs.evolve(mark, crowded=mark.crowded + 1 / len(preferred))
    return marks


@cache
def _here(share: float) -> WorkerMark:
    return WorkerMark(locality=share)


def _locality(file: ModelFile) -> float:
    if file.local_dir or file.deleted_at is not None:
        return 0.0
    if file.state is FileState.READY:
        return 1.0
    if file.state is not FileState.DOWNLOADING:
        return 0.0
    return int((file.download_progress or 0.0) / 100 * _STEPS) / _STEPS / 2


def _forbidden(model: Model, own_id: frozenset[int], snapshot: Snapshot) -> Iterator[tuple[int, Neighbour]]:
    """Workers that the model must not be placed on, for its own anti-affinity or that of what is there."""
    for term in () if model.anti_affinity is None else model.anti_affinity.required:
        yield from _beside(term, _meant(term, model, own_id, snapshot), snapshot)
    for other in snapshot.apart:
        if other.id == model.id or other.anti_affinity is None:
            continue
        for term in other.anti_affinity.required:
            if term.names(model.name, model.labels):
                for worker_id, neighbour in _beside(term, _placed(other, own_id, snapshot), snapshot):
                    yield worker_id, attrs.evolve(neighbour, demanded_by=other.name)


def _meant(
    term: AntiAffinityTerm, model: Model, own_id: frozenset[int], snapshot: Snapshot
) -> Iterator[ModelInstance]:
    """The instances that have a place, of the models that a term names."""
    if term.is_own:
        yield from _placed(model, own_id, snapshot)
        return
    for other in snapshot.models.values():
        if term.names(other.name, other.labels):
            yield from _placed(other, own_id, snapshot)


def _placed(model: Model, own_id: frozenset[int], snapshot: Snapshot) -> Iterator[ModelInstance]:
    for key in sorted(snapshot.claims.by_model.get(model.id, ())):
        if key not in own_id:
            yield snapshot.instances[key]


def _beside(
    term: AntiAffinityTerm, instances: Iterable[ModelInstance], snapshot: Snapshot
) -> Iterator[tuple[int, Neighbour]]:
    """The workers on which a place would be beside one of the instances, each with the first such."""
    if term.topology_key == HOSTNAME:
        for instance in instances:
            for worker_id in _workers_of(instance) & snapshot.workers.keys():
                yield worker_id, Neighbour(instance.name)
        return
    key = term.topology_key
    taken: dict[str, str] = {}
    for instance in instances:
        for worker_id in _workers_of(instance):
            worker = snapshot.workers.get(worker_id)
            if worker is not None and key in worker.labels:
                taken.setdefault(worker.labels[key], instance.name)
    for worker in snapshot.workers.values() if taken else ():
        name = taken.get(_label(worker, key))
        if name is not None:
            yield worker.id, Neighbour(name, f"{key}={worker.labels[key]}")


def _workers_of(instance: ModelInstance) -> frozenset[int]:
    """Where it runs, or where a place is kept for it."""
    place = place_of(instance)
    return frozenset() if place is None else frozenset(key for key, _ in claims_of(place))


def _label(worker: Worker, key: str) -> str:
    return worker.labels.get(key, "\0")
