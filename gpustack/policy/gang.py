"""Whether a model may be divided among workers, and which workers can work together."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import attrs

from gpustack.domain.device import Device
from gpustack.domain.ray import RayState
from gpustack.domain.worker import EngineBuild, Worker
from gpustack.engines import llama_cpp
from gpustack.engines.engine import GangPlan, PortPool
from gpustack.engines.registry import engine_by_name

from .capacity import WorkerCapacity
from .placement import PlacementRequest, Rejection

_UNLESS_REFUSED = frozenset({"llama.cpp", "vllm", "sglang"})
"""Engines whose models are divided among workers unless the deployment refuses it; others only if it asks for that."""
_NAMED = 3


def plan_of(request: PlacementRequest) -> GangPlan | None:
    """How the engine runs this model over several workers; ``None`` if it cannot."""
    engine = engine_by_name(request.engine_name)
    return None if engine is None else engine.gang(request.model, ray=request.gangs.ray)


def may_span(request: PlacementRequest) -> bool:
    """Whether the model may be divided among workers: its engine can, and the deployment allows it.

    GPUs picked on several workers ask for it.
    """
    wanted = request.model.distributed_inference_across_workers
    if wanted is None:
        wanted = request.engine_name in _UNLESS_REFUSED or len(request.picked) > 1
    return wanted and request.demand.spans_workers and plan_of(request) is not None


def faults_of_picked(request: PlacementRequest) -> list[str]:
    """What is wrong with the GPUs picked by hand, whatever workers have. Raises ``ValueError`` for a malformed id."""
    picked, counts = request.picked, request.demand.device_counts
    total = sum(map(len, picked.values()))
    faults = _faults_among_workers(request) if len(picked) > 1 else []
    if not faults and total and counts and total not in counts:
        listed = ", ".join(str(count) for count in counts)
        chosen = "1 GPU is" if total == 1 else f"{total} GPUs are"
        faults = [f"{chosen} selected, but the model can only be divided among {listed}"]
    return faults


def _faults_among_workers(request: PlacementRequest) -> list[str]:
    picked, model = request.picked, request.model
    chosen = f"GPUs of several workers are selected ({', '.join(picked)})"
    if model.distributed_inference_across_workers is False:
        return [
            f"{chosen}, but the deployment must not be divided among workers "
            "(distributed_inference_across_workers); select GPUs of one worker"
        ]
    if not may_span(request):
        return [f"{chosen}, but {request.engine_name} cannot divide it among them; select GPUs of one worker"]
    if request.demand.equal:
        return _faults_of_unequal(request, chosen)
    remote = sum(map(len, picked.values())) - max(map(len, picked.values()))
    if remote > request.gangs.most_remote:
        return [
            f"{chosen}: {remote} of them would be used over the network, more than the {request.gangs.most_remote} "
            "of DEFAULT_MAX_RPC_SERVER_COUNT"
        ]
    return []


def _faults_of_unequal(request: PlacementRequest, chosen: str) -> list[str]:
    picked = request.picked
    if len({len(devices) for devices in picked.values()}) > 1:
        counts = ", ".join(f"{len(devices)} on {name}" for name, devices in picked.items())
        return [f"{chosen}, but not as many on each ({counts}); {request.engine_name} needs the same number"]
    if len({device.type for devices in picked.values() for device in devices}) > 1:
        kinds = ", ".join(
            f"{'+'.join(sorted({d.type for d in devices}))} on {name}" for name, devices in picked.items()
        )
        return [f"{chosen}, but of several types ({kinds}); {request.engine_name} needs one type"]
    return []


@attrs.frozen(kw_only=True)
class GangGround:
    """The workers that a gang may be made of, in groups whose members can work together, and why others cannot.

    ``groups`` are of at least two workers each, in a fixed order; within one they are in the order of their ids.
    """

    groups: tuple[tuple[WorkerCapacity, ...], ...]
    against: tuple[str, ...] = ()

    @property
    def refusal(self) -> Rejection | None:
        """Why there is no group at all."""
        if self.groups or not self.against:
            return None
        return refusal("; ".join(self.against))


MOST_GPUS = 64
"""Where a model may be divided among any number of GPUs, so many are tried at most."""
MOST_MAINS = 4
"""So many workers are tried as the one that leads a gang over RPC: those with most free memory."""


def most_alike(request: PlacementRequest) -> int:
    """Of workers that are alike, how many at most can be part of one gang."""
    demand = request.demand
    if demand.equal:
        return max((*demand.device_counts, MOST_GPUS))
    return request.gangs.most_considered + MOST_MAINS


def refusal(why: str) -> Rejection:
    """Why it does not fit on several workers together."""
    return Rejection(sentence=f"over several workers: {why}")


def ground(request: PlacementRequest, rooms: Sequence[WorkerCapacity]) -> GangGround:
    """Sort workers into those that can work together: they reach each other and have the same build."""
    plan = plan_of(request)
    rpc = plan is not None and plan.follower_range is PortPool.RPC
    ray = plan is not None and plan.delegated
    out: dict[str, list[WorkerCapacity]] = {}
    alike: dict[tuple[str, bool], list[WorkerCapacity]] = {}
    for here in rooms:
        worker, build = here.worker, here.build
        if build is None:
            continue
        if why := _unfit(worker, build, rpc) or (_without_ray(worker) if ray else ""):
            out.setdefault(why, []).append(here)
        else:
            alike.setdefault((_identity(build), is_loopback(worker.ip)), []).append(here)
    groups = [members for _, members in sorted(alike.items()) if len(members) > 1]
    against = [f"{_named(rooms)} {why}" for why, rooms in out.items()]
    if len(alike) > 1:
        against.insert(0, _differing(request.engine_name, alike))
    return GangGround(
        groups=tuple(tuple(members) for members in groups),
        against=tuple(against),
    )


def _unfit(worker: Worker, build: EngineBuild, rpc: bool) -> str:
    """Why a worker cannot be part of any gang; empty if it can."""
    if (worker.status.kernel.name or "Linux").lower() != "linux":
        return f"runs {worker.status.kernel.name}: only Linux can take part"
    if not worker.ip:
        return "has not told an address at which others reach it"
    if rpc and (llama_cpp.is_embedded(build) or not (build.rpc or build.rpc_server)):
        return f"has no llama-server with RPC ({build.origin or 'unknown build'})"
    return ""


def _without_ray(worker: Worker) -> str:
    """Why a worker is not part of the Ray cluster; empty if it is."""
    if worker.status.ray is None:
        return "is not part of Ray: start it with --enable-ray"
    if worker.status.ray.state is RayState.UP:
        return ""
    said = f" ({worker.status.ray.message})" if worker.status.ray.message else ""
    return f"is not part of Ray, which is {worker.status.ray.state.value} there{said}"


def _identity(build: EngineBuild) -> str:
    """What must be the same on all workers of a gang."""
    return build.digest or build.version or ""


@lru_cache(maxsize=4096)  # asked for each worker of which anything changes
def is_loopback(address: str) -> bool:
    """Whether an address or name leads to its own machine only."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address == "localhost"


