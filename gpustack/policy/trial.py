"""What would make a replica fit: each kind of remedy is tried by deciding again in the world that it would make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import ModuleType

import attrs

from gpustack.domain.artifact import ModelSource
from gpustack.domain.instance import Placement
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.plugins import siblings

from .decision import decide, decide_on_groups, impossibilities
from .gang import may_span
from .look import objections
from .placement import PlacementRequest, Rejection
from .remedy import Addition, FieldChange, KnownFacts, Remedy, applied
from .standing import standing_of
from .worker_class import Group, alike, classes_of

MOST_TRIED = 32
"""Workers or instances on which a kind of change is tried, one at a time."""
_MOST_LOOKED_AT = 64
"""Workers, those with most free memory, among which a change is tried for its effect on several together."""
_MOST_KEPT = 8
"""Classes of workers of one shape, none of which has less free than another, that are looked at."""
_SURELY = 0.8
"""Of what one device would take for the whole model, all ways to fit take more than this."""
_LEARNT = 0.5
"""The same where runs have taught how much it takes."""
_FEW = 16
"""Workers among which ``helps_at`` looks at all."""
_MOST_TOGETHER = 4
"""How often a change of one worker is tried for its effect on all together, which costs more than on it alone."""


def nothing_known(source: ModelSource) -> None:
    """Of no source."""
    return


@attrs.define(eq=False)
class Trial:
    """A request that has no place, and the question whether it had one after a change."""

    request: PlacementRequest
    snapshot: Snapshot
    reasons: tuple[Rejection, ...] = ()
    facts_of: KnownFacts = nothing_known
    hopeless: set[str] = attrs.field(factory=set)
    """Kinds of which not even the largest change helps, for those that could do less still."""
    _around: list[Group] | None = None
    _needs: tuple[PlacementRequest, float] | None = None

    @property
    def unlike(self) -> list[Worker]:
        """One worker, the first, of all that are alike: what helps or does not on one is the same on the others."""
        return [group[0] for group in alike(self.request, self.snapshot)]

    @property
    def spans(self) -> bool:
        """Whether the model may be divided among workers."""
        return may_span(self.request)

    def place(self, remedy: Remedy, on: Worker | int | None = None) -> Placement | None:
        """The place after a change: on that worker (or the one of that id) alone, or on any."""
        request, snapshot = applied(remedy, self.request, self.snapshot, self.facts_of)
        if on is not None:
            worker = snapshot.workers[on if isinstance(on, int) else on.id]
            if _bytes_free(worker, request, snapshot) < self._least_of(request):
                return None
            found = decide(request, snapshot, among=(worker,))
        elif self._is_hopeless(request, snapshot):
            return None
        else:
            found = decide_on_groups(request, snapshot, self._groups(snapshot))
        return found if isinstance(found, Placement) else None

    def helps(self, remedy: Remedy, on: Worker | int | None = None) -> bool:
        return self.place(remedy, on) is not None

    def helps_at(self, remedy: Remedy, worker: Worker) -> bool:
        """Whether it fits on that worker after a change; where workers are few, also whether it does on several, which
        costs more to ask."""
        return self.helps(remedy, worker) or (self.spans and self.is_small and self.helps(remedy))

    @property
    def is_small(self) -> bool:
        """Whether workers are few, so that a change may be tried for its effect on all of them each time."""
        return len(self.snapshot.workers) <= _FEW

    def first_that_helps(self, tried: Iterable[tuple[Worker, Remedy]]) -> Remedy | None:
        """The first of several changes of one worker each, with which it fits there, else there and on others."""
        listed = list(tried)
        for worker, remedy in listed:
            if self.helps(remedy, worker):
                return remedy
        if self.spans:
            for _, remedy in listed[:_MOST_TOGETHER]:
                if self.helps(remedy):
                    return remedy
        return None

    @property
    def around(self) -> list[Group]:
        """The classes of workers that decide whether it fits anywhere: all where they are few; else of each shape those
        with most free, and those of which gangs are made."""
        if self._around is None:
            groups = alike(self.request, self.snapshot)
            if len(groups) > _MOST_LOOKED_AT:
                picked = {group[0].id: group for group in (*self._fullest(groups), *self._roomiest(groups))}
                groups = [picked[key] for key in sorted(picked)]
            self._around = groups
        return self._around

    @property
    def roomiest(self) -> list[Worker]:
        """One worker of each class that decides, that may be used and has reported; those with most free first."""
        firsts = [group[0] for group in self.around if group[0].has_reported]
        return sorted(firsts, key=lambda worker: (-sum(self._freedom(worker)), worker.id))

    def _least_of(self, request: PlacementRequest) -> float:
        """``_least_bytes``, kept for the request that was asked of last."""
        if self._needs is None or self._needs[0] is not request:
            self._needs = request, _least_bytes(request)
        return self._needs[1]

    def _is_hopeless(self, request: PlacementRequest, snapshot: Snapshot) -> bool:
        """Whether all that the roomiest workers have free together, or one of them where it runs on one, is much less
        than it takes: then no way to fit need be tried."""
        need = self._least_of(request)
        free: list[int] = []
        for group in self._groups(snapshot):  # what is free on one is free on each of them
            free += [_bytes_free(group[0], request, snapshot)] * min(len(group), _MOST_LOOKED_AT)
        free.sort(reverse=True)
        most = sum(free[:_MOST_LOOKED_AT]) if may_span(request) else max(free, default=0)
        return most < need

    def _groups(self, snapshot: Snapshot) -> list[Group]:
        """``around`` in another world: what is changed or new there stands alone."""
        if snapshot is self.snapshot:
            return self.around
        before, now = self.snapshot.workers, snapshot.workers
        old_claims, new_claims = self.snapshot.claims.by_worker, snapshot.claims.by_worker
        changed = {
            key
            for key, worker in now.items()
            if before.get(key) is not worker or old_claims.get(key, ()) is not new_claims.get(key, ())
        }
        kept = (tuple(one for one in group if one.id not in changed) for group in self.around)
        return [*filter(None, kept), *((now[key],) for key in sorted(changed))]

    def _fullest(self, groups: Iterable[Group]) -> Iterator[Group]:
        """Of each shape the classes of which no other has as much free of everything."""
        by_shape: dict[object, list[tuple[tuple[int, ...], Group]]] = {}
        keys, wanted = classes_of(self.snapshot).keys, self.request.model.worker_selector
        standing = standing_of(self.request, self.snapshot)
        for group in groups:
            first = group[0]
            labels = tuple(map(first.labels.get, wanted))
            named = first.name if first.name in self.request.picked else ""
            shape = id(keys[first.id].shape), labels, named, standing.of(first.id)
            by_shape.setdefault(shape, []).append((self._freedom(first), group))
        for members in by_shape.values():
            kept: list[tuple[int, ...]] = []
            for free, group in sorted(members, key=lambda one: (-sum(one[0]), one[1][0].id)):
                if len(kept) < _MOST_KEPT and not any(_covers(other, free) for other in kept):
                    kept.append(free)
                    yield group

    def _freedom(self, worker: Worker) -> tuple[int, ...]:
        """Free memory of the worker, and of its GPUs: of each type those with most first."""
        free = self.snapshot.free(worker, without=self.request.own_id)
        devices = sorted((d.type, -free.vram.get(d.index, -1)) for d in worker.status.gpu_devices)
        return free.ram or 0, *(-size for _, size in devices)

    def _roomiest(self, groups: Iterable[Group]) -> Iterator[Group]:
        """Those with most free memory, which are those that gangs are made of."""
        if not self.spans:
            return
        kept = [group for group in groups if not objections(self.request, group[0], self.snapshot)]
        left = _MOST_LOOKED_AT
        for group in sorted(kept, key=lambda group: (-sum(self._freedom(group[0])), group[0].id)):
            yield group
            left -= len(group)
            if left <= 0:
                return

    def first_of(self, of_worker: Callable[[Worker], Remedy | None]) -> Remedy | None:
        """What a remedy finds at a worker, the first of ``MOST_TRIED`` at which it finds anything."""
        found = (of_worker(group[0]) for group in self.around[:MOST_TRIED])
        return next((remedy for remedy in found if remedy is not None), None)

    def largest(self, low: int, high: int, fits: Callable[[int], bool]) -> int | None:
        """The largest number from ``low`` to ``high`` that fits, where whatever is less fits too, if any."""
        if high < low or not fits(low):
            return None
        while low < high:
            middle = (low + high + 1) // 2
            if fits(middle):
                low = middle
            else:
                high = middle - 1
        return low

    def least(
        self, low: int, high: int, fits: Callable[[int], bool], *, guess: int | None = None
    ) -> int | None:
        """The least number from ``low`` to ``high`` that fits, where whatever is more fits too, if any. It is found at
        once where ``guess`` is right."""
        if guess is not None and low < guess < high:
            if not fits(guess):
                low = guess + 1
            elif fits(guess - 1):
                high = guess - 1
            else:
                return guess
        found = self.largest(-high, -low, lambda number: fits(-number))
        return None if found is None else -found


def changing(kind: str, sentence: str, *changes: FieldChange, by_api: bool = True) -> Remedy:
    """A remedy that sets fields."""
    return Remedy(kind=kind, sentence=sentence, changes=changes, by_api=by_api)


def adding(kind: str, sentence: str, added: Addition) -> Remedy:
    """A remedy that adds hardware."""
    return Remedy(kind=kind, sentence=sentence, added=added)


def smallest_change(
    request: PlacementRequest, snapshot: Snapshot, reasons: tuple[Rejection, ...]
) -> str | None:
    """The sentence of the least costly remedy, or ``None`` where the deployment itself is at fault."""
    kinds = (kind for kind in _kinds() if not getattr(kind, "ONLY_ASKED", False))
    trial = Trial(request, snapshot, reasons)
    return next((remedy.sentence for remedy in _remedies(trial, kinds)), None)


def all_changes(trial: Trial) -> tuple[Remedy, ...]:
    """One remedy of each kind that there is, the least costly first. Tries far more than ``smallest_change``."""
    return tuple(_remedies(trial, _kinds()))


def _remedies(trial: Trial, kinds: Iterable[ModuleType]) -> Iterator[Remedy]:
    if impossibilities(trial.request):
        return
    for kind in kinds:
        found = kind.find(trial)
        if found is not None:
            yield found


@cache
def _kinds() -> tuple[ModuleType, ...]:
    return tuple(sorted(siblings(f"{__package__}.remedies"), key=lambda module: int(module.RANK)))


def _least_bytes(request: PlacementRequest) -> float:
    """Bytes that it takes at least, whatever way it runs."""
    demand = request.variants[-1].demand
    ways = [demand.cpu()] if demand.on_cpu else []
    if demand.on_devices:
        on_device = demand.devices((1.0,))
        ways.append(on_device.ram + sum(on_device.vram))
    return min(ways, default=0) * (_LEARNT if request.known else _SURELY)


def _bytes_free(worker: Worker, request: PlacementRequest, snapshot: Snapshot) -> int:
    free = snapshot.free(worker, without=request.own_id)
    return (free.ram or 0) + sum(free.vram.values())


def _covers(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(a >= b for a, b in zip(one, other, strict=True))
