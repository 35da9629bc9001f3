"""The LoRA adapters of a running engine: brought to those that its deployment names by now, and told to the server."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import NoReturn, Protocol

import attrs
import trio

from gpustack.domain.artifact import LoraAdapter, ModelSource
from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.engines.adapter import AdapterSelection, loader_of
from gpustack.engines.registry import engine_at
from gpustack.errors import GpustackError, Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import AsyncValue, first_of
from gpustack.worker.adapter_files import fetch_adapter
from gpustack.worker.adapter_port import AdapterPort, AdapterRefused
from gpustack.worker.assignment_watcher import AssignmentSnapshot
from gpustack.worker.context import WorkerContext

log = logging.getLogger(__name__)

_LOOK_EVERY = 60.0
"""Seconds after which an engine with adapters is asked again which it has, and the record is compared."""
_FIRST_PAUSE = 15.0
_LONGEST_PAUSE = 600.0
"""Seconds between two tries to load an adapter; it begins with the first pause, which doubles."""
_UNROUTED_WITHIN = 2.0
"""Seconds in which all gateways learn that an adapter is gone, and send no more requests for it."""


class TellAdapters(Protocol):
    """Says what is loaded: names in the deployment's order, why others are not, whether the engine is too small."""

    def __call__(self, names: tuple[str, ...], remark: str, outgrown: bool) -> None: ...


@attrs.frozen
class _Told:
    names: tuple[str, ...]
    remark: str = ""
    outgrown: bool = False


