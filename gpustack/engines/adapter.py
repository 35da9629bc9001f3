"""LoRA adapters: small files that an engine lays over a model, each answering under a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from gpustack.domain.model import Model

    from .engine import Engine


@attrs.frozen(kw_only=True)
class Adapter:
    """An adapter whose files are on this worker. Clients ask for it as ``name`` (``<model>:<adapter>``)."""

    name: str
    path: str
    """The folder with ``adapter_config.json``, or the GGUF file."""
    rank: int | None = None
    """As its configuration says; ``None`` if it does not."""


@attrs.frozen(kw_only=True)
class AdapterCall:
    """A POST of JSON to a running engine; it worked if the status is 200."""

    path: str
    body: Mapping[str, str]


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


@runtime_checkable
class LoadsAdapters(Protocol):
    """An engine that takes adapters while it runs."""

    @property
    def adapter_list(self) -> str:
        """The path of a GET that tells which it has."""

    def loads_adapters(self, model: Model) -> bool:
        """Whether a process that is started for this deployment takes adapters while it runs."""

    def loading(self, adapter: Adapter) -> AdapterCall:
        """Has a running engine load an adapter; it answers to the adapter's name from then on."""

    def unloading(self, name: str) -> AdapterCall:
        """Has a running engine forget the adapter of that name; requests under way go on to their end."""

    def loaded(self, answer: bytes) -> Mapping[str, str]:
        """The adapters that the answer to ``adapter_list`` names, each with its path. Raises ``ValueError``."""

    def outgrown(self, model: Model, refusal: str) -> bool:
        """Whether an engine that refused an adapter in these words would take it if it were started anew."""


def loader_of(engine: Engine | None) -> LoadsAdapters | None:
    """An engine that takes adapters while it runs; ``None`` for others."""
    return engine if isinstance(engine, LoadsAdapters) else None


def loads_while_running(engine: Engine | None, model: Model) -> bool:
    """Whether what runs of a deployment follows a change of its adapters without a restart."""
    loader = loader_of(engine)
    return loader is not None and loader.loads_adapters(model)
