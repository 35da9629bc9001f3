"""How llama.cpp divides layers among devices of several workers over RPC: which devices, in which order and shares.

The order is that of llama.cpp: devices of other workers first, in the order of ``--rpc``, then those of the main
process. ``Claim.tensor_split`` of the main member has their shares in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import nsmallest

import attrs

from gpustack.domain.device import Device
from gpustack.domain.instance import Claim
from gpustack.domain.unit import MIB
from gpustack.domain.worker import EngineBuild

from .capacity import WorkerCapacity
from .estimate.gguf import HOST_FOOTPRINT
from .estimate.need import DeviceNeed
from .gang import MOST_MAINS, by_type
from .placement import Candidate, PlacementRequest, Shortage

_CORRECTIONS = 3
"""How often shares are corrected by what did not fit, before layers are counted out."""
_MOVES = 32
"""How many layers are moved at most."""


@attrs.frozen
class RpcPlace:
    """One device that layers are put on; ``device`` is ``None`` for the memory of a worker without GPUs."""

    here: WorkerCapacity
    device: Device | None

    @property
    def free(self) -> int:
        return self.here.ram if self.device is None else self.here.vram(self.device)


def mains(request: PlacementRequest, group: Sequence[WorkerCapacity]) -> list[WorkerCapacity]:
    """The workers that lead best, a few: with most picked GPUs, then most free memory on GPUs, then on the host."""
    able = [here for here in group if _build(here).rpc]

    def rank(here: WorkerCapacity) -> tuple[int, int, int, int]:
        picked = len(request.picked.get(here.worker.name, ()))
        on_gpus = sum(place.free for place in local_places(request, here))
        return -picked, -on_gpus, -here.ram, here.worker.id

    return nsmallest(MOST_MAINS, able, key=rank)


def local_places(request: PlacementRequest, here: WorkerCapacity) -> tuple[RpcPlace, ...]:
    """The GPUs of the worker that leads, all of one type, by ascending index; those that hold no layer are left out."""
    picked = request.gpu_ids
    least = 0 if picked else _one_layer(request)
    kinds = [
        [RpcPlace(here, device) for device in devices if here.vram(device) >= least]
        for devices in by_type(here).values()
    ]
    if picked:
        kinds = [[place for kind in kinds for place in kind]]
    best = max(kinds, key=lambda places: sum(place.free for place in places), default=[])
    return tuple(sorted(best, key=lambda place: place.device.index if place.device else 0))


def lenders(
    request: PlacementRequest, group: Sequence[WorkerCapacity], main: WorkerCapacity, *, hosts: bool = False
) -> tuple[RpcPlace, ...]:
    """GPUs that other workers lend, most free memory first, as many as are considered; with ``hosts`` after them the
    memory of workers without any."""
    others = [here for here in group if here is not main and _build(here).rpc_server]
    least = 0 if request.gpu_ids else _one_layer(request)
    gpus = [
        RpcPlace(here, device) for here in others for device in here.devices if here.vram(device) >= least
    ]
    memory = [RpcPlace(here, None) for here in others if hosts and not request.gpu_ids and not here.devices]
    most = len(gpus) if request.gpu_ids else request.gangs.most_considered
    found = [*nsmallest(most, gpus, key=_by_room), *nsmallest(most, memory, key=_by_room)]
    return tuple(found[:most])


def _by_room(place: RpcPlace) -> tuple[int, int, int]:
    return -place.free, place.here.worker.id, place.device.index if place.device else 0


def _build(here: WorkerCapacity) -> EngineBuild:
    assert here.build is not None  # a filter has ruled out workers without
    return here.build


def _one_layer(request: PlacementRequest) -> int:
    """Bytes without which a device is of no use; 1 where layers are not known."""
    if request.demand.total_layers is None:
        return 1
    return request.demand.among_workers((1.0,), 1, 1).vram[0]


@attrs.frozen
class RpcDivision:
    """Layers divided among places, the first ``remote`` of which are on other workers than ``main``."""

    request: PlacementRequest
    main: WorkerCapacity
    places: tuple[RpcPlace, ...]
    remote: int
    layers: int | None = None
    """On ``places`` together; the others are on the CPU of ``main``. ``None`` is all."""
    shares: tuple[int, ...] = attrs.field()
    need: DeviceNeed = attrs.field(init=False)

    @shares.default
    def _by_free_memory(self) -> tuple[int, ...]:
        if self.request.demand.split:
            return tuple(max(1, round(share * 1000)) for share in self.request.demand.split)
        return tuple(max(1, place.free // MIB) for place in self.places)

    @need.default
    def _needed(self) -> DeviceNeed:
        return self.request.demand.among_workers(self.shares, self.remote, self.layers)

    def lacking(self) -> Shortage | None:
        """The first memory that is too small, on any worker."""
        for here, claim in self._claims():
            if (shortage := here.lacks(claim.ram, claim.vram)) is not None:
                return shortage
        return None

    def balanced(self) -> RpcDivision | None:
        """The division, its shares corrected so that each place holds its own; ``None`` if that was not found.

        A part of what each place needs does not shrink with its share, so shares by free memory alone ask too much of
        small devices. The user's own shares are not corrected.
        """
        tried = self
        for _ in range(_CORRECTIONS):
            if tried.lacking() is None:
                return tried
            if self.request.demand.split or tried._excess() > 0:
                return None
            shares = tuple(
                max(1, round(share * place.free / max(need, 1)))
                for share, place, need in zip(tried.shares, self.places, tried.need.vram, strict=True)
            )
            tried = attrs.evolve(tried, shares=shares)
        return tried._by_layers()

    def _excess(self) -> int:
        """Bytes that all places together are short of; below zero for what would be left."""
        return sum(self.need.vram) - sum(place.free for place in self.places)

    def _by_layers(self) -> RpcDivision | None:
        """The division with whole numbers of layers for shares, moved one by one from the fullest place to the
        emptiest, until each holds its own."""
        layers = self.request.demand.total_layers if self.layers is None else self.layers
        if layers is None or layers < len(self.places):
            return None
        whole = sum(self.shares)
        counts = [max(1, layers * share // whole) for share in self.shares]
        counts[counts.index(max(counts))] += layers - sum(counts)
        for _ in range(_MOVES):
            tried = attrs.evolve(self, shares=tuple(counts))
            over = [need - place.free for need, place in zip(tried.need.vram, self.places, strict=True)]
            if max(over) <= 0:
                return tried if tried.lacking() is None else None
            fullest, emptiest = over.index(max(over)), over.index(min(over))
            if tried._excess() > 0 or counts[fullest] < 2:
                return None
            counts[fullest] -= 1
            counts[emptiest] += 1
        return None

    def _claims(self) -> list[tuple[WorkerCapacity, Claim]]:
        """What each worker would hold, over all of its places."""
        held: dict[int, tuple[WorkerCapacity, int, dict[int, int]]] = {
            self.main.worker.id: (self.main, self.need.ram, {})
        }
        for number, (place, need) in enumerate(zip(self.places, self.need.vram, strict=True)):
            here, ram, vram = held.get(place.here.worker.id, (place.here, 0, {}))
            if place.device is None:
                ram += need
            else:
                vram[place.device.index] = need
                ram += HOST_FOOTPRINT if number < self.remote else 0
            held[here.worker.id] = here, ram, vram
        return [(here, Claim(ram=ram, vram=vram)) for here, ram, vram in held.values()]

    def candidate(self, note: str) -> Candidate:
        """It as a place: the main member with its own devices, and one follower for each remote place."""
        demand = self.request.demand
        pairs = list(zip(self.places, self.need.vram, strict=True))
        own = {place.device.index: need for place, need in pairs[self.remote :] if place.device}
        claim = Claim(
            ram=self.need.ram,
            vram=own,
            offload_layers=demand.total_layers if self.layers is None else self.layers,
            total_layers=demand.total_layers,
            tensor_split=self.shares,
            is_unified_memory=self.main.unified,
        )
        followers = tuple(_follower(place, need) for place, need in pairs[: self.remote])
        return Candidate(
            worker=self.main.worker,
            gpu_indexes=tuple(own),
            claim=claim,
            left=_left(self.places, self.need),
            note=note,
            followers=followers,
        )


def _follower(place: RpcPlace, need: int) -> Candidate:
    vram: Mapping[int, int] = {} if place.device is None else {place.device.index: need}
    claim = Claim(
        ram=need if place.device is None else HOST_FOOTPRINT, vram=vram, is_unified_memory=place.here.unified
    )
    return Candidate(worker=place.here.worker, gpu_indexes=tuple(vram), claim=claim)


def _left(places: Sequence[RpcPlace], need: DeviceNeed) -> float:
    """The share of the free memory of all places that stays free."""
    free = sum(place.free for place in places)
    return (free - sum(need.vram)) / max(free, 1)
