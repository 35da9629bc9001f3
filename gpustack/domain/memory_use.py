"""The memory of an engine term by term: as it was estimated, as it was claimed, and as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import attrs

from .record import Record, stored


class MemorySide(StrEnum):
    """Where bytes are: in host memory, or on devices, those of all devices together."""

    HOST = "host"
    DEVICES = "devices"


class MemoryTerm(StrEnum):
    """For what an engine takes memory."""

    WEIGHTS = "weights"
    CACHE = "cache"
    """Keys and values, and states of recurrent layers."""
    COMPUTE = "compute"
    """The largest step, and its results."""
    GRAPHS = "graphs"
    PROCESS = "process"
    """What the process takes by itself: program, driver, libraries."""
    KEPT = "kept"
    """What comes with requests and stays: prompts, and copies of states."""


TermBytes = Mapping[str, int]
"""Bytes by the name of a term, as ``term_name`` writes it. What is not known is absent."""


MAPPED = "host mapped"
"""Beside the terms: of the weights on the host, those that are pages of files."""


def term_name(side: MemorySide, term: MemoryTerm) -> str:
    """``devices compute``: the name of a term in documents, and for people."""
    return _NAMES[side, term]


_ROUNDED = 1 << 10
"""Bytes that the terms may differ from their sum, each of them being rounded up."""
_NAMES = {(side, term): f"{side} {term}" for side in MemorySide for term in MemoryTerm}


@attrs.frozen(kw_only=True)
class TermExperience:
    """What a claim knows of a term from former runs."""

    runs: int
    spread: float
    """How far the true figure may be from the mean of the runs, as a share of it: 0.03 is 3 %."""
    build: str = ""
    """The version of the engine."""


@attrs.frozen(kw_only=True)
class MemoryPlan:
    """How a claim came about. ``engine``, ``architecture`` and ``settings`` say with what a measurement may be
    compared."""

    engine: str
    architecture: str
    settings: str
    estimated: TermBytes
    """By formula."""
    claimed: TermBytes
    """Set aside: with what runs have taught, or with a margin."""
    learnt: Mapping[str, TermExperience] = attrs.field(factory=dict)
    """Of the terms of which there is experience."""
    maps_weights: bool = False
    """Whether weights on the host are pages of files, unless the engine tells otherwise."""

    def of_claim(self, vram: int) -> MemoryPlan:
        """The same for devices of which ``vram`` bytes are claimed: what goes beyond the terms is for computing, since
        engines take larger steps on larger devices."""
        name = term_name(MemorySide.DEVICES, MemoryTerm.COMPUTE)
        known = sum(size for term, size in self.claimed.items() if term.startswith(MemorySide.DEVICES))
        more = vram - known
        if more < _ROUNDED:
            return self
        return attrs.evolve(
            self,
            estimated={**self.estimated, name: self.estimated.get(name, 0) + more},
            claimed={**self.claimed, name: self.claimed.get(name, 0) + more},
        )


@attrs.frozen(kw_only=True)
class MeasuredMemory:
    """What an engine was found to take, by its worker."""

    build: str = ""
    """The version of the engine that ran; empty where it is not known."""
    terms: TermBytes = attrs.field(factory=dict)
    host: int | None = None
    """Host memory of all its processes that is not files, when it was ready."""
    host_peak: int | None = None
    """The most that was seen since."""
    devices: int | None = None
    """Memory of devices, of all together, when it was ready; ``None`` also where the driver does not tell."""
    devices_peak: int | None = None


@attrs.frozen(kw_only=True)
class MemorySample:
    """One run: what was estimated for it, and what it took."""

    at: datetime
    instance_id: int
    worker_id: int
    estimated: TermBytes
    measured: TermBytes


MOST_SAMPLES = 8
"""Of one kind of runs; the oldest are forgotten."""


@stored("memory_records", unique=(("key",),))
@attrs.frozen(kw_only=True)
class MemoryRecord(Record):
    """What runs of one kind have shown: of one engine and build, of models of one architecture, on one kind of device,
    with settings that are the same as far as they decide about memory."""

    key: str
    """Names all that follows but the samples: a hash of it."""
    engine: str
    build: str
    """The version of the engine; empty where it is not known."""
    architecture: str
    device: str
    """The name of the devices; empty on a CPU."""
    settings: str
    samples: tuple[MemorySample, ...] = ()
    """The last ones, at most one of each instance; the oldest first."""
