"""Bytes by place, and what is set aside for them."""

from __future__ import annotations

import math

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.unit import MIB

MARGIN = 0.05
"""Share of caches and compute added to a claim: the formulas' error, and what drivers round up."""
HOST_FOOTPRINT = 150 * MIB
"""Memory of a process before it has a model, where the size of its vocabulary is not known."""
DEVICE_FOOTPRINT = 500 * MIB
"""Memory a process takes on a device before it has a model: the driver's context and its libraries."""


@attrs.frozen(kw_only=True)
class MemoryNeed:
    """Bytes needed in one place: on the host or on one device."""

    weights: int = 0
    kv: int = 0
    """Caches: keys and values, and states of recurrent layers."""
    compute: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute

    def claim(self, footprint: int) -> int:
        """What to set aside: with the margin, and what the process itself takes there."""
        return self.total + math.ceil(MARGIN * (self.kv + self.compute)) + footprint


@attrs.frozen(kw_only=True)
class MemoryEstimate:
    """Bytes on the host and on each device, in the order of the shares."""

    host: MemoryNeed
    devices: tuple[MemoryNeed, ...] = ()


_PROCESS = 64 * MIB
_DRIVER = 100 * MIB
"""What a driver for devices takes of the host beside."""
_WORD = 700
"""Bytes of one entry of the vocabulary with its merges, as llama.cpp keeps them: 64 MiB for 152 thousand entries, 164
for 262 thousand with twice as many merges (measured)."""


def host_footprint(facts: ModelFacts, *, devices: bool = False) -> int:
    """Bytes of the process itself: its program, its threads, the vocabulary as it keeps that, and what a driver takes
    where there are devices."""
    own = HOST_FOOTPRINT if facts.vocabulary is None else _PROCESS + _WORD * facts.vocabulary
    return own + (_DRIVER if devices else 0)
