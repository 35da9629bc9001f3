"""Which records concern which worker: an index that follows the commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import trio

from gpustack.domain.artifact import ModelFile
from gpustack.domain.assignment import AssignmentState
from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.model import Model
from gpustack.domain.ray import RayHead
from gpustack.domain.record import Change, ChangeKind
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import RevisionExpired
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import Wake
from gpustack.store.store import Store

_NOTHING = AssignmentState()
_LOOK_AGAIN = 5.0
"""Seconds without a commit after which records that met a fault are tried again."""
_TABLES = frozenset({"model_instances", "model_files", "models", "workers", "ray_heads"})


@attrs.define(eq=False, repr=False)
class AssignmentIndex:
    """The assignments of every worker as of the store's present revision.

    A worker's ``AssignmentState`` stays the same object while nothing in it changes. Following a commit costs time in
    proportion to the records of the workers that it concerns, however many workers ask. While ``run`` runs, a commit
    wakes those that follow the workers it concerns, and no others.
    """

    _store: Store
    name: str = "assignments"
    _revision: int = -1
    _states: dict[int, AssignmentState] = attrs.field(factory=dict)
    _ray_heads: dict[int, RayHead] = attrs.field(factory=dict)
    _with_ray: dict[int, tuple[AssignmentState, AssignmentState]] = attrs.field(factory=dict)
    """By worker: its state without and with the head of Ray, which concerns all of them."""
    _followers: dict[int, set[Wake]] = attrs.field(factory=dict)
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("assignments"))
    drawn: int = 0
    """How many ``AssignmentState`` were made so far."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the commits, and wake whom they concern, until cancelled."""
        with self._store.watch(_TABLES) as commits:
            task_status.started()
            while True:
                self._catch_up()
                await commits.wait(_LOOK_AGAIN)

    @contextmanager
    def follow(self, worker_id: int) -> Iterator[Wake]:
        """A wake that is called when the assignments of a worker may have changed, or the worker's record has."""
        wake = Wake()
        self._followers.setdefault(worker_id, set()).add(wake)
        try:
            yield wake
        finally:
            followers = self._followers[worker_id]
            followers.remove(wake)
            if not followers:
                del self._followers[worker_id]

    def of(self, worker_id: int) -> AssignmentState:
        """What the worker should run and hold now."""
        self._catch_up()
        state = self._states.get(worker_id, _NOTHING)
        if not self._ray_heads:
            return state
        drawn = self._with_ray.get(worker_id)
        if drawn is None or drawn[0] is not state:
            drawn = self._with_ray[worker_id] = state, attrs.evolve(state, ray_heads=self._ray_heads)
        return drawn[1]

    def _catch_up(self) -> None:
        snapshot = self._store.snapshot
        if snapshot.revision == self._revision and not self._faults.is_due():
            return
        try:
            # A record that met a fault before is found by making everything anew.
            changes = None if self._faults.is_due() else self._store.changes_since(self._revision)
        except RevisionExpired:
            changes = None
        if changes is None:
            self._faults.keep_only(_rows(snapshot))
            self._states = assignment_states(snapshot, self._faults)
            self.drawn += len(self._states)
            concerned: Iterable[int] = tuple(self._followers)
        else:
            concerned = self._take_in(changes, snapshot)
        heads = snapshot.all(RayHead)
        if heads != self._ray_heads:
            self._ray_heads, self._with_ray = dict(heads), {}
            concerned = tuple(self._followers)
        self._revision = snapshot.revision
        for worker_id in concerned:
            for wake in self._followers.get(worker_id, ()):
                wake.wake()

    def _take_in(self, changes: Iterable[Change], snapshot: Snapshot) -> set[int]:
        """Apply the changes; return the workers that they concern."""
        edits = _AssignmentEdits(self._states)
        for change in changes:
            with self._faults.row((type(change.record), change.record.id)):
                edits.take(change, snapshot)
        concerned = set(edits.workers)
        for worker_id, state in edits.drawn(snapshot):
            self.drawn += 1
            concerned.add(worker_id)
            if state == _NOTHING:
                self._states.pop(worker_id, None)
            else:
                self._states[worker_id] = state
        return concerned

    def __repr__(self) -> str:
        return f"<AssignmentIndex of {len(self._states)} workers at revision {self._revision}>"