@attrs.define(eq=False, repr=False)
class RunningAdapters:
    """Those of the engine at a port. What it has is asked of the engine itself, so that it does not matter who had it
    load them: its start, this daemon, or a former one."""

    _instance: ModelInstance
    _port: int
    _assignments: AsyncValue[AssignmentSnapshot]
    _context: WorkerContext
    _tell: TellAdapters
    _told: _Told | None = None
    _list: tuple[LoraAdapter, ...] | None = None
    """What the deployment named when the engine was last brought to it."""
    _sources: dict[str, ModelSource] = attrs.field(factory=dict)
    """Where the files came from that the engine has of an adapter, as far as that was seen; by the adapter's name."""
    _failed: dict[str, str] = attrs.field(factory=dict)
    """Why an adapter is not loaded, by its name."""
    _streak: int = 0
    """How often in a row an adapter of this list was not loaded."""
    _look_at: float = -math.inf
    """When the engine is looked at again, though nothing has changed; by Trio's clock."""
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("adapters"))

    async def names(self) -> tuple[str, ...] | None:
        """The adapters that the engine has, in the deployment's order; ``None`` where it cannot be asked."""
        model = self._model()
        port = None if model is None else self._port_for(model)
        if model is None or port is None:
            return None
        try:
            found = await port.loaded()
        except Unavailable:
            return None
        self._told = _Told(_in_order(model, found))
        return self._told.names

    async def keep(self) -> NoReturn:
        """Follow the deployment for ever, whatever fails."""
        row = self._instance.id
        while True:
            revision = self._assignments.revision
            if not self._faults.holds(row):
                with self._faults.row(row):
                    await self._follow()
            until = self._faults.due_in() if self._faults.holds(row) else self._look_at - trio.current_time()
            with trio.move_on_after(max(until, 0.0)):
                await self._assignments.changed(revision)

    async def _follow(self) -> None:
        model = self._model()
        port = None if model is None else self._port_for(model)
        if model is None or port is None:
            self._look_at = math.inf  # until something changes
            return
        if model.lora_adapters != self._list:
            self._streak = 0
        elif trio.current_time() < self._look_at:
            return
        self._list = model.lora_adapters
        self._look_at = trio.current_time() + _LOOK_EVERY
        # A list that changes meanwhile is not waited for: what is being fetched may not be wanted any more.
        await first_of(partial(self._bring, port, model), partial(self._until_other, model))

    async def _bring(self, port: AdapterPort, model: Model) -> None:
        """Bring the engine to the deployment's list, and tell what came of it."""
        try:
            loaded = await port.loaded()
        except Unavailable as error:
            log.info(
                "Cannot ask an engine for its adapters: instance=%s reason=%s", self._instance.name, error
            )
            return
        self._failed, outgrown = {}, False
        is_gang = self._instance.placement is not None and bool(self._instance.placement.subordinates)
        if not is_gang:  # a gang begins anew with another list
            await self._unload_gone(port, model, loaded)
            for adapter in model.lora_adapters:
                try:
                    await self._load(port, model, adapter, loaded)
                except (GpustackError, AdapterRefused) as error:
                    outgrown = outgrown or (isinstance(error, AdapterRefused) and error.outgrown)
                    self._note_failure(adapter, str(error))
        self._say(model, loaded, outgrown)
        if self._failed:
            pause = min(_FIRST_PAUSE * 2.0**self._streak, _LONGEST_PAUSE)
            self._streak += 1
            self._look_at = trio.current_time() + pause
        elif not loaded:
            self._look_at = math.inf

    async def _unload_gone(self, port: AdapterPort, model: Model, loaded: dict[str, str]) -> None:
        wanted = {_full_name(model, adapter) for adapter in model.lora_adapters}
        gone = [name for name in loaded if name not in wanted]
        if gone:
            await trio.sleep(_UNROUTED_WITHIN)
        for name in gone:
            try:
                await self._unload(port, name, loaded)
            except (GpustackError, AdapterRefused) as error:
                log.warning(
                    "An adapter cannot be unloaded: instance=%s adapter=%s reason=%s",
                    *(self._instance.name, name, error),
                )

    async def _load(
        self, port: AdapterPort, model: Model, adapter: LoraAdapter, loaded: dict[str, str]
    ) -> None:
        """Load one that the engine does not have, or has from other files."""
        if _full_name(model, adapter) in loaded and self._sources.get(adapter.name) == adapter.source:
            return
        files = await fetch_adapter(AdapterSelection.BY_NAME, model, adapter, self._context.files)
        if loaded.get(files.name) == files.path:
            self._sources[adapter.name] = adapter.source
            return
        if files.name in loaded:
            left = {name: path for name, path in loaded.items() if name != files.name}
            self._say(model, left)  # before it is gone: nobody is to be sent to it
            await trio.sleep(_UNROUTED_WITHIN)
            await self._unload(port, files.name, loaded)
        await port.load(files)
        loaded[files.name] = files.path
        self._sources[adapter.name] = adapter.source
        log.info(
            "Loaded an adapter: instance=%s adapter=%s path=%s", self._instance.name, files.name, files.path
        )
        self._say(model, loaded)

    async def _unload(self, port: AdapterPort, name: str, loaded: dict[str, str]) -> None:
        await port.unload(name)
        loaded.pop(name, None)
        log.info("Unloaded an adapter: instance=%s adapter=%s", self._instance.name, name)

    def _note_failure(self, adapter: LoraAdapter, why: str) -> None:
        self._failed[adapter.name] = why
        if self._streak == 0:
            log.warning(
                "An adapter cannot be loaded: instance=%s adapter=%s reason=%s",
                *(self._instance.name, adapter.name, why),
            )

    def _say(self, model: Model, loaded: dict[str, str], outgrown: bool = False) -> None:
        """Tell it, unless it was told and the record shows it."""
        remark = "; ".join(
            f"The adapter {name} cannot be loaded: {why.rstrip('.')}" for name, why in self._failed.items()
        )
        if outgrown:
            remark += ". The replicas are replaced by ones that have room for it"
        said = _Told(_in_order(model, loaded), remark, outgrown)
        if said != self._told or not self._is_on_record(said):
            self._told = said
            self._tell(said.names, said.remark, said.outgrown)

    def _is_on_record(self, said: _Told) -> bool:
        """Whether the server has it; what is on its way is taken to arrive."""
        record = self._assignments.value.state.instances.get(self._instance.id)
        pending = self._context.reports.has_pending(self._instance.id)
        return record is None or pending or record.lora_adapters == said.names

    def _model(self) -> Model | None:
        """The deployment as it is now; ``None`` where this replica is of a former generation, or it is gone."""
        model = self._assignments.value.state.models.get(self._instance.model_id)
        return model if model is not None and model.generation == self._instance.generation else None

    def _port_for(self, model: Model) -> AdapterPort | None:
        """``None`` for an engine that loads no adapters while it runs."""
        record = self._assignments.value.state.instances.get(self._instance.id, self._instance)
        engine = loader_of(engine_at(model, record.resolved_path))
        return None if engine is None else AdapterPort(self._context.prober, self._port, engine, model)

    async def _until_other(self, model: Model) -> None:
        """Return when the deployment names other adapters, or begins a new generation."""
        revision = -1
        while True:
            revision, _ = await self._assignments.changed(revision)
            now = self._model()
            if now is None or now.lora_adapters != model.lora_adapters:
                return

    def __repr__(self) -> str:
        return f"<RunningAdapters of {self._instance.name}: {self._told}>"


def _full_name(model: Model, adapter: LoraAdapter) -> str:
    return f"{model.name}:{adapter.name}"


def _in_order(model: Model, loaded: dict[str, str]) -> tuple[str, ...]:
    return tuple(one.name for one in model.lora_adapters if _full_name(model, one) in loaded)
