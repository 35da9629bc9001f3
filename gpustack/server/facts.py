"""The facts of model sources: their headers, read here or by a worker that has the file, and kept."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker, WorkerState, unmatched
from gpustack.errors import BadRequest, Forbidden, GpustackError, Invalid, NotFound, Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import Wake

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.25

ReadHere = Callable[[ModelSource], Awaitable[ModelFacts]]
ReadThere = Callable[[Worker, ModelSource], Awaitable[ModelFacts]]


@attrs.frozen(kw_only=True)
class FactsSettings:
    """Seconds, but for the last two: how many readings run at once, and how many results are kept."""

    read_within: float = 60.0
    """Bound of one reading."""
    worker_within: float = 15.0
    """Bound of asking one worker for a file on its disk."""
    fresh_for: float = 30.0
    """After that a source is read again when somebody asks: it may have changed, or a fault may be mended. Readers keep
    what did not change, so this is cheap."""
    unanswered_for: float = 5.0
    """The same where a worker did not answer, such as one whose daemon has just been started again."""
    at_once: int = 8
    most: int = 1000


@attrs.frozen(kw_only=True)
class FactsResult:
    """The result of reading a source at ``at``: facts, or the sentence ``fault`` why there are none.

    ``asked`` are the workers whose disks were looked at; ``None`` when the server could read it itself.
    """

    facts: ModelFacts | None
    fault: str | None
    at: float
    asked: frozenset[int] | None = None

    lasting: bool = False
    """The fault is in the file or its name, so that neither waiting nor another worker helps."""
    definite: bool = False
    """Those asked have answered: the file is not there, may not be read, or is no model. False when a hub or worker did
    not answer, so that nothing is known of the file."""
    missed: str | None = None
    """Why the last reading failed, where the facts of an earlier one still hold."""


@attrs.define(eq=False, repr=False)
class FactsCache:
    """Owns the results. Sources are read in tasks of this service, so ``ask`` never waits.

    A local path is read by the server when it exists there, else by a worker.
    """

    _here: ReadHere
    _there: ReadThere
    _snapshot: Callable[[], Snapshot]
    _settings: FactsSettings = FactsSettings()
    _clock: Callable[[], float] = trio.current_time
    _results: dict[str, FactsResult] = attrs.field(factory=dict)
    """By index of the source; the one asked for last is at the end."""
    _wanted: dict[str, Model] = attrs.field(factory=dict)
    _reading: set[str] = attrs.field(factory=set)
    _wake: Wake = attrs.field(factory=Wake)
    _listeners: list[Wake] = attrs.field(factory=list)
    _faults: Quarantine = attrs.Factory(lambda self: Quarantine("facts", clock=self._clock), takes_self=True)
    name: str = "facts"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        room = trio.Semaphore(self._settings.at_once)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    for key, model in self._wanted.items():
                        self._reading.add(key)
                        nursery.start_soon(self._read, model, room, name=f"facts:{model.name}")
                    self._wanted.clear()
                    await self._wake.wait()
        finally:
            self._reading.clear()

    @contextmanager
    def notifying(self, wake: Wake) -> Iterator[None]:
        """Within the block ``wake`` is woken whenever a source has been read."""
        self._listeners.append(wake)
        try:
            yield
        finally:
            self._listeners.remove(wake)

    @property
    def fresh_for(self) -> float:
        """Seconds after which asking again makes sense."""
        return min(map(self._fresh_for, self._results.values()), default=self._settings.fresh_for)

    def _fresh_for(self, result: FactsResult) -> float:
        unanswered = result.fault is not None and bool(result.asked) and not result.definite
        return self._settings.unanswered_for if unanswered else self._settings.fresh_for

    def known(self, source: ModelSource) -> FactsResult | None:
        """The result that is there now, however old; ``None``: not read yet."""
        return self._results.get(source.index)

    def ask(self, model: Model) -> FactsResult | None:
        """``known``, and have the source read when there is no fresh result (see ``is_fresh``). Never waits."""
        key = model.source.index
        result = self._results.pop(key, None)
        if result is not None:
            self._results[key] = result
        if not self.is_fresh(model, result) and key not in self._reading and key not in self._wanted:
            self._wanted[key] = model
            self._wake.wake()
        return result

    async def wait_for(
        self, model: Model, is_enough: Callable[[FactsResult | None], bool], *, within: float
    ) -> FactsResult | None:
        """``ask`` until the result is enough; what is known then, or after ``within`` seconds. Cancellable."""
        wake = Wake()
        with self.notifying(wake), trio.move_on_after(within):
            while not is_enough(self.ask(model)):
                await wake.wait(_LOOK_EVERY)  # a second reading with the same result wakes nobody
        return self.known(model.source)

    def is_fresh(self, model: Model, result: FactsResult | None) -> bool:
        """Whether a result is young, and no worker has become ready since that might have the file."""
        if result is None or self._clock() - result.at >= self._fresh_for(result):
            return False
        if result.fault is None or result.asked is None:
            return True  # a broken file of the server is not better on a worker
        return all(worker.id in result.asked for worker in self._ready())

    async def _read(self, model: Model, room: trio.Semaphore) -> None:
        source = model.source
        try:
            async with room:
                with self._faults.row(source.index) as trial:
                    result = await self._reading_of(model)
                if trial.fault is not None:  # an exception that nobody foresaw, of a library for example
                    result = FactsResult(facts=None, fault=trial.fault.sentence, at=self._clock())
        finally:
            self._reading.discard(source.index)
        before = self._results.pop(source.index, None)
        told = None if before is None else before.fault or before.missed
        if result.fault is not None and result.fault != told:
            log.warning("Could not read a model header: source=%s reason=%s", source.readable, result.fault)
        if result.fault is not None and before is not None and before.facts is not None:
            # It could be read before and may be again soon; whether it has changed is seen when it is fetched.
            result = attrs.evolve(before, at=result.at, asked=result.asked, missed=result.fault)
        self._results[source.index] = result
        while len(self._results) > self._settings.most:
            del self._results[next(iter(self._results))]
        for wake in self._listeners:
            wake.wake()

    async def _reading_of(self, model: Model) -> FactsResult:
        asked: set[int] = set()
        facts, fault, elsewhere, lasting, definite = None, None, False, False, False
        try:
            with trio.move_on_after(self._settings.read_within):
                try:
                    facts = await self._here(model.source)
                except NotFound:
                    if model.source.kind is not SourceKind.LOCAL_PATH:
                        raise
                    elsewhere = True
                    facts = await self._read_there(model, asked)
        except GpustackError as error:
            fault, lasting = str(error), isinstance(error, BadRequest)
            definite = isinstance(error, (BadRequest, NotFound, Forbidden, Invalid))
        if facts is None and fault is None:
            fault = f"Reading the header of {model.source.readable} took longer than {self._settings.read_within:.0f} s"
        return FactsResult(
            facts=facts,
            fault=fault,
            at=self._clock(),
            asked=frozenset(asked) if elsewhere else None,
            lasting=lasting,
            definite=definite,
        )

    async def _read_there(self, model: Model, asked: set[int]) -> ModelFacts:
        """Ask one ready worker after the other, first those that the deployment selects."""
        ready = sorted(self._ready(), key=lambda w: (bool(unmatched(model.worker_selector, w.labels)), w.id))
        asked.update(worker.id for worker in ready)
        path = model.source.readable
        failure: GpustackError = Unavailable(
            f"{path} is not on the server's machine, and no worker is ready to be asked for it"
        )
        for place, worker in enumerate(ready):
            told = await self._ask_worker(worker, model.source)
            if isinstance(told, ModelFacts):
                return told
            # Of all faults the first worker's is told: the deployment is most likely to run there.
            failure = told if place == 0 else failure
        raise failure

    async def _ask_worker(self, worker: Worker, source: ModelSource) -> ModelFacts | GpustackError:
        """What one worker answers, or its fault."""
        told: ModelFacts | GpustackError | None = None
        with self._faults.row((source.index, worker.id)) as trial:
            try:
                with trio.fail_after(self._settings.worker_within):
                    told = await self._there(worker, source)
            except trio.TooSlowError:
                told = Unavailable(
                    f"Worker {worker.name} did not say in time whether it has {source.readable}"
                )
            except GpustackError as error:
                told = error
        if trial.fault is not None:
            told = Unavailable(
                f"Worker {worker.name} could not be asked for {source.readable}: {trial.fault.sentence}"
            )
        assert told is not None
        return told

    def _ready(self) -> Iterator[Worker]:
        workers = self._snapshot().workers.values()
        return (worker for worker in workers if worker.condition.state is WorkerState.READY)

    def __repr__(self) -> str:
        return f"<FactsCache: {len(self._results)} known, {len(self._reading)} being read>"