def _differing(engine: str, alike: Mapping[tuple[str, bool], list[WorkerCapacity]]) -> str:
    """Two groups that cannot work together, with a worker of each."""
    (one, first), (two, second) = sorted(
        sorted(alike.items(), key=lambda pair: -count_of(pair[1]))[:2],
        key=lambda pair: pair[1][0].worker.name,
    )
    a, b = first[0].worker, second[0].worker
    if one[0] == two[0]:
        return f"workers {a.name} ({a.ip}) and {b.name} ({b.ip}) cannot reach each other; set --worker-ip"
    builds = " and ".join(f"{here.worker.name} has {_build_name(here)}" for here in (first[0], second[0]))
    return f"{builds}: workers need the same build of {engine} to share a model"


def _build_name(here: WorkerCapacity) -> str:
    assert here.build is not None
    version = here.build.version or "an unknown version"
    return f"{version} ({here.build.digest[:12]})" if here.build.digest else version


def count_of(rooms: Iterable[WorkerCapacity]) -> int:
    """How many workers these are the capacities of."""
    return sum(here.stands_for for here in rooms)


def _named(rooms: Sequence[WorkerCapacity]) -> str:
    count = count_of(rooms)
    if count == 1:
        return f"worker {rooms[0].worker.name}"
    if count > _NAMED:
        return f"each of {count} workers"
    return f"each of workers {', '.join(here.worker.name for here in rooms)}"


def by_type(here: WorkerCapacity) -> Mapping[str, tuple[Device, ...]]:
    """The devices that may be used together by one process, by their type; most free memory first.

    CUDA shows a process one part of a card (MIG instance) only: each of those is by itself.
    """
    found: dict[str, tuple[Device, ...]] = {}
    for device in here.devices:
        kind = device.type if device.slice_profile is None else f"{device.type}:{device.index}"
        found[kind] = (*found.get(kind, ()), device)
    return found
