"""The whole model on GPUs of several workers, as many of one type on each, every GPU with the same share."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import Claim
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import human_bytes
from gpustack.engines import parameters
from gpustack.engines.registry import engine_by_name
from gpustack.policy.capacity import WorkerCapacity
from gpustack.policy.estimate.need import DeviceNeed
from gpustack.policy.gang import MOST_GPUS, by_type, count_of, ground, may_span, refusal
from gpustack.policy.placement import Candidate, PlacementRequest, Rejection
from gpustack.policy.seat import best_seats

RANK = 3


@attrs.frozen
class GangShape:
    """So many workers with so many GPUs each, and what each worker and each GPU needs."""

    workers: int
    gpus: int
    need: DeviceNeed

    @property
    def share(self) -> int:
        """Bytes on each GPU."""
        return self.need.vram[0]


def gangs(
    request: PlacementRequest, rooms: Sequence[WorkerCapacity], snapshot: Snapshot
) -> list[Candidate] | Rejection:
    """A gang of the shape with fewest GPUs, of those the one with fewest workers; or why there is none."""
    demand = request.demand
    if not (demand.equal and demand.on_devices and may_span(request)) or len(request.picked) == 1:
        return []
    found = ground(request, rooms)
    nearest: tuple[int, Sequence[WorkerCapacity], GangShape] | None = None
    for group in found.groups:
        holding = _Holding.of(request, group)
        for shape in _shapes(request, group):
            kinds = [
                kind for kind in holding.kinds if holding.workers(kind, shape.gpus, shape) >= shape.workers
            ]
            made = [gang for kind in kinds if (gang := _gang(request, group, kind, shape, snapshot))]
            if made:
                return made
            missing = holding.missing(shape)
            if nearest is None or missing < nearest[0]:
                nearest = missing, group, shape
    return _missing(request, *nearest[1:]) if nearest is not None else found.refusal or []


@attrs.frozen
class _Holding:
    """How many workers have so many GPUs of a type that hold a share each: by the type, of the workers that have one,
    two, … of it, the largest share that the one, two, … with most room hold, ascending."""

    shares: Mapping[str, Sequence[Sequence[int]]]

    @classmethod
    def of(cls, request: PlacementRequest, group: Sequence[WorkerCapacity]) -> _Holding:
        found: dict[str, list[list[int]]] = {}
        holdable = request.demand.holdable
        for here in group:
            for kind, devices in by_type(here).items():
                rooms = sorted((holdable(here.vram(d), d.memory.total) for d in devices), reverse=True)
                counts = found.setdefault(kind, [])
                for number, room in enumerate(rooms):
                    if number == len(counts):
                        counts.append([])
                    counts[number].append(room)
        for counts in found.values():
            for one in counts:
                one.sort()
        return cls(found)

    @property
    def kinds(self) -> list[str]:
        return sorted(self.shares)

    def workers(self, kind: str, gpus: int, shape: GangShape) -> int:
        """Workers with that many GPUs that hold a share of the shape."""
        counts = self.shares[kind]
        if gpus > len(counts):
            return 0
        rooms = counts[gpus - 1]
        return len(rooms) - bisect_left(rooms, shape.share)

    def missing(self, shape: GangShape) -> int:
        """GPUs that are missing for the shape, of the type of which fewest are."""
        there = (
            sum(min(self.workers(kind, gpus, shape), shape.workers) for gpus in range(1, shape.gpus + 1))
            for kind in self.shares
        )
        return shape.workers * shape.gpus - max(there, default=0)


def _shapes(request: PlacementRequest, group: Sequence[WorkerCapacity]) -> Iterator[GangShape]:
    for count, each in sizes(request, group):
        need = request.demand.among_workers((1.0,) * (count * each), (count - 1) * each)
        yield GangShape(count, each, need)


def sizes(request: PlacementRequest, group: Sequence[WorkerCapacity]) -> Iterator[tuple[int, int]]:
    """Numbers of workers and of GPUs on each, fewest GPUs first; tensor parallel groups, where the user set their size,
    are not torn apart unevenly."""
    if request.gpu_ids:
        yield len(request.picked), len(request.gpu_ids) // len(request.picked)
        return
    most = max((len(devices) for here in group for devices in by_type(here).values()), default=0)
    parallel = _tensor_parallel(request)
    for total in request.demand.device_counts or range(2, MOST_GPUS + 1):
        for count in range(2, min(total, len(group)) + 1):
            each, rest = divmod(total, count)
            whole = parallel is None or each % parallel == 0 or parallel % each == 0
            if not rest and each <= most and whole:
                yield count, each


def _tensor_parallel(request: PlacementRequest) -> int | None:
    engine = engine_by_name(request.engine_name)
    if engine is None or engine.memory is None:
        return None
    size = parameters.number_of(request.model.backend_parameters, *engine.memory.tensor_parallel)
    return size if size and size > 0 else None


def _gang(
    request: PlacementRequest,
    group: Sequence[WorkerCapacity],
    kind: str,
    shape: GangShape,
    snapshot: Snapshot,
) -> Candidate | None:
    """The best gang of that shape on GPUs of one type, if there are enough workers for it."""
    seats = [seat for here in group if (seat := _seat(request, here, kind, shape))]
    if len(seats) < shape.workers:
        return None
    main, *followers = best_seats(request, seats, shape.workers, snapshot)
    names = ", ".join(member.worker.name for member in (main, *followers))
    total = shape.workers * shape.gpus
    return attrs.evolve(
        main,
        followers=tuple(followers),
        left=sum(member.left for member in (main, *followers)) / shape.workers,
        note=f"Divided among {total} GPUs of workers {names}, {shape.gpus} on each",
    )


def _seat(request: PlacementRequest, here: WorkerCapacity, kind: str, shape: GangShape) -> Candidate | None:
    """The part of one worker: its GPUs with most free memory, if enough of them hold their share."""
    chosen = _holding(request, here, by_type(here).get(kind, ()), shape.share)[: shape.gpus]
    vram = {
        device.index: request.demand.taken(shape.share, device.memory.total)
        for device in sorted(chosen, key=lambda device: device.index)
    }
    if len(chosen) < shape.gpus or here.lacks(shape.need.ram, vram) is not None:
        return None
    claim = Claim(ram=shape.need.ram, vram=vram, is_unified_memory=here.unified)
    total = sum(device.memory.total or 0 for device in chosen)
    left = sum(here.vram(device) - vram[device.index] for device in chosen) / max(total, 1)
    return Candidate(worker=here.worker, gpu_indexes=tuple(vram), claim=claim, left=left)


def _holding(
    request: PlacementRequest, here: WorkerCapacity, devices: Sequence[Device], share: int
) -> list[Device]:
    """Those of ``devices`` that have room for a share."""
    return [d for d in devices if here.vram(d) >= request.demand.taken(share, d.memory.total)]


def _missing(request: PlacementRequest, group: Sequence[WorkerCapacity], shape: GangShape) -> Rejection:
    """What is missing for the shape, as a sentence."""
    holding = [
        max((len(_holding(request, here, d, shape.share)) for d in by_type(here).values()), default=0)
        for here in group
    ]
    total = shape.workers * shape.gpus
    each = "1 GPU" if shape.gpus == 1 else f"{shape.gpus} GPUs"
    enough = count_of(here for here, count in zip(group, holding, strict=True) if count >= shape.gpus)
    return refusal(
        f"divided among {total} GPUs, {each} on each of {shape.workers} workers, it needs "
        f"{human_bytes(shape.share)} of free video memory on each GPU, which {enough} of {count_of(group)} workers have"
    )
