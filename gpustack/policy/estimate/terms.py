"""A need term by term: what is set aside for it, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from gpustack.domain.memory_use import MemoryPlan, MemorySide, MemoryTerm, term_name

from .learnt import NOTHING, Experience
from .need import DeviceNeed

Terms = Mapping[MemoryTerm, int]
"""Bytes of one place."""


@attrs.frozen(kw_only=True)
class TermNeed:
    """The estimate of one way to run: bytes by term on the host and on each device, and what runs like it have shown.

    ``margins``: the error bars of the terms whose formulas have one, as shares.
    """

    host: Terms
    devices: Sequence[Terms] = ()
    margins: Mapping[MemoryTerm, float] = attrs.field(factory=dict)
    known: Experience = NOTHING

    @property
    def claimed(self) -> DeviceNeed:
        """What to set aside."""
        return DeviceNeed(
            ram=sum(self._claims(MemorySide.HOST, self.host).values()),
            vram=tuple(sum(self._claims(MemorySide.DEVICES, one).values()) for one in self.devices),
        )

    def plan(
        self, engine: str, architecture: str, settings: str, *, maps_weights: bool = False
    ) -> MemoryPlan:
        """The same in words, of all devices together."""
        estimated = {term_name(MemorySide.HOST, term): size for term, size in self.host.items()}
        claims = dict(self._claims(MemorySide.HOST, self.host))
        for one in self.devices:
            for term, size in one.items():
                name = term_name(MemorySide.DEVICES, term)
                estimated[name] = estimated.get(name, 0) + size
            for name, size in self._claims(MemorySide.DEVICES, one).items():
                claims[name] = claims.get(name, 0) + size
        return MemoryPlan(
            engine=engine,
            architecture=architecture,
            settings=settings,
            estimated={name: size for name, size in estimated.items() if size},
            claimed={name: size for name, size in claims.items() if size},
            learnt=self.known.learnt(self._margins(estimated)),
            maps_weights=maps_weights,
        )

    def _claims(self, side: MemorySide, terms: Terms) -> Mapping[str, int]:
        among = len(self.devices) if side is MemorySide.DEVICES else 1
        claims: dict[str, int] = {}
        for term, size in terms.items():
            name = term_name(side, term)
            claims[name] = self.known.claim(name, size, self.margins.get(term, 0.0), among=among)
        return claims

    def _margins(self, names: Mapping[str, int]) -> Mapping[str, float]:
        if not self.known.terms:
            return {}
        every = ((term_name(side, term), term) for side in MemorySide for term in MemoryTerm)
        return {name: self.margins.get(term, 0.0) for name, term in every if name in names}