@attrs.frozen
class _AssignmentEdits:
    """Copies of the records of those workers that changes concern, while the changes are applied."""

    _before: Mapping[int, AssignmentState]
    _instances: dict[int, dict[int, ModelInstance]] = attrs.field(factory=dict)
    _files: dict[int, dict[int, ModelFile]] = attrs.field(factory=dict)
    _models: set[int] = attrs.field(factory=set)
    workers: set[int] = attrs.field(factory=set)
    """Whose own records have changed."""

    def instances_of(self, worker_id: int) -> dict[int, ModelInstance]:
        if worker_id not in self._instances:
            self._instances[worker_id] = dict(self._before.get(worker_id, _NOTHING).instances)
        return self._instances[worker_id]

    def files_of(self, worker_id: int) -> dict[int, ModelFile]:
        if worker_id not in self._files:
            self._files[worker_id] = dict(self._before.get(worker_id, _NOTHING).files)
        return self._files[worker_id]

    def take(self, change: Change, snapshot: Snapshot) -> None:
        record = change.record
        if isinstance(record, ModelInstance):
            self.take_instance(change, record)
        elif isinstance(record, ModelFile):
            self.take_file(change, record)
        elif isinstance(record, Model):
            self.take_model(record, snapshot)
        elif isinstance(record, Worker):
            self.workers.add(record.id)

    def take_instance(self, change: Change, record: ModelInstance) -> None:
        before = change.before
        there = workers_of(before) if isinstance(before, ModelInstance) else frozenset()
        here = frozenset() if change.kind is ChangeKind.DELETED else workers_of(record)
        for worker_id in there - here:
            self.instances_of(worker_id).pop(record.id, None)
        for worker_id in here:
            self.instances_of(worker_id)[record.id] = record

    def take_file(self, change: Change, record: ModelFile) -> None:
        if change.kind is ChangeKind.DELETED:
            self.files_of(record.worker_id).pop(record.id, None)
        else:
            self.files_of(record.worker_id)[record.id] = record

    def take_model(self, record: Model, snapshot: Snapshot) -> None:
        """All who run the model get another state, once for however many changes of it."""
        if record.id not in self._models:
            self._models.add(record.id)
            for instance in snapshot.instances_of(record.id):
                for worker_id in workers_of(instance):
                    self.instances_of(worker_id)

    def drawn(self, snapshot: Snapshot) -> Iterator[tuple[int, AssignmentState]]:
        """The new states of the workers that were changed."""
        for worker_id in self._instances.keys() | self._files.keys():
            instances, files = self.instances_of(worker_id), self.files_of(worker_id)
            yield worker_id, AssignmentState(instances, _models_of(instances, snapshot), files)


def assignment_states(snapshot: Snapshot, faults: Quarantine) -> dict[int, AssignmentState]:
    """Everything from the start. An instance concerns all workers it runs on; models come with their instances."""
    found: dict[int, AssignmentState] = {}
    for instance in snapshot.instances.values():
        with faults.row((ModelInstance, instance.id)):
            for worker_id in workers_of(instance):
                state = found.setdefault(worker_id, AssignmentState())
                state.instances[instance.id] = instance
    for file in snapshot.files.values():
        with faults.row((ModelFile, file.id)):
            found.setdefault(file.worker_id, AssignmentState()).files[file.id] = file
    return {key: attrs.evolve(one, models=_models_of(one.instances, snapshot)) for key, one in found.items()}


def _models_of(instances: dict[int, ModelInstance], snapshot: Snapshot) -> dict[int, Model]:
    wanted = {instance.model_id for instance in instances.values()}
    return {key: snapshot.models[key] for key in sorted(wanted) if key in snapshot.models}


def _rows(snapshot: Snapshot) -> set[tuple[type, int]]:
    instances = {(ModelInstance, key) for key in snapshot.instances}
    return instances | {(ModelFile, key) for key in snapshot.files}
