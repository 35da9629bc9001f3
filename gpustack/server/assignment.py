"""Which records concern which worker, worked out once for each revision however many workers ask."""

from __future__ import annotations

import attrs

from gpustack.domain.assignment import Picture
from gpustack.domain.snapshot import Snapshot
from gpustack.store.store import Store


@attrs.define(eq=False, repr=False)
class AssignmentBook:
    """Pictures of all workers as of the store's present revision."""

    _store: Store
    _revision: int = -1
    _pictures: dict[int, Picture] = attrs.field(factory=dict)

    def of(self, worker_id: int) -> Picture:
        """What the worker should know now."""
        snapshot = self._store.snapshot
        if snapshot.revision != self._revision:
            self._pictures = pictures(snapshot)
            self._revision = snapshot.revision
        return self._pictures.get(worker_id) or Picture()


def pictures(snapshot: Snapshot) -> dict[int, Picture]:
    """Every worker's picture. An instance concerns its main worker; models come with their instances."""
    found: dict[int, Picture] = {}
    for instance in snapshot.instances.values():
        if instance.worker_id is None:
            continue
        picture = found.setdefault(instance.worker_id, Picture())
        picture.instances[instance.id] = instance
        model = snapshot.models.get(instance.model_id)
        if model is not None:
            picture.models[model.id] = model
    for file in snapshot.files.values():
        found.setdefault(file.worker_id, Picture()).files[file.id] = file
    return found
