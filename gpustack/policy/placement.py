"""The values of placement: the request, a candidate, a shortage of memory, and why there is no place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from gpustack.domain.device import Device, DeviceId
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import Claim, ModelInstance, Placement, Subordinate
from gpustack.domain.model import Model
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import EngineBuild, Worker
from gpustack.engines.program import programs, requirements_of, version_of
from gpustack.engines.registry import engine_by_name

from .capability import CapabilityNeed, capability_need
from .estimate.demand import demand_of
from .estimate.learnt import NO_RUNS, KnownRuns
from .estimate.need import MemoryDemand

MAKES_ROOM = "an older replica of it makes room"
"""Part of the sentence of a new replica that fits only in the room of an older one of its model. The reconciler looks
for it (``waits_for_room``)."""

_LISTED = 3


def _demand(request: PlacementRequest) -> MemoryDemand:
    if request.ran is None:
        return demand_of(request.model, request.facts, request.engine_name, request.slots)
    runs = request.known.on(*request.ran)
    return demand_of(request.model, request.facts, request.engine_name, request.slots, runs)


@attrs.frozen(kw_only=True)
class GangSettings:
    """What operators decide about models that are divided among workers."""

    ray: bool = False
    """Whether the workers form a Ray cluster (``--enable-ray``)."""
    most_remote: int = 8
    """Most devices of other workers that one llama.cpp uses over RPC."""
    most_considered: int = 16
    """Devices of other workers among which those are chosen: the ones with most free memory."""


USUAL_GANGS = GangSettings()


@attrs.frozen(kw_only=True)
class PlacementRequest:
    """One replica to place. ``instance`` is ``None`` for a model that is only being considered."""

    model: Model
    instance: ModelInstance | None = None
    facts: ModelFacts | None = None
    engine_name: str
    gangs: GangSettings = USUAL_GANGS
    slots: int | None = None
    """Requests at a time to have memory for; ``None`` leaves it to the engine's defaults."""
    known: KnownRuns = attrs.field(default=NO_RUNS, repr=False)
    """What runs of the engine with models of this architecture have shown."""
    ran: tuple[str, str | None] | None = None
    """The build and the kind of devices of which runs count; ``None``: none do."""
    _at: dict[tuple[str, str | None], PlacementRequest] = attrs.field(
        factory=dict, init=False, eq=False, repr=False
    )
    demand: MemoryDemand = attrs.field(
        init=False, default=attrs.Factory(_demand, takes_self=True), repr=False, eq=False
    )

    @property
    def capability(self) -> CapabilityNeed | None:
        """What CUDA devices must be able to compute; ``None`` where that is not known."""
        engine = engine_by_name(self.engine_name)
        if engine is None or engine.memory is None or self.facts is None:
            return None
        return capability_need(self.model, self.facts, engine.memory)

    @property
    def own_id(self) -> frozenset[int]:
        """The id of the instance, whose own claim does not count as taken."""
        return frozenset() if self.instance is None else frozenset({self.instance.id})

    def build_on(self, worker: Worker) -> EngineBuild | None:
        """The build of the engine that it would run on there, whether installed or yet to be; ``None`` if none."""
        wanted = requirements_of(self.model, programs().get(self.engine_name))
        return worker.build_of(self.engine_name, version_of(self.model.backend_version), wanted)

    def at(self, build: EngineBuild | None, device: str | None) -> PlacementRequest:
        """The same with what runs of that build on that kind of devices have shown; ``None`` is several kinds."""
        if not self.known or build is None:
            return self
        ran = build.version or "", device
        if ran not in self._at:
            self._at[ran] = attrs.evolve(self, ran=ran)
        return self._at[ran]

    @property
    def variants(self) -> tuple[PlacementRequest, ...]:
        """The same for fewer and fewer requests at a time, where their number is ours to choose; the most first."""
        if self.slots is not None or not self.demand.slot_choices:
            return (self,)
        return tuple(attrs.evolve(self, slots=count) for count in self.demand.slot_choices)

    @property
    def gpu_ids(self) -> tuple[str, ...]:
        """Devices that the user picked; empty if the choice is ours."""
        return () if self.model.gpu_selector is None else self.model.gpu_selector.gpu_ids

    @property
    def picked(self) -> Mapping[str, tuple[DeviceId, ...]]:
        """The same by the name of their worker, in the order of the names. Raises ``ValueError`` with a sentence."""
        found: dict[str, tuple[DeviceId, ...]] = {}
        for device in map(DeviceId.parse, self.gpu_ids):
            found[device.worker] = (*found.get(device.worker, ()), device)
        return dict(sorted(found.items()))


