"""What can go wrong with model files, beyond what the network and the source already name."""

from __future__ import annotations

from gpustack.errors import Unavailable


class NoSpace(Unavailable):
    """The disk is too small for the files, or became so."""


class CorruptFile(Unavailable):
    """What was fetched, twice, is not what the source announced."""
