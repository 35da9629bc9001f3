"""What users change: models, instances, workers and files are created, edited and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.domain.access import User
from gpustack.domain.artifact import ModelFile
from gpustack.domain.backend import InferenceBackend
from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import EVICT
from gpustack.domain.model import RUNTIME_FIELDS, Model, edited
from gpustack.domain.worker import Worker
from gpustack.engines.backend import settled
from gpustack.errors import AlreadyExists, BadRequest, Conflict
from gpustack.policy.generation import taken_up
from gpustack.policy.model_file import EvictionPlan, evict, users_of
from gpustack.server import revision
from gpustack.server.lifecycle import end_instance, give_up_place
from gpustack.server.report import TO_FETCH
from gpustack.server.row_write import existing
from gpustack.store.store import Store
from gpustack.store.transaction import Tx


async def create_model(store: Store, model: Model, *, by: str = "") -> Model:
    """Store a deployment; the reconciler creates its instances. ``by`` is the name of who asks for it.

    Raises ``AlreadyExists`` when the name is taken, ``BadRequest`` when it is for users that do not exist.
    """
    return await store.write(lambda tx: add_model(tx, model, by=by))


def add_model(tx: Tx, model: Model, *, by: str = "") -> Model:
    """The same within a transaction."""
    _refuse_taken_name(tx, model.name, None)
    _refuse_unknown_users(tx, model)
    made = tx.insert(settled(model, tx.all(InferenceBackend).values()))
    revision.keep(tx, made, made, by=by)
    return made


async def update_model(
    store: Store, model_id: int, changes: Mapping[str, Any], *, version: int | None = None, by: str = ""
) -> Model:
    """Change fields of a deployment. Where that changes what runs, replicas are replaced one at a time.

    Raises ``NotFound``, ``AlreadyExists`` for a taken name, ``BadRequest`` for users that do not exist, and
    ``Conflict`` when ``version`` is not current.
    """

    def work(tx: Tx) -> Model:
        before = existing(tx, Model, model_id)
        if version is not None and version != before.version:
            raise Conflict(
                f"Model {before.name!r} changed since it was read (version {before.version}, not {version})"
            )
        return change_model(tx, before, changes, by=by)

    return await store.write(work)


def change_model(
    tx: Tx, before: Model, changes: Mapping[str, Any], *, by: str = "", rolled_back_to: int | None = None
) -> Model:
    """The same within a transaction, for a deployment as it is there. What it is then is kept as a revision."""
    after = _categorised(before, attrs.evolve(before, **changes), changes)
    after = _with_backend(tx, before, after)
    if after == before:
        return before
    after = edited(before, after, taken_up(before, tx.snapshot.instances_of(before.id)))
    if after.name != before.name:
        _refuse_taken_name(tx, after.name, before.id)
    _refuse_unknown_users(tx, after)
    stored = tx.update(after)
    revision.keep(tx, before, stored, by=by, rolled_back_to=rolled_back_to)
    return stored


def forget_user(tx: Tx, user_id: int) -> None:
    """Remove a user that is being deleted from the ``allowed_user_ids`` of every model."""
    for model in list(tx.all(Model).values()):
        if user_id in (allowed := model.allowed_user_ids or ()):
            left = tuple(one for one in allowed if one != user_id)
            tx.change(Model, model.id, allowed_user_ids=left or None)


def _refuse_unknown_users(tx: Tx, model: Model) -> None:
    for user_id in model.allowed_user_ids or ():
        if tx.get(User, user_id) is None:
            raise BadRequest(f"User {user_id}, who is to use {model.name!r}, does not exist")


def _with_backend(tx: Tx, before: Model, after: Model) -> Model:
    """``after`` with what its backend says: as the backend is now where engines are replaced anyway, else as before."""
    if before.backend_spec is not None and _runs_as(before, after):
        return after
    renewed = settled(after, tx.all(InferenceBackend).values())
    kept = attrs.evolve(renewed, backend_spec=before.backend_spec)
    return kept if before.backend_spec is not None and _runs_as(before, kept) else renewed


def _runs_as(before: Model, after: Model) -> bool:
    return all(getattr(before, name) == getattr(after, name) for name in RUNTIME_FIELDS)


def _categorised(before: Model, after: Model, changes: Mapping[str, Any]) -> Model:
    """``after`` with the categories to store; none means that the header decides. Another source drops them."""
    if after.source != before.source:
        return after if "categories" in changes else attrs.evolve(after, categories=())
    return after if after.categories else attrs.evolve(after, categories=before.categories)


async def delete_model(store: Store, model_id: int) -> Model:
    """Delete a deployment and end its instances. Returns the last record. Raises ``NotFound``."""

    def work(tx: Tx) -> Model:
        model = existing(tx, Model, model_id)
        for instance in tx.snapshot.instances_of(model_id):
            end_instance(tx, instance)
        tx.forget_revisions(model_id)
        tx.delete(Model, model_id)
        return model

    return await store.write(work)


async def delete_instance(store: Store, instance_id: int) -> ModelInstance:
    """End one instance; the reconciler creates another in its place. Raises ``NotFound``."""

    def work(tx: Tx) -> ModelInstance:
        instance = existing(tx, ModelInstance, instance_id)
        end_instance(tx, instance)
        return instance

    return await store.write(work)


async def delete_worker(store: Store, worker_id: int) -> Worker:
    """Delete a worker and the records of its files; a daemon that lives ends its engines by itself. Returns the last
    record. Raises ``NotFound``.

    Its instances are placed anew; those that were being ended are deleted.
    """

    def work(tx: Tx) -> Worker:
        worker = existing(tx, Worker, worker_id)
        for instance in tx.all(ModelInstance).values():
            if worker_id in workers_of(instance):
                give_up_place(tx, instance, EVICT, "Its worker was removed; looking for another place")
        for file in tx.all(ModelFile).values():
            if file.worker_id == worker_id:
                tx.delete(file)
        tx.delete(worker)
        return worker

    return await store.write(work)


async def create_file(store: Store, file: ModelFile) -> ModelFile:
    """Have a worker fetch a source; one that is being removed there is fetched again.

    Raises ``NotFound`` for the worker, and ``AlreadyExists`` when it holds that source or is about to.
    """

    def work(tx: Tx) -> ModelFile:
        worker = existing(tx, Worker, file.worker_id)
        where = {name: getattr(file, name) for name in ("worker_id", "source_index", "local_dir")}
        known = tx.find(ModelFile, **where)
        if known is None:
            return tx.insert(file)
        if known.deleted_at is None:
            raise AlreadyExists(
                f"Worker {worker.name} has a model file of {file.source.readable} there already"
            )
        cleanup = file.cleanup_on_delete
        return tx.change(ModelFile, known.id, deleted_at=None, cleanup_on_delete=cleanup, **TO_FETCH)

    return await store.write(work)


async def reset_file(store: Store, file_id: int) -> ModelFile:
    """Have a file fetched again: its state is downloading, and its worker sees that.

    Raises ``NotFound``, and ``Conflict`` while the file is being removed.
    """

    def work(tx: Tx) -> ModelFile:
        file = existing(tx, ModelFile, file_id)
        if file.deleted_at is not None:
            raise Conflict(f"Model file {file_id} is being removed")
        return tx.change(ModelFile, file_id, **TO_FETCH)

    return await store.write(work)


async def delete_file(store: Store, file_id: int, cleanup: bool | None = None) -> ModelFile:
    """Have a file's record removed by its worker, with its bytes where ``cleanup`` (else the record) says so.

    Raises ``Conflict`` naming the instances that use it.
    """

    def work(tx: Tx) -> ModelFile:
        file = existing(tx, ModelFile, file_id)
        users = [i.name for i in users_of(file, tx.all(ModelInstance).values(), tx.all(Model))]
        if users:
            raise Conflict(f"Model file {file_id} is in use by {', '.join(sorted(users))}")
        return tx.change(
            ModelFile,
            file_id,
            deleted_at=file.deleted_at or tx.now,
            cleanup_on_delete=file.cleanup_on_delete if cleanup is None else cleanup,
        )

    return await store.write(work)


async def evict_files(
    store: Store, worker_id: int, needed: int | None, *, dry_run: bool = False
) -> EvictionPlan:
    """Have a worker remove files that nobody uses, to free ``needed`` bytes (``None``: all of them); returns which.

    With ``dry_run`` nothing is removed.
    """

    def work(tx: Tx) -> EvictionPlan:
        files = [file for file in tx.all(ModelFile).values() if file.worker_id == worker_id]
        plan = evict(files, tuple(tx.all(ModelInstance).values()), tx.all(Model), needed=needed)
        for file in () if dry_run else plan.files:
            tx.change(ModelFile, file.id, deleted_at=tx.now, cleanup_on_delete=True)
        return plan

    return await store.write(work)


def _refuse_taken_name(tx: Tx, name: str, own_id: int | None) -> None:
    holder = tx.find(Model, name=name)
    if holder is not None and holder.id != own_id:
        raise AlreadyExists(
            f"Model '{name}' already exists. Please choose a different name or check the existing model."
        )