@attrs.frozen(kw_only=True)
class Candidate:
    """A place that fits. ``left`` is the share of the memory claimed from that stays free, 0 to 1."""

    worker: Worker
    gpu_indexes: tuple[int, ...] = ()
    claim: Claim
    left: float = 0.0
    note: str = ""
    followers: tuple[Candidate, ...] = ()
    """The places of the other members of a gang, whose main member is this one; they have none of their own."""

    @property
    def devices(self) -> int:
        """Devices of all members; the memory of a host counts as one where a member of a gang has no GPU."""
        if not self.followers:
            return len(self.gpu_indexes)
        return sum(max(len(member.gpu_indexes), 1) for member in (self, *self.followers))

    @property
    def placement(self) -> Placement:
        """It as a placement, without score and note."""
        others = (
            Subordinate(
                worker_id=one.worker.id,
                worker_name=one.worker.name,
                gpu_indexes=one.gpu_indexes,
                claim=one.claim,
            )
            for one in self.followers
        )
        return Placement(
            worker_id=self.worker.id,
            gpu_indexes=self.gpu_indexes,
            claim=self.claim,
            subordinates=tuple(others),
        )


@attrs.frozen(kw_only=True)
class Shortage:
    """Which memory (``of``) of a worker or, with an index, of its device is too small. Bytes.

    Most are never told, so that what only their sentence needs is worked out when it is.
    """

    of: str
    worker: Worker
    index: int | None = None
    need: int
    free: int

    @property
    def short(self) -> int:
        return self.need - self.free

    @property
    def where(self) -> str:
        name = f"worker {self.worker.name}"
        return name if self.index is None else f"GPU {self.index} of {name}"

    @property
    def total(self) -> int:
        """All that there is, whoever holds it."""
        if self.index is None:
            return self.worker.status.memory.total or 0
        device = self._device
        return 0 if device is None else device.memory.total or 0

    @property
    def reserved(self) -> int:
        kept = self.worker.system_reserved
        return min(kept.ram if self.index is None else kept.vram, self.total)

    @property
    def foreign(self) -> int:
        """In use by programs that are not ours."""
        device = self._device
        return 0 if device is None else device.memory.foreign or 0

    @property
    def overrun(self) -> int:
        """In use by our engines beyond what they claim."""
        device = self._device
        return 0 if device is None else device.memory.overrun or 0

    @property
    def claimed(self) -> int:
        return max(self.total - self.reserved - self.free - self.foreign - self.overrun, 0)

    @property
    def _device(self) -> Device | None:
        return None if self.index is None else self.worker.device(self.index)

    @property
    def sentence(self) -> str:
        held = f"{human_bytes(self.reserved)} reserved, {human_bytes(self.claimed)} claimed"
        if self.foreign:
            held += f", {human_bytes(self.foreign)} of it used by programs that are not GPUStack's"
        if self.overrun:
            held += f", {human_bytes(self.overrun)} of it taken by engines beyond their claims"
        return (
            f"needs {human_bytes(self.need)} of {self.of}, {self.where} has {human_bytes(self.free)} free of "
            f"{human_bytes(self.total)} ({held}): short by {human_bytes(self.short)}"
        )


@attrs.frozen(kw_only=True)
class Rejection:
    """Why one worker is out, or (``worker_id`` is ``None``) all are, or several together.

    ``shortage`` is set if only memory is short.
    """

    sentence: str
    worker_id: int | None = None
    worker: str = ""
    shortage: Shortage | None = None
    others: tuple[str, ...] = ()
    """The names of workers of which the same is true: they are of the same shape, and have as much free."""

    @property
    def shown(self) -> str:
        """The sentence, with how many workers it is true of."""
        if not self.others:
            return self.sentence
        return f"{self.sentence}; so {_of_others(self.others)}"


def _of_others(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"it is with {names[0]}"
    if len(names) <= _LISTED:
        return f"it is with {', '.join(names[:-1])} and {names[-1]}"
    return f"it is with {len(names)} more workers"


@attrs.frozen(kw_only=True)
class Unschedulable:
    """No place now. The ``reasons`` nearest to fitting come first; ``smallest_change`` would make it fit."""

    reasons: tuple[Rejection, ...]
    smallest_change: str | None = None

    @property
    def sentence(self) -> str:
        """One sentence for the state message."""
        alone = [reason for reason in self.reasons if reason.worker_id is not None]
        told = [reason.shown for reason in alone[:_LISTED]]
        more = sum(1 + len(reason.others) for reason in alone[_LISTED:])
        if more:
            told.append(f"and {more} more {'worker is' if more == 1 else 'workers are'} no better")
        told += [reason.sentence for reason in self.reasons if reason.worker_id is None]
        listed = "; ".join(told)
        listed = listed[:1].upper() + listed[1:]
        return f"{listed}. To make it fit: {self.smallest_change}" if self.smallest_change else listed
