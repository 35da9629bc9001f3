"""What a source of models is, and which one there is for a kind."""

from __future__ import annotations

from typing import Protocol

import attrs

from gpustack.artifacts.listing import Listing
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import Invalid
from gpustack.plugins import siblings

DEFAULT_PROJECTOR = "*mmproj*.gguf"
DEFAULT_LIBRARY = "https://registry.ollama.ai"


@attrs.frozen(kw_only=True)
class SourceSettings:
    """What listing a source may need. ``deadline`` is in seconds and covers the whole listing.

    ``endpoint`` is the model hub's address, ``library`` that of the Ollama library. ``projector`` is the pattern of the
    projector to take along with a GGUF model, ``None`` for none.
    """

    endpoint: str | None = None
    library: str = DEFAULT_LIBRARY
    token: str | None = attrs.field(default=None, repr=False)
    deadline: float = 60.0
    projector: str | None = DEFAULT_PROJECTOR
    direct: tuple[str, ...] = ()
    """Hosts that are not reached through a proxy."""


class Source(Protocol):
    """One kind of place that models come from; a module of ``sources/`` has one as ``SOURCE``."""

    @property
    def kind(self) -> SourceKind: ...

    @property
    def is_local(self) -> bool:
        """The files are on this machine already: the listing's folder is absolute, and nothing is fetched."""
        ...

    async def resolve(self, source: ModelSource, settings: SourceSettings) -> Listing:
        """Which files the source has, as of now.

        Raises a GpustackError with a sentence that says what to change. Cancellable at any time.
        """
        ...


def source_for(kind: SourceKind) -> Source:
    """The source of a kind; raises Invalid where this version has none."""
    known: dict[SourceKind, Source] = {
        module.SOURCE.kind: module.SOURCE for module in siblings("gpustack.artifacts.sources")
    }
    if kind not in known:
        names = ", ".join(sorted(one.value for one in known))
        raise Invalid(f"Models from {kind.value} cannot be fetched by this version; there are {names}")
    return known[kind]
