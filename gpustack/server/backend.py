"""Writes of the backends that administrators describe; deployments take over what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from gpustack.domain.backend import InferenceBackend, spec_of
from gpustack.domain.model import Model, edited
from gpustack.engines.backend import faults_of
from gpustack.errors import AlreadyExists, Conflict, Invalid
from gpustack.server.row_write import existing
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

_NAMED = 5


async def create_backend(store: Store, backend: InferenceBackend) -> InferenceBackend:
    """Store a backend. Raises ``AlreadyExists`` when the name is taken, ``Invalid`` with everything that is wrong."""
    return await store.write(lambda tx: add_backend(tx, backend))


def add_backend(tx: Tx, backend: InferenceBackend) -> InferenceBackend:
    """The same within a transaction."""
    if tx.find(InferenceBackend, name=backend.name) is not None:
        raise AlreadyExists(f"Backend {backend.name!r} already exists")
    _refuse_wrong(tx, backend)
    return tx.insert(backend)


async def update_backend(
    store: Store, backend_id: int, changes: Mapping[str, Any], *, roll: bool = False
) -> InferenceBackend:
    """Change a backend. With ``roll`` every deployment of it begins a new generation with what it says now; without,
    each takes it over when its engines are replaced anyway.

    Raises ``NotFound``, ``Invalid``, and ``Conflict`` for another name or a version that deployments still name.
    """
    return await store.write(
        lambda tx: change_backend(tx, existing(tx, InferenceBackend, backend_id), changes, roll=roll)
    )


def change_backend(
    tx: Tx, before: InferenceBackend, changes: Mapping[str, Any], *, roll: bool = False
) -> InferenceBackend:
    """The same within a transaction, for a backend as it is there."""
    after = attrs.evolve(before, **changes)
    if after.name != before.name:
        raise Conflict(
            f"Backend {before.name!r} cannot be renamed, since deployments name it; add it under the other name "
            "and remove this one"
        )
    _refuse_wrong(tx, after)
    users = deployments_of(tx.all(Model).values(), after)
    for model in users:
        if _version_of(model, after) not in after.versions:
            raise Conflict(
                f"Version {_version_of(model, after)!r} of backend {after.name!r} is in use by deployment "
                f"{model.name!r}; have it name another one first"
            )
    stored = tx.update(after)
    for model in users if roll else ():
        spec = spec_of(after, _version_of(model, after))
        tx.update(edited(model, attrs.evolve(model, backend_spec=spec)))
    return stored


async def delete_backend(store: Store, backend_id: int) -> None:
    """Delete a backend. Raises ``NotFound``, and ``Conflict`` with the deployments that use it."""

    def work(tx: Tx) -> None:
        backend = existing(tx, InferenceBackend, backend_id)
        users = [model.name for model in deployments_of(tx.all(Model).values(), backend)]
        if users:
            listed = ", ".join(users[:_NAMED]) + (
                f" and {len(users) - _NAMED} more" if users[_NAMED:] else ""
            )
            raise Conflict(
                f"Backend {backend.name!r} is in use by {listed}; delete or change these deployments first"
            )
        tx.delete(backend)

    await store.write(work)


def deployments_of(models: Iterable[Model], backend: InferenceBackend) -> list[Model]:
    """The deployments that run a backend, by name."""
    return sorted((model for model in models if model.backend == backend.name), key=lambda model: model.name)


def _version_of(model: Model, backend: InferenceBackend) -> str:
    return model.backend_version or backend.default_version


def _refuse_wrong(tx: Tx, backend: InferenceBackend) -> None:
    faults = faults_of(backend, tx.all(InferenceBackend).values())
    if faults:
        raise Invalid(*faults)
