"""A cluster as tests talk to it: workers that are there at once, models, instances moved by whom a test says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import trio
import trio.testing

from gpustack.domain.artifact import ModelFile, ModelSource, SourceKind
from gpustack.domain.device import Device
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.report import StatusReport
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker
from gpustack.errors import GpustackError
from gpustack.nursery.limiter import limiters
from gpustack.server.facts import FactsCache, FactsSettings
from gpustack.server.live_status import LiveStatus
from gpustack.server.report import report_status
from gpustack.store import Store
from gpustack.store.transaction import Tx
from tests.policy import worlds
from tests.policy.shapes import facts_of

PATIENCE = 30.0
"""Seconds a test waits for what must come: a bound, never a measure."""


@attrs.define
class Clock:
    """A wall clock and a monotonic one that a test turns together."""

    now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    since_boot: float = 1000.0

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.since_boot

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.since_boot += seconds


def hub(name: str) -> ModelSource:
    """A GGUF file somewhere else, whose header readers may know or not."""
    return ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id=f"me/{name}", huggingface_filename=f"{name}.gguf"
    )


@attrs.define
class Readers:
    """Stands for those who read headers: knows what a test told it, counts, and can be made to wait."""

    known: dict[str, ModelFacts | GpustackError] = attrs.field(factory=dict)
    """By ``readable`` of the source; else the facts of a small model."""
    there: dict[tuple[str, str], ModelFacts | GpustackError | None] = attrs.field(factory=dict)
    """By worker and path; ``None`` for one that never answers."""
    asked: list[str] = attrs.field(factory=list)
    at_once: int = 0
    most_at_once: int = 0
    gate: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.gate.set()

    async def read_here(self, source: ModelSource) -> ModelFacts:
        self.asked.append(source.readable)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        return _given(self.known.get(source.readable, facts_of("qwen3-0.6b")))

    async def read_there(self, worker: Worker, source: ModelSource) -> ModelFacts:
        self.asked.append(f"{worker.name}:{source.readable}")
        answer = self.there[worker.name, source.readable]
        if answer is None:
            await trio.sleep_forever()
        return _given(answer)


def _given(answer: ModelFacts | GpustackError | None) -> ModelFacts:
    if isinstance(answer, GpustackError):
        raise type(answer)(str(answer))
    assert answer is not None
    return answer


@attrs.define
class Cluster:
    store: Store
    clock: Clock
    readers: Readers = attrs.field(factory=Readers)
    made: int = 0
    live: LiveStatus = attrs.field(
        default=attrs.Factory(lambda self: LiveStatus(self.clock.monotonic), takes_self=True)
    )

    @property
    def snapshot(self) -> Snapshot:
        return self.store.snapshot

    def facts(self, **settings: Any) -> FactsCache:
        return FactsCache(
            self.readers.read_here,
            self.readers.read_there,
            lambda: self.store.snapshot,
            FactsSettings(**settings),
            self.clock.monotonic,
        )

    async def worker(self, name: str, *gpus: Device, **more: Any) -> Worker:
        """A ready worker."""
        made = worlds.worker(gpus=gpus, **more)
        made = attrs.evolve(made, id=0, name=name, worker_uuid=f"uuid-{name}", credential_hash=f"hash-{name}")
        return await self.store.write(lambda tx: tx.insert(made))

    async def report_status(self, worker_id: int, report: StatusReport) -> None:
        """A worker tells its status."""
        await report_status(self.store, self.live, worker_id, report, self.clock())

    async def model(self, name: str, **more: Any) -> Model:
        made = worlds.model(**{"id": 0, "name": name, "source": hub(name), **more})
        return await self.store.write(lambda tx: tx.insert(made))

    async def instance(
        self,
        of: Model,
        *,
        on: Worker | None = None,
        state: InstanceState | None = None,
        claim: Claim | None = None,
        name: str | None = None,
    ) -> ModelInstance:
        """A replica: waiting, or placed and (unless ``state`` says otherwise) running with a port."""
        held = claim or Claim(ram=GIB)

        def work(tx: Tx) -> ModelInstance:
            self.made += 1
            made = tx.insert(
                ModelInstance(
                    name=name or f"{of.name}-{self.made}",
                    model_id=of.id,
                    model_name=of.name,
                    source=of.source,
                    generation=of.generation,
                )
            )
            if on is None:
                return made
            place = Placement(worker_id=on.id, gpu_indexes=tuple(held.vram), claim=held)
            made = tx.move(made, InstanceState.SCHEDULED, by=Party.SCHEDULER, placement=place)
            return _brought(tx, made, state or InstanceState.RUNNING)

        return await self.store.write(work)

    async def move(self, instance: ModelInstance, state: InstanceState, **fields: Any) -> ModelInstance:
        """As its worker would, whatever lies between."""

        def work(tx: Tx) -> ModelInstance:
            now = tx.get(ModelInstance, instance.id)
            assert now is not None
            return tx.change(ModelInstance, _brought(tx, now, state).id, **fields)

        return await self.store.write(work)

    async def file(self, on: Worker, source: ModelSource, **more: Any) -> ModelFile:
        made = ModelFile(worker_id=on.id, source=source, source_index=source.index, **more)
        return await self.store.write(lambda tx: tx.insert(made))

    async def change(self, record: Any, **fields: Any) -> Any:
        return await self.store.write(lambda tx: tx.change(type(record), record.id, **fields))

    async def until(self, holds: Callable[[Snapshot], Any]) -> Snapshot:
        """The first snapshot of which something holds."""
        with trio.fail_after(PATIENCE), self.store.watch() as wake:
            while not holds(self.store.snapshot):
                await wake.wait()
        return self.store.snapshot

    async def until_state(self, instance: ModelInstance | int, state: InstanceState) -> ModelInstance:
        key = instance if isinstance(instance, int) else instance.id
        await self.until(lambda s: key in s.instances and s.instances[key].state is state)
        return self.snapshot.instances[key]

    async def until_told(self, instance: ModelInstance, text: str) -> ModelInstance:
        """Wait until its message has the text."""
        await self.until(lambda s: text in s.instances[instance.id].state_message)
        return self.snapshot.instances[instance.id]

    def now(self, record: Any) -> Any:
        """The record as it stands."""
        return self.snapshot.get(type(record), record.id)


_WAY = (
    InstanceState.SCHEDULED,
    InstanceState.INITIALIZING,
    InstanceState.DOWNLOADING,
    InstanceState.STARTING,
    InstanceState.RUNNING,
)


def _brought(tx: Tx, instance: ModelInstance, state: InstanceState) -> ModelInstance:
    if state is InstanceState.ERROR:
        return tx.move(instance, state, by=Party.WORKER, message="it broke")
    for step in _WAY[_WAY.index(instance.state) + 1 : _WAY.index(state) + 1]:
        port = 40000 if step is InstanceState.RUNNING else None
        instance = tx.move(instance, step, by=Party.WORKER, port=port)
    return instance


class Settled:
    """Tells when nothing has been written for a while that every loop has had to look."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def __call__(self) -> int:
        """The revision at which the control loops have come to rest."""
        with trio.fail_after(PATIENCE):
            while True:
                before = self.cluster.snapshot.revision
                busy = False
                for _ in range(5):
                    await self.cluster.store.write(lambda tx: None)
                    await trio.testing.wait_all_tasks_blocked()
                    busy = busy or any(use.busy for use in limiters() if use.name == "placement")
                if self.cluster.snapshot.revision == before and not busy:
                    return before
