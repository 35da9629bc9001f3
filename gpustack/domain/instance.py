"""A model instance: one replica, its placement and its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import attrs

from .artifact import ModelSource
from .lifecycle import InstanceState
from .memory_use import MeasuredMemory, MemoryPlan
from .record import Record, stored

NO_ADDRESS = "-.-.-.-"
"""In place of the address of a device whose own network is down."""


@attrs.frozen(kw_only=True)
class Claim:
    """Bytes an instance holds on one worker: host memory, and video memory per device index.

    It is an estimate unless a user fixed it. ``offload_layers`` of ``total_layers`` run on devices.
    """

    ram: int = 0
    vram: Mapping[int, int] = attrs.field(factory=dict)
    offload_layers: int | None = None
    total_layers: int | None = None
    tensor_split: tuple[int, ...] = ()
    is_unified_memory: bool = False
    slots: int | None = None
    """Requests at a time that it has room for; ``None`` where that was not computed."""
    context: int | None = None
    """Tokens of one request that it has room for; ``None`` where the engine is not told by us."""
    kv_cache: int | None = None
    """Bytes of it that are the KV cache, on each device (on the host where there is none); ``None`` where the engine is
    not told."""
    tensor_parallel: int | None = None
    """How many of all its devices divide each layer among them; the others hold other layers. ``None`` where that is
    not for us to say."""


@attrs.frozen(kw_only=True)
class Subordinate:
    """The part of a gang's follower: one process, on a further worker or beside the main one."""

    worker_id: int
    worker_name: str = ""
    """For messages; empty where it was not written down."""
    gpu_indexes: tuple[int, ...] = ()
    gpu_addresses: tuple[str | None, ...] = ()
    """Of the devices' own networks, in the order of the indexes; empty where no device has one."""
    claim: Claim = Claim()


@attrs.frozen(kw_only=True)
class Placement:
    """Where an instance runs. ``gpu_indexes`` empty means on the CPU."""

    worker_id: int
    gpu_indexes: tuple[int, ...] = ()
    gpu_addresses: tuple[str | None, ...] = ()
    claim: Claim = Claim()
    subordinates: tuple[Subordinate, ...] = ()
    score: float = 0.0
    note: str = ""
    """A remark on this choice for users, e.g. why no GPU was claimed."""
    memory: MemoryPlan | None = None
    """How the claims came about, where they were computed term by term."""

    def share(self, member: int) -> Subordinate:
        """The part of one member: 0 is the main one, k the k-th follower. Raises ``IndexError``."""
        if member:
            return self.subordinates[member - 1]
        return Subordinate(
            worker_id=self.worker_id,
            gpu_indexes=self.gpu_indexes,
            gpu_addresses=self.gpu_addresses,
            claim=self.claim,
        )


@attrs.frozen(kw_only=True)
class MemberStatus:
    """What the worker of a follower last said of its process."""

    attempt: int = 0
    """Of which attempt it is part; what is said of a former attempt says nothing of this one."""
    state: InstanceState = InstanceState.PENDING
    state_message: str = ""
    address: str = ""
    """Where the other members reach it."""
    ports: tuple[int, ...] = ()
    pid: int | None = None
    download_progress: float | None = None


@stored("model_instances", unique=(("name",),), indexed=("model_id",))
@attrs.frozen(kw_only=True)
class ModelInstance(Record):
    """One replica. Who writes which field: ``server/README.md``."""

    name: str
    model_id: int
    model_name: str
    source: ModelSource
    generation: int = 1
    lora_adapters: tuple[str, ...] = ()
    """Names of the adapters that its engine has, or is to be started with, in the order in which it counts them."""
    placement: Placement | None = None
    reserved: Placement | None = None
    """The place that is kept for it while what is there ends; it waits, and is placed once there is room."""
    displaced_by: str = ""
    """The model, with its priority, for which this one makes room; or for which the one that it replaces did."""
    state: InstanceState = InstanceState.PENDING
    state_message: str = ""
    state_since: datetime | None = None
    pid: int | None = None
    port: int | None = None
    ports: tuple[int, ...] = ()
    attempt: int = 0
    """Counts the starts of a gang: its members of one attempt belong together, and end with it."""
    address: str = ""
    """Where the followers of a gang reach its main member."""
    members: tuple[MemberStatus, ...] = ()
    """Of each follower, in the order of ``placement.subordinates``; may be shorter while some have said nothing."""
    ended: tuple[int, ...] = ()
    """Members whose processes have ended since ``deleted_at``; 0 is the main one."""
    download_progress: float | None = None
    resolved_path: str | None = None
    restart_count: int = 0
    last_restart_time: datetime | None = None
    next_retry_at: datetime | None = None
    memory: MeasuredMemory | None = None
    """What its engine was found to take since it was started last."""
    deleted_at: datetime | None = None
    """Set when it is to end: its worker stops the engine, then the record is deleted and its claim is free."""

    @property
    def worker_id(self) -> int | None:
        """The main worker, once placed."""
        return None if self.placement is None else self.placement.worker_id


def summed(claims: Iterable[Claim]) -> Claim:
    """All of them together."""
    ram, vram = 0, dict[int, int]()
    for claim in claims:
        ram += claim.ram
        for index, size in claim.vram.items():
            vram[index] = vram.get(index, 0) + size
    return Claim(ram=ram, vram=vram)


def place_of(instance: ModelInstance) -> Placement | None:
    """Where it is, or where a place is kept for it; ``None`` where it has neither."""
    return instance.placement or instance.reserved


def claims_of(placement: Placement) -> tuple[tuple[int, Claim], ...]:
    """The claim of each member, with the id of its worker; the main one's first."""
    others = ((share.worker_id, share.claim) for share in placement.subordinates)
    return ((placement.worker_id, placement.claim), *others)


def workers_of(instance: ModelInstance) -> frozenset[int]:
    """Ids of every worker that an instance runs on; none while it has no place."""
    placement = instance.placement
    if placement is None:
        return frozenset()
    return frozenset((placement.worker_id, *(share.worker_id for share in placement.subordinates)))


def members_on(instance: ModelInstance, worker_id: int) -> tuple[int, ...]:
    """The members of an instance that run on one worker: 0 is the main one, k the k-th follower."""
    placement = instance.placement
    if placement is None:
        return ()
    count = 1 + len(placement.subordinates)
    return tuple(member for member in range(count) if placement.share(member).worker_id == worker_id)


def status_of(instance: ModelInstance, member: int) -> MemberStatus:
    """What was last said of the follower ``member`` (from 1) in the present attempt; empty when nothing was."""
    if member <= len(instance.members) and instance.members[member - 1].attempt == instance.attempt:
        return instance.members[member - 1]
    return MemberStatus(attempt=instance.attempt)
