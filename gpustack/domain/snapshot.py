"""All records at one revision, immutable: the input of every decision."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from .access import ApiKey, Session, User
from .artifact import ModelFile, ModelSource
from .backend import InferenceBackend
from .instance import Claim, ModelInstance, claims_of, place_of
from .model import Model
from .record import Record, table_of
from .worker import Worker

R = TypeVar("R", bound=Record)

_EMPTY: Mapping[int, Record] = MappingProxyType({})


@attrs.frozen
class FreeMemory:
    """Bytes that a worker has free: host memory, and video memory by device index.

    ``ram`` is ``None`` while the worker has not measured its memory; devices of unknown size are absent.
    """

    ram: int | None
    vram: Mapping[int, int]
    sharing: Mapping[int, int] = attrs.field(factory=dict, eq=False)
    """How many claims there are on each device that has any."""


Files = tuple[ModelFile, ...]
Held = tuple[tuple[ModelInstance, Claim], ...]
"""Claims on one worker, each with the instance that holds it."""


@attrs.frozen(eq=False, repr=False)
class ClaimIndex:
    """The claims of all instances by worker. One that follows another costs what has changed between them."""

    instances: Mapping[int, ModelInstance]
    by_worker: Mapping[int, Held]
    by_model: Mapping[int, frozenset[int]]
    """The ids of the instances of a model that have a place, or one that is kept for them."""
    kept: frozenset[int] = frozenset()
    """The ids of the instances that have no place, and for which one is kept."""
    touched: frozenset[int] = frozenset()
    """The workers whose claims are not those of the index that it was made from."""
    made_from: object = None
    """The ``token`` of that index."""
    token: object = attrs.field(factory=object)

    @classmethod
    def of(cls, instances: Mapping[int, ModelInstance]) -> ClaimIndex:
        return cls({}, {}, {}).following(instances)

    def following(self, instances: Mapping[int, ModelInstance]) -> ClaimIndex:
        """That of ``instances``, which are mostly the same."""
        if instances is self.instances:
            return self
        former = self.instances
        new = [one for key, one in instances.items() if former.get(key) is not one]
        old = [one for key, one in former.items() if instances.get(key) is not one]
        return self.after(instances, old, new)

    def after(
        self,
        instances: Mapping[int, ModelInstance],
        old: Collection[ModelInstance],
        new: Collection[ModelInstance],
    ) -> ClaimIndex:
        """That of ``instances``, in which ``new`` are in the place of ``old``."""
        by_worker: dict[int, Held] = dict(self.by_worker)
        by_model: dict[int, frozenset[int]] = dict(self.by_model)
        kept = self.kept - {one.id for one in old} if self.kept else self.kept
        gone: dict[int, set[int]] = {}
        for one in old:
            for worker_id, _ in _claims_of(one):
                gone.setdefault(worker_id, set()).add(one.id)
                by_model[one.model_id] = by_model.get(one.model_id, frozenset()) - {one.id}
        for worker_id, ids in gone.items():
            by_worker[worker_id] = tuple(pair for pair in by_worker[worker_id] if pair[0].id not in ids)
        come: dict[int, list[tuple[ModelInstance, Claim]]] = {}
        placed: dict[int, set[int]] = {}
        for one in new:
            for worker_id, claim in _claims_of(one):
                come.setdefault(worker_id, []).append((one, claim))
                placed.setdefault(one.model_id, set()).add(one.id)
        for worker_id, held in come.items():
            both = (*by_worker.get(worker_id, ()), *held)
            by_worker[worker_id] = tuple(sorted(both, key=lambda pair: pair[0].id))
        for model_id, ids in placed.items():
            by_model[model_id] = by_model.get(model_id, frozenset()) | ids
        waiting = {one.id for one in new if one.placement is None and one.reserved is not None}
        touched = frozenset({*gone, *come})
        return ClaimIndex(instances, by_worker, by_model, kept | waiting, touched, self.token)


def _claims_of(instance: ModelInstance) -> tuple[tuple[int, Claim], ...]:
    place = place_of(instance)
    return () if place is None else claims_of(place)


@attrs.frozen
class Snapshot:
    """Tables as mappings from id to record, at ``revision``. Reading it costs no lock and no database."""

    revision: int = 0
    tables: Mapping[str, Mapping[int, Record]] = attrs.field(factory=dict)
    unread: Mapping[str, frozenset[int]] = attrs.field(factory=dict)
    """By table, the ids of rows that exist but cannot be read. They are not in ``tables``, and must not be taken for
    deleted."""
    worked_out: dict[type, Any] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    """What has been worked out about these tables, by its class, for whoever asks next."""

    def all(self, cls: type[R]) -> Mapping[int, R]:
        """Every record of a class, by id."""
        return self.tables.get(table_of(cls), _EMPTY)  # type: ignore[return-value]  # tables are keyed by class

    def unread_of(self, cls: type[Record]) -> frozenset[int]:
        """The ids of records that exist but cannot be read."""
        return self.unread.get(table_of(cls), frozenset())

    def get(self, cls: type[R], key: int | None) -> R | None:
        """One record, or ``None``."""
        return None if key is None else self.all(cls).get(key)

    def find(self, cls: type[R], **fields: object) -> R | None:
        """The first record whose fields are all equal to those given."""
        for record in self.all(cls).values():
            if all(getattr(record, name) == value for name, value in fields.items()):
                return record
        return None

    @property
    def workers(self) -> Mapping[int, Worker]:
        return self.all(Worker)

    @property
    def models(self) -> Mapping[int, Model]:
        return self.all(Model)

    @property
    def instances(self) -> Mapping[int, ModelInstance]:
        return self.all(ModelInstance)

    @property
    def files(self) -> Mapping[int, ModelFile]:
        return self.all(ModelFile)

    @property
    def backends(self) -> Mapping[int, InferenceBackend]:
        return self.all(InferenceBackend)

    @property
    def users(self) -> Mapping[int, User]:
        return self.all(User)

    @property
    def api_keys(self) -> Mapping[int, ApiKey]:
        return self.all(ApiKey)

    @property
    def sessions(self) -> Mapping[int, Session]:
        return self.all(Session)

    def instances_of(self, model_id: int) -> list[ModelInstance]:
        """The instances of a model, oldest first, including those that are being ended."""
        return list(self._by_model.get(model_id, ()))

    def files_of(self, source: ModelSource) -> tuple[ModelFile, ...]:
        """The files of a source on all workers."""
        return self._files_by[0].get(source, ())

    def files_on(self, worker_id: int) -> tuple[ModelFile, ...]:
        """The files of all sources on a worker."""
        return self._files_by[1].get(worker_id, ())

    @property
    def told_of_files(self) -> dict[tuple[str, int], Any]:
        """What was worked out of the files of workers, by a name for it and the worker; empty again when any file
        changes."""
        return self._files_by[2]

    @property
    def _files_by(
        self,
    ) -> tuple[Mapping[ModelSource, Files], Mapping[int, Files], dict[tuple[str, int], Any]]:
        """By source, by worker, and what was worked out of them."""
        known: (
            tuple[object, Mapping[ModelSource, Files], Mapping[int, Files], dict[tuple[str, int], Any]] | None
        )
        known = self.worked_out.get(ModelFile)
        if known is None or known[0] is not self.files:
            sources: dict[ModelSource, list[ModelFile]] = {}
            workers: dict[int, list[ModelFile]] = {}
            for file in self.files.values():
                sources.setdefault(file.source, []).append(file)
                workers.setdefault(file.worker_id, []).append(file)
            known = (
                self.files,
                {key: tuple(files) for key, files in sources.items()},
                {key: tuple(files) for key, files in workers.items()},
                {},
            )
            self.worked_out[ModelFile] = known
        return known[1], known[2], known[3]

    @property
    def apart(self) -> tuple[Model, ...]:
        """The models that must not be beside others."""
        known: tuple[object, tuple[Model, ...]] | None = self.worked_out.get(Model)
        if known is None or known[0] is not self.models:
            found = tuple(
                one for one in self.models.values() if one.anti_affinity and one.anti_affinity.required
            )
            known = self.worked_out[Model] = self.models, found
        return known[1]

    @property
    def disks_free(self) -> list[tuple[int, int]]:
        """Bytes free for model files with the id of the worker, least first; of workers that have told."""
        known: tuple[object, list[tuple[int, int]]] | None = self.worked_out.get(Worker)
        if known is None or known[0] is not self.workers:
            found = [
                (free, worker.id)
                for worker in self.workers.values()
                if (free := worker.model_bytes_free) is not None
            ]
            known = self.worked_out[Worker] = self.workers, sorted(found)
        return known[1]

    def claims_on(self, worker_id: int) -> Iterator[tuple[ModelInstance, Claim]]:
        """Every claim held on a worker, as main worker or as subordinate.

        An instance that is being ended holds its claim until its worker reports that it is gone. One that waits for
        such an end holds the place that is kept for it.
        """
        yield from self.claims.by_worker.get(worker_id, ())

    @property
    def claims(self) -> ClaimIndex:
        """All claims by worker."""
        known: ClaimIndex | None = self.worked_out.get(ClaimIndex)
        if known is None:
            former = self.former
            made = (
                ClaimIndex.of(self.instances) if former is None else former.claims.following(self.instances)
            )
            known = self.worked_out[ClaimIndex] = made
        return known

    @property
    def former(self) -> Snapshot | None:
        """An earlier one, from which things may be worked out with less effort."""
        found: Snapshot | None = self.worked_out.get(Snapshot)
        return found

    def follow(self, former: Snapshot) -> None:
        """Have things worked out from those of an earlier snapshot, until ``forget_former``."""
        self.worked_out[Snapshot] = former
        self.worked_out.setdefault(FreeMemory, former._free_known)
        for kind in (ModelFile, Model, Worker):
            if kind in former.worked_out:
                self.worked_out.setdefault(kind, former.worked_out[kind])

    def take_over(self, former: Snapshot) -> None:
        """Take what was worked out of the very same instances, where the commit between the two was not about them."""
        known: ClaimIndex | None = former.worked_out.get(ClaimIndex)
        if known is not None and known.instances is self.instances:
            self.worked_out.setdefault(ClaimIndex, known)

    def forget_former(self) -> None:
        """Let go of the earlier one."""
        self.worked_out.pop(Snapshot, None)

    def changed(self, *records: Record, without: Collection[int] = ()) -> Snapshot:
        """A snapshot with these records in place of those of the same ids, and without the instances of the ids
        ``without``."""
        tables = dict(self.tables)
        for record in records:
            name = table_of(type(record))
            tables[name] = {**tables.get(name, _EMPTY), record.id: record}
        if without:
            name = table_of(ModelInstance)
            tables[name] = {key: one for key, one in tables[name].items() if key not in without}
        made = Snapshot(self.revision, tables, self.unread)
        made.follow(self)
        new = [record for record in records if isinstance(record, ModelInstance)]
        touched = {*without, *(one.id for one in new)}
        old = [self.instances[key] for key in touched if key in self.instances]
        made.worked_out[ClaimIndex] = self.claims.after(made.instances, old, new)
        return made

    @cached_property  # once for each snapshot: many ask
    def _by_model(self) -> Mapping[int, list[ModelInstance]]:
        found: dict[int, list[ModelInstance]] = {}
        for instance in sorted(self.instances.values(), key=lambda i: i.id):
            found.setdefault(instance.model_id, []).append(instance)
        return found

    def free(self, worker: Worker, *, without: frozenset[int] = frozenset()) -> FreeMemory:
        """What ``worker`` has free beyond claims, system reserve, and what of its devices is in use without a claim:
        by other programs, or by engines that take more than they claim. Never below zero.

        ``without`` are ids of instances whose claims are ignored, to ask what would be free without them.
        Unified memory is one pool: what devices claim is missing on the host, and vice versa.
        """
        held = self.claims.by_worker.get(worker.id, ())
        if without and any(instance.id in without for instance, _ in held):
            return self._free(worker, without)
        known = self._free_known.get(worker.id)
        if known is None or known[0] is not worker or known[1] is not held:
            known = self._free_known[worker.id] = worker, held, self._free(worker, frozenset())
        return known[2]

    @property
    def _free_known(self) -> dict[int, tuple[Worker, Held, FreeMemory]]:
        """What workers have free, each with the record and the claims of which that is true. Snapshots that follow one
        another share it."""
        found: dict[int, tuple[Worker, Held, FreeMemory]] = self.worked_out.setdefault(FreeMemory, {})
        return found

    def _free(self, worker: Worker, without: frozenset[int]) -> FreeMemory:
        ram_claimed = 0
        vram_claimed: dict[int, int] = {}
        sharing: dict[int, int] = {}
        for instance, claim in self.claims_on(worker.id):
            if instance.id in without:
                continue
            ram_claimed += claim.ram
            for index, size in claim.vram.items():
                vram_claimed[index] = vram_claimed.get(index, 0) + size
                sharing[index] = sharing.get(index, 0) + 1
        reserved = worker.system_reserved
        vram: dict[int, int] = {}
        strange = 0
        unified = worker.status.memory.is_unified_memory
        for device in worker.status.gpu_devices:
            memory = device.memory
            if memory.total is None or device.fault is not None:
                continue
            unified = unified or memory.is_unified_memory
            unclaimed = memory.unclaimed
            strange += unclaimed
            left = memory.total - reserved.vram - vram_claimed.get(device.index, 0) - unclaimed
            vram[device.index] = left if left > 0 else 0
        total = worker.status.memory.total
        if total is None:
            return FreeMemory(None, vram, sharing)
        ram = total - reserved.ram - ram_claimed
        if unified:
            ram -= sum(vram_claimed.values()) + strange
            vram = {index: min(left, max(ram, 0)) for index, left in vram.items()}
        return FreeMemory(max(ram, 0), vram, sharing)
