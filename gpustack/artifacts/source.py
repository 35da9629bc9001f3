"""The interface of a source of models, and the lookup of the source for a kind."""

from __future__ import annotations

from typing import Protocol

import attrs

from gpustack.artifacts.listing import Listing
from gpustack.artifacts.repository import NO_EXTRAS, FileExtras
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import Invalid
from gpustack.plugins import siblings

DEFAULT_PROJECTOR = "*mmproj*.gguf"
DEFAULT_LIBRARY = "https://registry.ollama.ai"


@attrs.frozen(kw_only=True)
class ModelScopeAccess:
    """Where ModelScope is (``None``: the public one), and the token for it, which goes to no other hub."""

    endpoint: str | None = None
    token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class SourceSettings:
    """Settings of a listing. ``deadline`` is in seconds for the whole listing.

    ``endpoint`` is the URL of the Hugging Face Hub, for which ``token`` is; ``library`` that of the Ollama library.
    ``projector`` is the pattern of the projector to list with a GGUF model, ``None`` for none. ``extras`` is what is
    wanted of a repository beyond the usual.
    """

    endpoint: str | None = None
    library: str = DEFAULT_LIBRARY
    token: str | None = attrs.field(default=None, repr=False)
    model_scope: ModelScopeAccess = ModelScopeAccess()
    deadline: float = 60.0
    projector: str | None = DEFAULT_PROJECTOR
    extras: FileExtras = NO_EXTRAS


class Source(Protocol):
    """One kind of place that models come from. Each module of ``sources/`` holds one as ``SOURCE``."""

    @property
    def kind(self) -> SourceKind: ...

    @property
    def is_local(self) -> bool:
        """Whether the files are on this machine: then the folder of a listing is absolute, and nothing is fetched."""
        ...

    async def resolve(self, source: ModelSource, settings: SourceSettings) -> Listing:
        """List the files of ``source`` as they are now.

        Raises a GpustackError whose sentence says what to change. Cancellable at any time.
        """
        ...


def source_for(kind: SourceKind) -> Source:
    """The source for a kind; raises Invalid if this version has none."""
    known: dict[SourceKind, Source] = {
        module.SOURCE.kind: module.SOURCE for module in siblings("gpustack.artifacts.sources")
    }
    if kind not in known:
        names = ", ".join(sorted(one.value for one in known))
        raise Invalid(f"Models from {kind.value} cannot be fetched by this version; there are {names}")
    return known[kind]
