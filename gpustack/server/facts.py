"""What is known of each model source: its header, read once, by whoever can reach the file."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import trio

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker, WorkerState
from gpustack.errors import GpustackError

log = logging.getLogger(__name__)

ReadHere = Callable[[ModelSource], Awaitable[ModelFacts]]
ReadThere = Callable[[Worker, ModelSource], Awaitable[ModelFacts]]

_READ_WITHIN = 60.0
_ASK_AGAIN_AFTER = 30.0


@attrs.frozen(kw_only=True)
class Finding:
    """The outcome of reading a source: facts, or the sentence why there are none, and since when."""

    facts: ModelFacts | None
    fault: str | None
    at: float


@attrs.define(eq=False, repr=False)
class FactsSource:
    """Owns the findings. Reading happens in its own tasks; asking never waits.

    A local path is read here when it exists here, else by a worker that may run the model. A failed reading is
    tried again after half a minute, when somebody asks.
    """

    _here: ReadHere
    _there: ReadThere
    _snapshot: Callable[[], Snapshot]
    _findings: dict[str, Finding] = attrs.field(factory=dict)
    _reading: set[str] = attrs.field(factory=set)
    _nursery: trio.Nursery | None = None
    on_news: Callable[[], None] = attrs.field(default=lambda: None)
    name: str = "facts"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._reading.clear()

    def known(self, source: ModelSource) -> Finding | None:
        """What is known now, or ``None``: not read yet."""
        return self._findings.get(source.index)

    def ask(self, model: Model) -> Finding | None:
        """``known``, and begin to read if nothing is known or a failure has aged; ``on_news`` tells of the end."""
        key = model.source.index
        finding = self._findings.get(key)
        aged = finding is not None and finding.fault is not None and self._age(finding) > _ASK_AGAIN_AFTER
        if (finding is None or aged) and key not in self._reading and self._nursery is not None:
            self._reading.add(key)
            self._nursery.start_soon(self._read, model, name=f"facts:{model.name}")
        return None if aged else finding

    def _age(self, finding: Finding) -> float:
        return trio.current_time() - finding.at

    async def _read(self, model: Model) -> None:
        source = model.source
        facts, fault = None, None
        try:
            with trio.move_on_after(_READ_WITHIN) as scope:
                facts = await self._read_where_it_is(model)
            if scope.cancelled_caught:
                fault = f"Reading the header of {source.readable} took longer than {_READ_WITHIN:.0f} s"
        except GpustackError as error:
            fault = str(error)
        finally:
            self._reading.discard(source.index)
        if fault is not None:
            log.warning("Could not read a model header: source=%s reason=%s", source.readable, fault)
        self._findings[source.index] = Finding(facts=facts, fault=fault, at=trio.current_time())
        self.on_news()

    async def _read_where_it_is(self, model: Model) -> ModelFacts:
        source = model.source
        if (
            source.kind is not SourceKind.LOCAL_PATH
            or await trio.Path(Path(source.local_path or "")).exists()
        ):
            return await self._here(source)
        failure: GpustackError | None = None
        for worker in sorted(self._snapshot().workers.values(), key=lambda w: w.id):
            if worker.condition.state is not WorkerState.READY:
                continue
            try:
                return await self._there(worker, source)
            except GpustackError as error:
                failure = error
        if failure is not None:
            raise failure
        return await self._here(source)

    def __repr__(self) -> str:
        return f"<FactsSource: {len(self._findings)} known, {len(self._reading)} being read>"
