"""Engines that administrators describe as data."""

from __future__ import annotations

import attrs

from gpustack.domain.backend import InferenceBackend
from gpustack.domain.snapshot import Snapshot
from gpustack.server import backend as backends
from gpustack.store.transaction import Tx

from ..manifest import ManifestKind
from ..resources.inference_backends import BACKEND_FIELDS, backend_fields, refuse_wrong_backend
from ..shape import Document
from ..view import Doc, fields_of


def _document(backend: InferenceBackend) -> Doc:
    whole = fields_of(backend, BACKEND_FIELDS)
    versions = {
        name: {key: value for key, value in version.items() if value != {}}
        for name, version in whole["versions"].items()
    }
    # The only version is the default one; to say so would be a change once there is another.
    default = None if len(versions) == 1 else backend.default_version
    return {**whole, "versions": versions, "default_version": default}


def _all(snapshot: Snapshot) -> dict[str, Doc]:
    return {backend.name: _document(backend) for backend in snapshot.backends.values()}


def _write(tx: Tx, document: Doc, by: str) -> InferenceBackend:
    fields = backend_fields(document)
    before = tx.find(InferenceBackend, name=fields["name"])
    if before is None:
        made = InferenceBackend(**{"default_version": "", **fields})
        refuse_wrong_backend(made, tx.snapshot)
        return backends.add_backend(tx, made)
    refuse_wrong_backend(attrs.evolve(before, **fields), tx.snapshot)
    return backends.change_backend(tx, before, fields)


_BLANK = InferenceBackend(name="", versions={}, default_version="")

KIND = ManifestKind(
    name="Backend",
    rank=0,
    body=Document(name="BackendManifest", fields=BACKEND_FIELDS, required=("name", "versions")),
    defaults={name: value for name, value in _document(_BLANK).items() if name not in ("name", "versions")}
    | {"default_version": None},
    all=_all,
    write=_write,
)
