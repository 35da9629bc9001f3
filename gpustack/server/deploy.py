"""Wishes of users taken into records: models, instances, workers and files come and go here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from gpustack.domain.artifact import FileState, ModelFile
from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model, edited
from gpustack.domain.record import Record
from gpustack.domain.worker import Worker
from gpustack.errors import AlreadyExists, Conflict, NotFound
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

R = TypeVar("R", bound=Record)


async def create_model(store: Store, model: Model) -> Model:
    """Store a deployment; its instances follow by themselves. Raises ``AlreadyExists`` when the name is taken."""

    def work(tx: Tx) -> Model:
        _refuse_taken_name(tx, model.name, None)
        return tx.insert(model)

    return await store.write(work)


async def update_model(
    store: Store, model_id: int, changes: Mapping[str, Any], *, version: int | None = None
) -> Model:
    """Change fields of a deployment. What runs is replaced, a replica at a time, when it differs.

    Raises ``NotFound``, ``AlreadyExists`` for a taken name, and ``Conflict`` when ``version`` is not current.
    """

    def work(tx: Tx) -> Model:
        before = _existing(tx, Model, model_id, "Model")
        if version is not None and version != before.version:
            raise Conflict(
                f"Model {before.name!r} changed since it was read (version {before.version}, not {version})"
            )
        after = edited(before, attrs.evolve(before, **changes))
        if after.name != before.name:
            _refuse_taken_name(tx, after.name, model_id)
        return tx.update(after)

    return await store.write(work)


async def delete_model(store: Store, model_id: int) -> Model:
    """Remove a deployment and ask for the end of its instances. Returns the last record."""

    def work(tx: Tx) -> Model:
        model = _existing(tx, Model, model_id, "Model")
        for instance in tx.snapshot.instances_of(model_id):
            end_instance(tx, instance)
        tx.delete(Model, model_id)
        return model

    return await store.write(work)


async def delete_instance(store: Store, instance_id: int) -> ModelInstance:
    """Ask for the end of one instance; the model's replicas are then made up again."""

    def work(tx: Tx) -> ModelInstance:
        instance = _existing(tx, ModelInstance, instance_id, "Model instance")
        end_instance(tx, instance)
        return instance

    return await store.write(work)


def end_instance(tx: Tx, instance: ModelInstance) -> None:
    """Unplaced instances go at once; placed ones when their worker says that the engine has ended."""
    if instance.placement is None:
        tx.delete(ModelInstance, instance.id)
    elif instance.deleted_at is None:
        tx.change(ModelInstance, instance.id, deleted_at=tx.now)


async def delete_worker(store: Store, worker_id: int) -> Worker:
    """Forget a worker with its files' records and everything placed there; a live one ends its engines by itself.

    Instances being ended go with it, others are placed anew.
    """

    def work(tx: Tx) -> Worker:
        worker = _existing(tx, Worker, worker_id, "Worker")
        for instance in list(tx.all(ModelInstance).values()):
            shares = instance.placement.subordinates if instance.placement else ()
            if instance.worker_id == worker_id or any(share.worker_id == worker_id for share in shares):
                tx.delete(ModelInstance, instance.id)
        for file in list(tx.all(ModelFile).values()):
            if file.worker_id == worker_id:
                tx.delete(ModelFile, file.id)
        tx.delete(Worker, worker_id)
        return worker

    return await store.write(work)


async def create_file(store: Store, file: ModelFile) -> ModelFile:
    """Ask a worker to hold a source. Raises ``AlreadyExists`` when it does or is about to."""

    def work(tx: Tx) -> ModelFile:
        _existing(tx, Worker, file.worker_id, "Worker")
        return tx.insert(file)

    return await store.write(work)


async def reset_file(store: Store, file_id: int) -> ModelFile:
    """Fetch again: the state goes back to downloading and the worker takes it up."""

    def work(tx: Tx) -> ModelFile:
        _existing(tx, ModelFile, file_id, "Model file")
        return tx.change(
            ModelFile,
            file_id,
            state=FileState.DOWNLOADING,
            state_message="",
            download_progress=0.0,
            resolved_paths=(),
        )

    return await store.write(work)


async def delete_file(store: Store, file_id: int, cleanup: bool | None = None) -> ModelFile:
    """Ask for the removal of a file's record, and of the bytes where ``cleanup`` (else the record) says so.

    Raises ``Conflict`` naming the instances that use it.
    """

    def work(tx: Tx) -> ModelFile:
        file = _existing(tx, ModelFile, file_id, "Model file")
        users = [
            instance.name
            for instance in tx.all(ModelInstance).values()
            if instance.worker_id == file.worker_id and instance.source.index == file.source_index
        ]
        if users:
            raise Conflict(f"Model file {file_id} is in use by {', '.join(sorted(users))}")
        return tx.change(
            ModelFile,
            file_id,
            deleted_at=tx.now,
            cleanup_on_delete=file.cleanup_on_delete if cleanup is None else cleanup,
        )

    return await store.write(work)


def _existing(tx: Tx, cls: type[R], key: int, word: str) -> R:
    record = tx.get(cls, key)
    if record is None:
        raise NotFound(f"{word} {key} does not exist")
    return record


def _refuse_taken_name(tx: Tx, name: str, own_id: int | None) -> None:
    holder = tx.find(Model, name=name)
    if holder is not None and holder.id != own_id:
        raise AlreadyExists(
            f"Model '{name}' already exists. Please choose a different name or check the existing model."
        )
