"""Runs one follower of a gang: a process that belongs to one attempt of its main member, and ends with it."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from typing import NoReturn

import attrs
import trio

from gpustack.domain.instance import ModelInstance, status_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.engines.engine import Gang, GangPlan
from gpustack.errors import GpustackError
from gpustack.nursery.limiter import threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import first_of
from gpustack.worker.assignment_watcher import AssignmentWatcher
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_process import (
    EngineProcess,
    EngineSeat,
    adopt_engine,
    attempt_of,
    end_former_engine,
    engine_on_record,
    holder_name,
    placement_digest,
    start_engine,
)
from gpustack.worker.engine_watch import bounded_log, until_ready, watch_engine
from gpustack.worker.gang import LIVE, AttemptWatch, GangRecord, gang_of
from gpustack.worker.launch import (
    InstanceFailure,
    LaunchInputs,
    LaunchTerms,
    describe_launch,
    fetch_files,
    lease_ports,
    plan_of,
    with_build,
)
from gpustack.worker.leftovers import clear_leftovers
from gpustack.worker.probe import connects
from gpustack.worker.report import FollowerReporter

log = logging.getLogger(__name__)

ALONE_FOR = 120.0
"""Seconds after which a follower that hears neither the server nor its main member's worker ends by itself."""
_LOOK_FOR_MAIN_EVERY = 15.0
_CONNECTS_WITHIN = 5.0
_threads = threads("followers", 1)


