"""One task for each assigned instance: started, restarted after a failure, ended when it is not wanted."""

from __future__ import annotations

import logging
import math
import random
from datetime import timedelta

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.report import InstanceReport
from gpustack.errors import Unavailable
from gpustack.nursery.group import KILL_WITHIN
from gpustack.nursery.quarantine import Quarantine, RowFault
from gpustack.nursery.restart import RestartPolicy
from gpustack.nursery.state import GroupState
from gpustack.worker.assignment_watcher import AssignmentSnapshot, AssignmentWatcher
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_process import (
    end_former_engine,
    engine_on_record,
    engines_on_record,
    placement_digest,
)
from gpustack.worker.instance import EngineStop, InstanceFailure, run_instance
from gpustack.worker.telling import InstanceReporter

log = logging.getLogger(__name__)

BACK_OFF = RestartPolicy(
    first=5.0, factor=2.0, ceiling=300.0, budget=None, window=math.inf, stable_after=600.0
)
"""5, 10, 20 ... 300 s; ten good minutes begin the row anew."""
_SAME_FOR = 3600.0
"""Seconds for which the same failure of the same instance, again and again, is one line in the log."""
_SETTLES_WITHIN = 2.0
"""Seconds after which a record that still shows another state than was told is told again."""


@attrs.define(eq=False)
class _Runner:
    """A living instance: its task's scope, and what is known of it."""

    instance: ModelInstance
    telling: InstanceReporter
    model: Model | None = None
    """The deployment as of the instance's generation, kept for when it is edited: a restart is not an upgrade."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ending: EngineStop = attrs.field(factory=EngineStop)
    ready: bool = False
    settling: bool = False
    logged: str = ""
    """The last failure that was a line in the log, and when that was."""
    logged_at: float = -math.inf


@attrs.define(eq=False, repr=False)
class InstanceSupervisor:
    """Compares what is assigned with what lives, at every change; acts on the difference."""

    _world: WorkerContext
    _assignments: AssignmentWatcher
    _rng: random.Random
    back_off: RestartPolicy = BACK_OFF
    _living: dict[int, _Runner] = attrs.field(factory=dict)
    _ending: set[int] = attrs.field(factory=set)
    """Deleted instances that have no runner, and whose remains are being ended."""
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("instances"))
    """What was met when comparing, and when ending what is not wanted any more."""
    _lives: Quarantine = attrs.field(factory=lambda: Quarantine("lives"))
    _met: bool = False
    """Whether what former daemons left is in somebody's hands."""
    name: str = "instances"

    @property
    def ready_ports(self) -> dict[int, str]:
        """Instance ids of engines that serve, with their names."""
        return {key: one.instance.name for key, one in self._living.items() if one.ready}

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await self._follow()
        finally:
            if self._world.intent.stopping and not self._met:
                await self._end_unmet()

    async def _follow(self) -> None:
        revision, first = -1, True
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(self._faults.due_in()):
                    revision, _ = await self._assignments.latest.changed(revision)
                assigned = self._assignments.latest.value
                if not assigned.synced:
                    continue
                if first:
                    first, self._met = False, True
                    await self._meet_former_engines(assigned, nursery)
                self._compare(assigned, nursery)

    # --- what is wanted against what lives

    def _compare(self, assigned: AssignmentSnapshot, nursery: trio.Nursery) -> None:
        wanted = assigned.picture.instances
        known = dict.fromkeys([*self._living, *wanted])
        self._faults.keep_only({*known, *(("compare", key) for key in known)})
        self._lives.keep_only(known)
        for key in known:
            if not self._faults.holds(key) and not self._faults.holds(("compare", key)):
                with self._faults.row(("compare", key)):
                    self._compare_one(key, wanted.get(key), nursery)

    def _compare_one(self, key: int, record: ModelInstance | None, nursery: trio.Nursery) -> None:
        runner = self._living.get(key)
        if runner is not None:
            if record is None or record.deleted_at is not None or _moved(runner.instance, record):
                _end(runner)
            elif runner.telling.differs(record) and not runner.settling:
                runner.settling = True
                nursery.start_soon(self._settle, runner, name=f"settle:{record.name}")
        elif record is None or key in self._ending:
            return
        elif record.deleted_at is None:
            self._living[key] = runner = _Runner(
                record, InstanceReporter(self._world.reports, record.id, record.state)
            )
            nursery.start_soon(self._run, runner, nursery, name=f"instance:{record.name}")
        elif not self._world.reports.is_leaving(key):
            self._ending.add(key)
            nursery.start_soon(self._end_deleted, record, nursery, name=f"end:{record.name}")

    def _look_again(self, nursery: trio.Nursery) -> None:
        self._compare(self._assignments.latest.value, nursery)

    async def _settle(self, runner: _Runner) -> None:
        """Say again what is true here if the record goes on showing otherwise: a report was refused or lost."""
        await trio.sleep(_SETTLES_WITHIN)
        runner.settling = False
        record = self._record(runner.instance.id)
        if record is not None and self._living.get(record.id) is runner:
            with self._lives.row(("settle", record.id)):
                runner.telling.repeat(record)

    # --- one instance

    async def _run(self, runner: _Runner, nursery: trio.Nursery) -> None:
        instance = runner.instance
        try:
            with runner.scope:
                while True:
                    with self._lives.row(instance.id) as trial:
                        await self._live(runner)
                    if trial.fault is not None:
                        await self._wait_after(trial.fault, runner)
        finally:
            self._living.pop(instance.id, None)
            self._world.ports.expect_no_more(instance.name)
        # Only an end that was wanted comes here. What was decided meanwhile, and what is left to say, is looked at now.
        self._look_again(nursery)

    async def _live(self, runner: _Runner) -> None:
        """Life after life, with growing pauses while they fail."""
        restarts = runner.instance.restart_count
        if await self._waited_out(runner.instance):
            restarts = self._say_restart(runner, restarts)
        failures: tuple[float, ...] = ()
        while True:
            sentence = await self._one_life(runner)
            now = trio.current_time()
            failures = self.back_off.recent((*failures, now), now)
            delay = self.back_off.delay(failures, now, rng=self._rng) or self.back_off.ceiling
            if await self._restart_wanted(runner, sentence, restarts, delay):
                await trio.sleep(delay)
            restarts = self._say_restart(runner, restarts)

    async def _one_life(self, runner: _Runner) -> str:
        """Returns why it ended."""

        def served() -> None:
            runner.ready = True
            if runner.telling.tries_again:
                log.info("An instance serves again: instance=%s", runner.instance.name)
                runner.telling.tries_again, runner.logged = False, ""

        await self._know_model(runner)
        sentence = ""
        with self._lives.row(runner.instance.id) as trial:
            try:
                await run_instance(
                    runner.instance, runner.model, self._world, runner.telling, runner.ending, served
                )
            except InstanceFailure as failure:
                sentence = str(failure)
            finally:
                runner.ready = False
        return sentence if trial.fault is None else trial.fault.sentence

    async def _wait_after(self, fault: RowFault, runner: _Runner) -> None:
        """Say what was met outside of a life, and leave it alone for a while."""
        with self._lives.row(("word", runner.instance.id)):
            runner.telling.say(InstanceState.ERROR, fault.sentence)
        await trio.sleep(max(fault.again_at - trio.current_time(), 0.0))

    async def _restart_wanted(self, runner: _Runner, sentence: str, restarts: int, delay: float) -> bool:
        """Say the failure. True at once if it is to be mended after ``delay``; false later, when a user allows it."""
        instance, wanted = runner.instance, self._restarts(runner)
        log.log(
            logging.WARNING if _is_news(runner, sentence) else logging.DEBUG,
            "An instance failed: instance=%s restart=%s reason=%s",
            instance.name,
            f"in {delay:.1f} s" if wanted else "not wanted",
            sentence,
        )
        again = self._world.now() + timedelta(seconds=delay) if wanted else None
        runner.telling.say(InstanceState.ERROR, sentence, restart_count=restarts, next_retry_at=again)
        revision = -1
        while not self._restarts(runner):
            revision, _ = await self._assignments.latest.changed(revision)
        return wanted

    def _restarts(self, runner: _Runner) -> bool:
        """As the deployment says now: this may be edited without a new generation."""
        model = self._assignments.latest.value.picture.models.get(runner.instance.model_id) or runner.model
        return model is None or model.restart_on_error

    def _say_restart(self, runner: _Runner, restarts: int) -> int:
        runner.telling.say(
            InstanceState.INITIALIZING, restart_count=restarts + 1, last_restart_time=self._world.now()
        )
        return restarts + 1

    async def _waited_out(self, instance: ModelInstance) -> bool:
        """A back-off that a former daemon began goes on; true if there was one."""
        if instance.state is not InstanceState.ERROR:
            return False
        if instance.next_retry_at is not None:
            left = (instance.next_retry_at - self._world.now()).total_seconds()
            await trio.sleep(min(max(left, 0.0), self.back_off.ceiling))
        return True

    async def _know_model(self, runner: _Runner) -> None:
        """Keep the deployment while it is of the instance's generation. One that is not there was deleted: wait."""
        revision = -1
        while True:
            revision, assigned = await self._assignments.latest.changed(revision)
            model = assigned.picture.models.get(runner.instance.model_id)
            if model is not None and model.generation == runner.instance.generation:
                runner.model = model
            if model is not None:
                return

    def _record(self, instance_id: int) -> ModelInstance | None:
        return self._assignments.latest.value.picture.instances.get(instance_id)

    # --- what former daemons left

    async def _meet_former_engines(self, assigned: AssignmentSnapshot, nursery: trio.Nursery) -> None:
        """Leave their ports to those that are wanted, and begin to end those of instances that are not ours."""
        orphans = []
        for key, state in (await engines_on_record(self._world)).items():
            record = assigned.picture.instances.get(key)
            with self._lives.row(("former", state.pid)):
                if record is None:
                    orphans.append(state)
                elif state.port is not None:
                    self._world.ports.expect(state.port, record.name)
        nursery.start_soon(self._end_orphans, orphans, name="orphans")

    async def _end_orphans(self, orphans: list[GroupState]) -> None:
        async with trio.open_nursery() as nursery:
            for state in orphans:
                log.warning(
                    "Ending an engine nobody wants: instance=%s pid=%d",
                    state.meta.get("instance", "?"),
                    state.pid,
                )
                nursery.start_soon(self._end_former, state)
        self._world.cleared.set()

    async def _end_unmet(self) -> None:
        """A stop before the server has said what it wants: what former daemons left ends all the same."""
        bound = self._world.stop_grace + KILL_WITHIN
        with trio.CancelScope(shield=True, deadline=trio.current_time() + bound):
            left = await engines_on_record(self._world)
            async with trio.open_nursery() as nursery:
                for state in left.values():
                    nursery.start_soon(self._end_former, state)

    async def _end_deleted(self, record: ModelInstance, nursery: trio.Nursery) -> None:
        """An instance deleted while nobody ran it: what is left of it ends, then its record goes."""
        try:
            with self._faults.row(record.id) as trial:
                state = await engine_on_record(record.id, self._world)
                if state is None or await self._end_former(state):
                    self._world.reports.instance(record.id, InstanceReport(gone=True))
        finally:
            self._ending.discard(record.id)
        if trial.fault is not None:
            await trio.sleep(max(trial.fault.again_at - trio.current_time(), 0.0))
            self._look_again(nursery)

    async def _end_former(self, state: GroupState) -> bool:
        ended = False
        with self._lives.row(("former", state.pid)):
            try:
                await end_former_engine(state, self._world)
                ended = True
            except Unavailable as error:
                log.error("%s", error)
        return ended

    def __repr__(self) -> str:
        ready = sum(one.ready for one in self._living.values())
        return f"<Runners: {len(self._living)} instances, {ready} ready>"


def _is_news(runner: _Runner, sentence: str) -> bool:
    """Whether the log has to be told of a failure; the record shows each. What follows is told once it works."""
    now = trio.current_time()
    news = sentence != runner.logged or now - runner.logged_at >= _SAME_FOR
    if news:
        runner.logged, runner.logged_at = sentence, now
    runner.telling.tries_again = True
    return news


def _end(runner: _Runner) -> None:
    if not runner.ending.wanted:
        log.info("Ending an instance: instance=%s", runner.instance.name)
        runner.ending.wanted = True
        runner.scope.cancel()


def _moved(lived: ModelInstance, record: ModelInstance) -> bool:
    """Placed anew since it was started: it runs on the wrong devices."""
    return placement_digest(lived.placement) != placement_digest(record.placement)
