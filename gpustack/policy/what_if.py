"""A cluster as it would be: workers more, workers lost, workers drained. Nothing of it is real."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

import attrs

from gpustack.domain.device import Device
from gpustack.domain.gpu_kind import KINDS, GpuKind, kind_named, kinds_among, read_bytes
from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.record import Record, table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB, human_bytes
from gpustack.domain.worker import (
    Condition,
    EngineBuild,
    Worker,
    WorkerState,
    WorkerStatus,
)

_SPEC = re.compile(r"([0-9]{1,3})\s*[x*]\s*([^+]{1,80})(?:\+(.{1,40}))?", re.IGNORECASE)
_MOST_GPUS = 64
_USUAL_RAM = 64 * GIB
_CUDA = "cuda"


@attrs.frozen(kw_only=True)
class SupposedWorker:
    """What a text like ``4xRTX4090`` means: a worker that does not exist, and what had to be assumed of it."""

    worker: Worker
    assumed: tuple[str, ...]


def supposed_worker(text: str, snapshot: Snapshot, taken: Collection[str] = ()) -> SupposedWorker:
    """The worker that ``COUNTxKIND`` or ``COUNTxSIZE`` means, with ``+SIZE`` for its memory: ``4xRTX4090``,
    ``2x24GiB+128GiB``. What the text does not say is as on the most similar worker there is.

    ``taken`` are names beside those of the workers. Raises ``ValueError`` with a sentence.
    """
    found = _SPEC.fullmatch(text.strip())
    if found is None or not 0 < int(found[1]) <= _MOST_GPUS:
        raise ValueError(
            f"{text!r} is no worker: write COUNTxKIND such as 4xRTX4090, or COUNTxSIZE such as 2x24GiB, with at most "
            f"{_MOST_GPUS} GPUs, and +SIZE for its memory (+256GiB)"
        )
    ram = None if found[3] is None else read_bytes(found[3])
    if found[3] is not None and ram is None:
        raise ValueError(f"{found[3]!r} in {text!r} is no size of memory, such as 256GiB")
    there = [device for worker in snapshot.workers.values() for device in worker.status.gpu_devices]
    kind = _kind(found[2], there)
    devices = tuple(kind.device(index) for index in range(int(found[1])))
    like = _most_like(kind, snapshot)
    name = _free_name(text, {worker.name for worker in snapshot.workers.values()} | set(taken))
    key = max(snapshot.workers, default=0) + 1 + len(taken)
    made = _worker(key, name, devices, like, ram)
    assumed = _assumed(made, like, kind, asked_ram=ram)
    return SupposedWorker(worker=made, assumed=(f"{name}: {'; '.join(assumed)}",))


def _kind(text: str, there: Sequence[Device]) -> GpuKind:
    size = read_bytes(text)
    if size is not None:
        types = [one.type for one in there]
        of = max(set(types), key=lambda one: (types.count(one), one)) if types else _CUDA
        vendor = next((one.vendor for one in there if one.type == of), "NVIDIA")
        return GpuKind(f"GPU of {human_bytes(size)}", vendor, of, size)
    mine = kinds_among(there)
    kind = kind_named(text, mine)
    if kind is not None:
        return kind
    known = {one.name.casefold(): one.name for one in (*KINDS, *mine)}
    near = difflib.get_close_matches(text.strip().casefold(), known, n=1, cutoff=0.5)
    guess = f"; did you mean {known[near[0]]}?" if near else "."
    raise ValueError(
        f"The kind of GPU {text.strip()!r} is not known{guess} Any can be given by size: 4x24GiB"
    )


def _most_like(kind: GpuKind, snapshot: Snapshot) -> Worker | None:
    """The worker with devices of that kind, else of that type, else any that has reported; the lowest id of several."""

    def likeness(worker: Worker) -> tuple[int, int]:
        devices = worker.status.gpu_devices
        if any(one.name == kind.name for one in devices):
            return 0, worker.id
        return (1 if any(one.type == kind.type for one in devices) else 2), worker.id

    known = [one for one in snapshot.workers.values() if one.status.engines]
    return min(known, key=likeness, default=None)


def _worker(key: int, name: str, devices: Sequence[Device], like: Worker | None, ram: int | None) -> Worker:
    of_type = devices[0].type
    if like is None:
        status = WorkerStatus(engines=(_build(of_type), EngineBuild(engine="custom", origin="any command")))
        like = Worker(name=name, worker_uuid="", status=status)
    has_type = any(one.type == of_type for one in like.status.gpu_devices)
    builds = like.status.engines if has_type else tuple(_driving(one, of_type) for one in like.status.engines)
    usual = like.status.memory.total or max(_USUAL_RAM, sum(one.memory.total or 0 for one in devices))
    memory = attrs.evolve(like.status.memory, total=ram or usual, is_unified_memory=False)
    status = WorkerStatus(
        memory=memory,
        gpu_devices=tuple(devices),
        engines=builds,
        os=like.status.os,
        kernel=like.status.kernel,
        filesystem=like.status.filesystem,
    )
    return Worker(
        id=key,
        name=name,
        worker_uuid=f"supposed-{key}",
        ip=f"192.0.2.{key % 254 + 1}",  # addresses for examples, which nobody has (RFC 5737)
        labels=like.labels,
        system_reserved=like.system_reserved,
        status=status,
        condition=Condition(state=WorkerState.READY),
    )


def _build(of_type: str) -> EngineBuild:
    return EngineBuild(engine="llama.cpp", origin="supposed", drives=(of_type,))


def _driving(build: EngineBuild, of_type: str) -> EngineBuild:
    """A build as a worker with such devices would have it."""
    return attrs.evolve(build, drives=(*build.drives, of_type)) if build.on_cpu or build.drives else build


def _assumed(made: Worker, like: Worker | None, kind: GpuKind, *, asked_ram: int | None) -> list[str]:
    ram = human_bytes(made.status.memory.total)
    if like is None:
        said = ["llama.cpp is there and drives its GPUs"]
        return said if asked_ram else [*said, f"it has {ram} of memory"]
    said = [f"engines and labels are those of {like.name}"]
    if not any(one.type == kind.type for one in like.status.gpu_devices):
        said.append(f"its builds drive {kind.type} devices")
    if asked_ram is None:
        said.append(f"it has {ram} of memory")
    if kind.compute_capability is None and kind.type == _CUDA:
        said.append("its GPUs can compute whatever models need")
    return said


def _free_name(text: str, taken: Collection[str]) -> str:
    base = f"new-{re.sub(r'[^a-z0-9.]+', '', text.lower().partition('+')[0])}"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def with_workers(snapshot: Snapshot, workers: Sequence[Worker]) -> Snapshot:
    """The snapshot with these workers as well."""
    return snapshot.changed(*workers) if workers else snapshot


def with_drained(snapshot: Snapshot, worker_ids: Collection[int]) -> Snapshot:
    """The snapshot as administrators drain these workers."""
    changed = [
        attrs.evolve(snapshot.workers[key], cordoned=True, draining=True) for key in sorted(worker_ids)
    ]
    return snapshot.changed(*changed) if changed else snapshot


def without_workers(snapshot: Snapshot, worker_ids: Collection[int]) -> Snapshot:
    """The snapshot once these workers are gone for good: what ran there waits for another place, what was ending is
    gone."""
    if not worker_ids:
        return snapshot
    lost, ended = [], set()
    for one in snapshot.instances.values():
        if workers_of(one).isdisjoint(worker_ids):
            continue
        if one.deleted_at is not None:
            ended.add(one.id)
        else:
            lost.append(unplaced(one))
    left: Mapping[int, Record] = {key: one for key, one in snapshot.workers.items() if key not in worker_ids}
    before = snapshot.changed(*lost, without=ended)
    made = attrs.evolve(before, tables={**before.tables, table_of(Worker): left})
    made.follow(before)
    return made


def unplaced(instance: ModelInstance) -> ModelInstance:
    """An instance that has lost its place and waits for another."""
    return attrs.evolve(
        instance,
        placement=None,
        state=InstanceState.PENDING,
        state_message="",
        pid=None,
        port=None,
        ports=(),
        address="",
        members=(),
        resolved_path=None,
    )
