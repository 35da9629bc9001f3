"""The best that a worker could offer, told from numbers before anything is made: only those that can win are looked
at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

import attrs

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker

from .capacity import Drive
from .placement import PlacementRequest
from .seat import Prospect
from .standing import UNMARKED, WorkerMark, standing_of
from .worker_class import Group, Key, Shape, classes_of, holders

Hope = tuple[tuple[int, ...], float, float, int]
"""The order of an offer (``look.py``) but for its devices. No offer of the worker comes before it."""


@attrs.define(eq=False)
class Hopes:
    """Of one way to fit, what requests of one kind may hope for on each worker; kept while its class is the same."""

    way: ModuleType
    variants: Sequence[PlacementRequest]
    drive: Callable[[Worker, Shape], Drive]
    _known: dict[int, tuple[Key, bool, WorkerMark, Hope | None]] = attrs.field(factory=dict)
    """By worker, with the class, whether it holds a replica, and how it stands."""

    def of(self, groups: Iterable[Group], snapshot: Snapshot) -> list[Hope]:
        """That of the first of each group, but for those on which it cannot fit."""
        keys, known = classes_of(snapshot).keys, self._known
        own, marks = holders(self.variants[0], snapshot), standing_of(self.variants[0], snapshot).marks
        found: list[Hope] = []
        for group in groups:
            worker_id = group[0].id
            kept, holds, mark = known.get(worker_id), worker_id in own, marks.get(worker_id, UNMARKED)
            if (
                kept is None
                or kept[0] is not keys[worker_id]
                or kept[1] is not holds
                or (kept[2] is not mark and kept[2] != mark)
            ):
                key = keys[worker_id]
                kept = known[worker_id] = key, holds, mark, self._hope(group[0], key, holds, snapshot)
            if kept[3] is not None:
                found.append(kept[3])
        return found

    def _hope(self, worker: Worker, key: Key, own: bool, snapshot: Snapshot) -> Hope | None:
        shape, best = key.shape, self.way.best
        drive = self.drive(worker, shape)
        kinds = {shape.kinds[place] for place in drive.positions}
        prospect = Prospect(
            request=self.variants[0],
            worker=worker,
            snapshot=snapshot,
            own=own,
            count=key.count,
            devices=len(key.devices),
            free_ram=key.ram or 0,
        )
        found: Hope | None = None
        for variant in (one.at(drive.build, drive.device_name) for one in self.variants):
            told = best(variant, key, kinds, prospect)
            if told is None:
                continue
            devices, score, left = told
            demand = variant.demand
            rank = -(demand.total_layers or 0), devices, 0, -(demand.slots or 0)
            hope = rank, -score, -left, worker.id
            found = hope if found is None else min(found, hope)
            if devices == 1:
                break  # fewer requests at a time would not be better
        return found
