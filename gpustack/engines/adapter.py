"""LoRA adapters: small files that an engine lays over a model, each answering under a name of its own."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from .engine import Engine


@attrs.frozen(kw_only=True)
class Adapter:
    """An adapter whose files are on this worker. Clients ask for it as ``name`` (``<model>:<adapter>``)."""

    name: str
    path: str
    """The folder with ``adapter_config.json``, or the GGUF file."""
    rank: int | None = None
    """As its configuration says; ``None`` if it does not."""


class AdapterSelection(StrEnum):
    """How a request says which adapter answers it."""

    BY_NAME = "by_name"
    """By the name of the model, which is ``Adapter.name``."""
    BY_SCALE = "by_scale"
    """By a member ``lora`` that gives the number of the adapter, in the order of ``LaunchContext.adapters``. Its
    adapters are GGUF files, and rest at scale 0."""


@runtime_checkable
class ServesAdapters(Protocol):
    """An engine that takes adapters at its start."""

    @property
    def adapter_selection(self) -> AdapterSelection:
        """How its requests choose among them."""


def selection_of(engine: Engine) -> AdapterSelection | None:
    """How an engine's requests choose an adapter; ``None`` for one that takes none."""
    return engine.adapter_selection if isinstance(engine, ServesAdapters) else None
