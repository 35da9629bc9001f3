"""What runs of an engine teach about its memory: an upper bound for each term, with an error bar that narrows.

A sample compares what was estimated with what was measured. Other models of the same architecture are larger or
smaller, so what is learnt is a ratio. It never lowers weights, which are known exactly, and moves nothing below
half of the estimate or above four times it, whatever a worker reports.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.memory_use import (
    MAPPED,
    MOST_SAMPLES,
    MeasuredMemory,
    MemoryPlan,
    MemoryRecord,
    MemorySample,
    MemorySide,
    MemoryTerm,
    TermBytes,
    TermExperience,
    term_name,
)
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import MIB

LEAST_RATIO, MOST_RATIO = 0.5, 4.0
FLOOR = 16 * MIB
"""Added to both figures before they are compared, so that a term of a few bytes teaches nothing about large ones."""
_ROUNDED = 1.01
"""What an engine says of weights is rounded: so much more teaches nothing."""
_EXACT = frozenset(term_name(side, MemoryTerm.WEIGHTS) for side in MemorySide)


@attrs.frozen(kw_only=True)
class TermRatios:
    """How much runs took of what was estimated for one term: the least and the most of them, as shares."""

    least: float
    most: float
    runs: int

    @classmethod
    def of(cls, ratios: Collection[float]) -> TermRatios:
        return cls(least=min(ratios), most=max(ratios), runs=len(ratios))

    def bound(self, margin: float) -> float:
        """The share of an estimate to set aside where ``margin`` is its error bar: what is added to it without runs.

        It is the most that was seen and an error bar, which is halved by one run and goes on to narrow with each
        further one. As long as there are few that took less than was estimated, it is drawn towards the estimate: so
        one run alone takes off half of what it shows to be too much.
        """
        share, prior = self.most * (1 + margin / (1 + self.runs)), 1 + margin
        return share if share >= prior else share + (prior - share) / (1 + self.runs)

    def spread(self, margin: float) -> float:
        """How far the next run may be from the mean of these, as a share of it."""
        return max(margin / (1 + self.runs), (self.most - self.least) / (self.most + self.least))


@attrs.frozen(kw_only=True)
class Experience:
    """What is known from runs of one kind, by term; without any: nothing."""

    build: str = ""
    terms: Mapping[str, TermRatios] = attrs.field(factory=dict)

    def claim(self, name: str, estimated: int, margin: float = 0.0, *, among: int = 1) -> int:
        """Bytes to set aside for a term: what runs have taught, else the estimate and its margin.

        ``among``: on one of so many devices, where what was learnt is of their sum.
        """
        known = self.terms.get(name)
        if known is None:
            return estimated + math.ceil(margin * estimated)
        floor = FLOOR / among
        return max(math.ceil(known.bound(margin) * (estimated + floor) - floor), 0)

    def learnt(self, margins: Mapping[str, float]) -> Mapping[str, TermExperience]:
        """What the claims of terms with these margins rest on, of those that rest on runs."""
        return {
            name: TermExperience(runs=known.runs, spread=known.spread(margin), build=self.build)
            for name, margin in margins.items()
            if (known := self.terms.get(name)) is not None
        }


NOTHING = Experience()


def ratio_of(name: str, estimated: int, measured: int) -> float:
    """What a sample says of a term, within the bounds of what is believed."""
    least = 1.0 if name in _EXACT else LEAST_RATIO
    return min(max((measured + FLOOR) / (estimated + FLOOR), least), MOST_RATIO)


def experience_of(samples: Iterable[MemorySample], build: str = "") -> Experience:
    """What samples of one kind of runs teach, of each term that any of them has."""
    ratios: dict[str, list[float]] = {}
    for sample in recent(samples):
        for name in sample.estimated.keys() & sample.measured.keys():
            ratio = ratio_of(name, sample.estimated[name], sample.measured[name])
            if name not in _EXACT or ratio > _ROUNDED:
                ratios.setdefault(name, []).append(ratio)
    return Experience(build=build, terms={name: TermRatios.of(found) for name, found in ratios.items()})


def measured_terms(plan: MemoryPlan, measured: MeasuredMemory) -> TermBytes:
    """What a run took of each term of its plan, as far as that can be known.

    What the log tells is that. Of what processes hold in all, what the log has told is taken away: the rest is what the
    process takes by itself. That is all of it on devices, where memory is taken when it is asked for, and where the log
    tells of all other terms. Else it shows only that the terms on which the log is silent are larger than estimated:
    of host memory a process holds only what it has touched.
    """
    found = {name: size for name, size in measured.terms.items() if name in plan.estimated}
    for side, total in ((MemorySide.HOST, measured.host), (MemorySide.DEVICES, measured.devices_peak)):
        if total is not None:
            found |= _rest(side, total, plan, measured.terms)
    return found


def _rest(side: MemorySide, total: int, plan: MemoryPlan, told: TermBytes) -> TermBytes:
    of_side = [term_name(side, term) for term in MemoryTerm if term is not MemoryTerm.KEPT]
    weights, process = term_name(side, MemoryTerm.WEIGHTS), term_name(side, MemoryTerm.PROCESS)
    silent = [name for name in of_side if name in plan.estimated and name not in told and name != weights]
    known = sum(told.get(name, 0) for name in of_side)
    mapped = told.get(MAPPED, 0)
    if weights not in told:
        known += plan.estimated.get(weights, 0)
        mapped = plan.estimated.get(weights, 0) if plan.maps_weights else 0
    rest = max(total - known + (mapped if side is MemorySide.HOST else 0), 0)
    if silent == [process] and side is MemorySide.DEVICES:
        return {process: rest}
    expected = sum(plan.estimated[name] for name in silent)
    if rest <= expected or not expected:
        return {}
    return {name: plan.estimated[name] * rest // expected for name in silent}


def recent(samples: Iterable[MemorySample]) -> tuple[MemorySample, ...]:
    """The last of each instance, and of these the last ones; the oldest first."""
    last: dict[int, MemorySample] = {}
    for sample in samples:
        known = last.get(sample.instance_id)
        if known is None or _age(known) < _age(sample):
            last[sample.instance_id] = sample
    return tuple(sorted(last.values(), key=_age)[-MOST_SAMPLES:])


def _age(sample: MemorySample) -> tuple[Any, ...]:
    return sample.at, sample.instance_id, sorted(sample.measured.items()), sorted(sample.estimated.items())


@attrs.frozen(eq=False)
class KnownRuns:
    """All that is known of runs of one engine with models of one architecture. Equal if it is the same records."""

    records: tuple[MemoryRecord, ...] = ()
    _found: dict[tuple[str, str | None], Mapping[str, Experience]] = attrs.field(factory=dict, repr=False)

    @classmethod
    def of(cls, snapshot: Snapshot, engine: str, facts: ModelFacts | None) -> KnownRuns:
        """Those of the records in a snapshot."""
        every = snapshot.all(MemoryRecord).values()
        if not every or facts is None:
            return NO_RUNS
        asked = (engine, facts.architecture)
        records = tuple(one for one in every if (one.engine, one.architecture) == asked)
        return cls(records) if records else NO_RUNS

    def on(self, build: str, device: str | None) -> Mapping[str, Experience]:
        """What is known of one build on one kind of device and on the CPU, by settings."""
        known = self._found.get((build, device))
        if known is None:
            known = self._found[build, device] = {
                record.settings: experience_of(record.samples, build)
                for record in self.records
                if record.build == build and record.device in ("", device)
            }
        return known

    def __bool__(self) -> bool:
        return bool(self.records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KnownRuns) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[tuple[int, int], ...]:
        return tuple((record.id, record.version) for record in self.records)


NO_RUNS = KnownRuns()