@attrs.define(eq=False, kw_only=True, repr=False)
class FollowerRunner:
    """What one follower does from attempt to attempt, and what is known of it. ``end`` ends it; ``run`` returns then.

    It has no restarts of its own: when it fails it says so, its main member fails of that, and begins a new attempt.
    """

    instance: ModelInstance
    """The record as it was when the runner began."""
    member: int
    reporter: FollowerReporter
    _context: WorkerContext
    _assignments: AssignmentWatcher
    _faults: Quarantine
    ready: bool = False
    settling: bool = False
    """Whether the supervisor waits to see if the server's record comes to show what was reported."""
    _model: Model | None = None
    _unwanted: trio.Event = attrs.field(factory=trio.Event)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def holder(self) -> str:
        """Its name as the holder of ports."""
        return holder_name(self.instance, self.member)

    async def run(self) -> None:
        """Serve one attempt after the other until ``end`` is called. Cancellable at any time."""
        row, record = (self.instance.id, self.member), GangRecord(self._assignments.latest, self.instance.id)
        with self._scope:
            while True:
                with self._faults.row(row) as trial:
                    await self._serve_next_attempt(record)
                if trial.fault is not None:
                    self.reporter.report(InstanceState.ERROR, trial.fault.sentence)
                    await trio.sleep(max(trial.fault.again_at - trio.current_time(), 0.0))

    def end(self) -> None:
        """End the process and the loop: the instance was deleted, moved to other workers or placed anew."""
        if not self._unwanted.is_set():
            log.info("Ending a member of an instance: instance=%s", self.holder)
            self._unwanted.set()
            self._scope.cancel()

    @property
    def is_ending(self) -> bool:
        """Whether ``end`` was called."""
        return self._unwanted.is_set()

    def is_placed_as(self, record: ModelInstance) -> bool:
        """Whether ``record`` still has the placement that this runner was made for."""
        return placement_digest(self.instance.placement) == placement_digest(record.placement)

    async def _serve_next_attempt(self, record: GangRecord) -> None:
        """Wait for an attempt that was not served yet, and serve it until it is over."""

        def is_new(one: ModelInstance) -> bool:
            return one.state in LIVE and one.attempt not in (0, self.reporter.attempt)

        if record.now is not None and not is_new(record.now):
            await self._end_former_process()
        begun = await record.until(is_new)
        self._take_model()
        self.reporter.attempt = begun.attempt
        await self._serve(begun, record)

    async def _serve(self, begun: ModelInstance, record: GangRecord) -> None:
        """Serve one attempt until it is over. A failure is reported."""
        attempt = _Attempt(begun, record, AttemptWatch(begun.attempt), trio.Event())

        async def serve() -> None:
            try:
                with ExitStack() as leases:
                    await self._run_process(attempt, leases)
            except (InstanceFailure, GpustackError) as failure:
                log.warning("A member of an instance failed: instance=%s reason=%s", self.holder, failure)
                self.reporter.report(InstanceState.ERROR, str(failure))
            finally:
                self.ready = False
            await trio.sleep_forever()  # until the main member has seen it

        async def until_over() -> None:
            await record.until(attempt.watch.is_over)
            attempt.over.set()

        await first_of(until_over, serve)

    async def _run_process(self, attempt: _Attempt, leases: ExitStack) -> None:
        """Adopt or start the process, and watch it; raises ``InstanceFailure`` when it fails. It is ended when it
        failed, its attempt is over or it is not wanted, and when the daemon is being stopped; else it keeps running.
        """
        seat = EngineSeat(instance=attempt.begun, member=self.member, attempt=attempt.begun.attempt)
        former = await engine_on_record(self.instance.id, self._context, self.member)
        engine = await adopt_engine(seat, self._context, leases)
        if engine is None:
            ran = former is not None and attempt_of(former) == seat.attempt
            if ran or status_of(attempt.begun, self.member).pid is not None:
                # Its main member has lost it: another process would not heal that, and would hide it.
                raise InstanceFailure("Its process ended while its daemon was away")
            engine = await self._start(seat, attempt, leases)
        failed = False
        try:
            address = await _threads.run(self._context.address)
            await until_ready(engine, self._context, host=address)
            self.ready = True
            self.reporter.report(
                InstanceState.RUNNING, address=address, ports=engine.ports, pid=engine.group.pid
            )
            await self._watch(engine, attempt.record)
        except (InstanceFailure, GpustackError) as failure:
            failed = True
            # Before its remains are ended, which may take a while: the main member is not to wait for that.
            self.reporter.report(InstanceState.ERROR, str(failure))
            raise
        finally:
            is_unwanted = failed or attempt.over.is_set() or self._unwanted.is_set()
            if self._context.shutdown.ends_engines and not is_unwanted:
                self.reporter.report(InstanceState.ERROR, "Its worker was stopped")
            elif attempt.over.is_set() and not failed:
                # Refused if a new attempt has begun. If the main member goes on with this one, it is to know.
                self.reporter.report(InstanceState.ERROR, "It was ended, as its main member had begun anew")
            ends = is_unwanted or self._context.shutdown.ends_engines
            await engine.release(end=ends)
            if ends:
                await clear_leftovers(self._context.now().timestamp())

    async def _start(self, seat: EngineSeat, attempt: _Attempt, leases: ExitStack) -> EngineProcess:
        """Files → ports → main member → process. For a gang that Ray starts it stands for this worker's Ray node: then
        it never returns."""
        self.reporter.report(InstanceState.INITIALIZING)
        await self._context.orphans_ended.wait()
        model = self._take_model()
        if model is None:
            raise InstanceFailure(
                "The deployment was changed since this replica was made; it is about to be replaced"
            )
        inputs = await self._fetch(seat.instance, model, needed=False)
        plan = plan_of(inputs.engine, model, seat.instance, self._context)
        assert plan is not None  # it has followers
        if plan.fetches:
            inputs = await self._fetch(seat.instance, model, needed=True)
        if plan.delegated:
            await self._stand_for_ray()
        inputs = await with_build(inputs, seat, model, self._context, self._tell)
        ports = await lease_ports(
            plan.follower_ports, plan.follower_range, seat, self._context, leases, self._tell
        )
        gang = await self._meet(plan, ports, attempt)
        terms = LaunchTerms(ports, None, gang)
        launch = await describe_launch(seat, model, inputs, terms, self._context)
        engine = await start_engine(launch, seat, ports, self._context, {})
        log.info(
            "Started a member of an instance: instance=%s pid=%d ports=%s",
            self.holder,
            engine.group.pid,
            list(ports),
        )
        return engine

    async def _fetch(self, instance: ModelInstance, model: Model, *, needed: bool) -> LaunchInputs:
        def progress(percent: float) -> None:
            self.reporter.report(InstanceState.DOWNLOADING, download_progress=percent)

        return await fetch_files(instance, model, self._context, progress, needed=needed)

    async def _meet(self, plan: GangPlan, ports: tuple[int, ...], attempt: _Attempt) -> Gang:
        """Say where this member is reached; with a main process to connect to, wait until that is there."""
        address = await _threads.run(self._context.address)
        self.reporter.report(InstanceState.STARTING, address=address, ports=ports)
        found = await attempt.record.until(lambda one: attempt.watch.may_join(one, plan))
        return gang_of(found)

    async def _stand_for_ray(self) -> NoReturn:
        ray = self._context.ray
        if ray is None:
            raise InstanceFailure("Ray is not enabled on this worker; start it with --enable-ray")
        await ray.until_up(partial(self.reporter.report, InstanceState.STARTING))
        self.reporter.report(InstanceState.RUNNING, address=await _threads.run(self._context.address))
        raise InstanceFailure(await ray.until_down())

    async def _watch(self, engine: EngineProcess, record: GangRecord) -> None:
        """Raises ``InstanceFailure`` when the process ends, or nobody is left who could tell that it should."""
        if await first_of(partial(self._until_alone, record), engine.group.wait, bounded_log(engine)) == 0:
            raise InstanceFailure(
                f"For {ALONE_FOR:g} s neither the server nor the worker of its main member was heard"
            )
        await watch_engine(engine, self._context)

    async def _until_alone(self, record: GangRecord) -> None:
        """Return when for a time neither the server nor the main member's worker let itself be heard.

        That worker's silence counts only if it was reached before: its port may be another one, or not be reachable.
        """
        heard, was_reached = trio.current_time(), False
        while trio.current_time() - heard < ALONE_FOR:
            await trio.sleep(_LOOK_FOR_MAIN_EVERY)
            now, reached = record.now, False
            if now is not None and now.address:
                with trio.move_on_after(_CONNECTS_WITHIN):
                    reached = await connects(now.address, self._context.peer_port)
            was_reached = was_reached or reached
            heard = max(heard, self._assignments.heard_at)
            if reached or not was_reached:
                heard = trio.current_time()

    async def _end_former_process(self) -> None:
        """End what a former daemon left of an attempt that is over."""
        state = await engine_on_record(self.instance.id, self._context, self.member)
        if state is not None:
            await end_former_engine(state, self._context)

    def _take_model(self) -> Model | None:
        """The deployment as of the instance's generation. It is kept when a user edits the deployment, as the main
        member's runner keeps it."""
        model = self._assignments.latest.value.state.models.get(self.instance.model_id)
        if model is not None and model.generation == self.instance.generation:
            self._model = model
        return self._model

    def _tell(self, sentence: str) -> None:
        self.reporter.report(InstanceState.INITIALIZING, sentence)

    def __repr__(self) -> str:
        return f"<FollowerRunner of {self.holder}: {'ready' if self.ready else 'not ready'}>"


@attrs.frozen
class _Attempt:
    """One attempt that a follower serves: as it began, as the record shows it now, and whether it is over."""

    begun: ModelInstance
    record: GangRecord
    watch: AttemptWatch
    over: trio.Event
