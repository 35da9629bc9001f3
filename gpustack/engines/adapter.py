"""LoRA adapters: small files that an engine lays over a model, each answering under a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import attrs


@attrs.frozen(kw_only=True)
class Adapter:
    """An adapter whose files are on this worker. Clients ask for it as ``name`` (``<model>:<adapter>``)."""

    name: str
    path: str
    """The folder with ``adapter_config.json``."""
    rank: int | None = None
    """As its configuration says; ``None`` if it does not."""


@attrs.frozen(kw_only=True)
class AdapterCall:
    """A POST of JSON to a running engine; it worked if the status is 200."""

    path: str
    body: Mapping[str, str]


@runtime_checkable
class LoadsAdapters(Protocol):
    """An engine that takes adapters while it runs."""

    def loading(self, adapter: Adapter) -> AdapterCall:
        """Has a running engine load an adapter; it answers to the adapter's name from then on."""

    def unloading(self, name: str) -> AdapterCall:
        """Has a running engine forget the adapter of that name."""
