"""One task for each assigned instance: started, restarted after a failure, ended when it is not wanted."""

from __future__ import annotations

import logging
import random
from datetime import timedelta

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.report import InstanceReport
from gpustack.nursery.adopt import adopt, end_remains
from gpustack.nursery.restart import Restart
from gpustack.nursery.state import GroupState, forget_state, read_states
from gpustack.worker.assignment import Assigned, Assignments
from gpustack.worker.life import Ending, InstanceFailed, World, run_instance

log = logging.getLogger(__name__)

BACK_OFF = Restart(first=5.0, factor=2.0, ceiling=300.0, budget=None, window=float("inf"), stable_after=600.0)
"""5, 10, 20 ... 300 s; ten good minutes begin the row anew."""
_ORPHAN_GRACE = 10.0


@attrs.define
class _Runner:
    """A living instance: its task's scope, and what is known of it."""

    instance: ModelInstance
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ending: Ending = attrs.field(factory=Ending)
    ready: bool = False


@attrs.define(eq=False, repr=False)
class Runners:
    """Compares what is assigned with what lives, at every change; acts on the difference."""

    _world: World
    _assignments: Assignments
    _rng: random.Random
    _living: dict[int, _Runner] = attrs.field(factory=dict)
    name: str = "instances"

    @property
    def ready_ports(self) -> dict[int, str]:
        """Instance ids of engines that serve, with their names."""
        return {key: one.instance.name for key, one in self._living.items() if one.ready}

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        latest = self._assignments.latest
        revision = -1
        orphans_ended = False
        async with trio.open_nursery() as nursery:
            while True:
                revision, assigned = await latest.changed(revision)
                if not assigned.synced:
                    continue
                if not orphans_ended:
                    orphans_ended = True
                    await self._end_orphans(assigned)
                self._compare(assigned, nursery)

    def _compare(self, assigned: Assigned, nursery: trio.Nursery) -> None:
        for key, runner in list(self._living.items()):
            wanted = assigned.picture.instances.get(key)
            if wanted is None or wanted.deleted_at is not None:
                if not runner.ending.wanted:
                    log.info("Ending an instance: instance=%s", runner.instance.name)
                    runner.ending.wanted = True
                    runner.scope.cancel()
            else:
                self._assert_state(runner, wanted)
        for key, instance in assigned.picture.instances.items():
            if key in self._living:
                continue
            if instance.deleted_at is None:
                runner = _Runner(instance)
                self._living[key] = runner
                nursery.start_soon(self._run, runner, name=f"instance:{instance.name}")
            else:
                self._world.reports.instance(key, InstanceReport(gone=True))

    def _assert_state(self, runner: _Runner, record: ModelInstance) -> None:
        """Say again what is true here when the record shows otherwise and no word of ours is on its way."""
        differs = runner.ready and record.state is not InstanceState.RUNNING
        if differs and not self._world.reports.pending_for(record.id):
            self._world.reports.instance(record.id, InstanceReport(state=InstanceState.RUNNING))

    async def _run(self, runner: _Runner) -> None:
        key = runner.instance.id
        try:
            with runner.scope:
                await self._live(runner)
        finally:
            self._living.pop(key, None)
        if runner.ending.wanted:
            self._world.reports.instance(key, InstanceReport(gone=True))
            # What was decided while it was ending is looked at now.
            self._assignments.latest.set(self._assignments.latest.value)

    async def _live(self, runner: _Runner) -> None:
        """Life after life, with growing pauses while they fail."""
        await self._wait_out(runner.instance)
        failures: tuple[float, ...] = ()
        restarts = runner.instance.restart_count
        while True:
            model = await self._model(runner.instance.model_id)

            def served() -> None:
                runner.ready = True

            try:
                await run_instance(runner.instance, model, self._world, runner.ending, served)
            except InstanceFailed as failure:
                runner.ready = False
                sentence = str(failure)
            now = trio.current_time()
            failures = BACK_OFF.recent((*failures, now), now)
            delay = BACK_OFF.delay(failures, now, rng=self._rng) or BACK_OFF.ceiling
            log.warning(
                "An instance failed: instance=%s restart=%s reason=%s",
                runner.instance.name,
                f"in {delay:.0f} s" if model.restart_on_error else "not wanted",
                sentence,
            )
            if not model.restart_on_error:
                self._say_error(runner, sentence, restarts, None)
                await trio.sleep_forever()
            self._say_error(runner, sentence, restarts, delay)
            await trio.sleep(delay)
            restarts += 1
            restarted = InstanceReport(
                state=InstanceState.INITIALIZING, restart_count=restarts, last_restart_time=self._world.now()
            )
            self._world.reports.instance(runner.instance.id, restarted)

    def _say_error(self, runner: _Runner, sentence: str, restarts: int, delay: float | None) -> None:
        again = None if delay is None else self._world.now() + timedelta(seconds=delay)
        self._world.reports.instance(
            runner.instance.id,
            InstanceReport(
                state=InstanceState.ERROR, state_message=sentence, restart_count=restarts, next_retry_at=again
            ),
        )

    async def _wait_out(self, instance: ModelInstance) -> None:
        """A back-off that a former daemon began goes on."""
        if instance.state is InstanceState.ERROR and instance.next_retry_at is not None:
            left = (instance.next_retry_at - self._world.now()).total_seconds()
            await trio.sleep(min(max(left, 0.0), BACK_OFF.ceiling))

    async def _model(self, model_id: int) -> Model:
        """The model as last told. One that is not there was deleted: its instances are about to end."""
        revision = -1
        while True:
            revision, assigned = await self._assignments.latest.changed(revision)
            model = assigned.picture.models.get(model_id)
            if model is not None:
                return model

    async def _end_orphans(self, assigned: Assigned) -> None:
        """Engines of a former daemon whose instance is not ours any more."""
        folder = self._world.state_file(0).parent
        for state in await trio.to_thread.run_sync(read_states, folder):
            if not isinstance(state, GroupState):
                log.warning(
                    "Cannot read what a former daemon wrote: file=%s reason=%s", state.path.name, state.reason
                )
                continue
            wanted = any(
                self._world.state_file(key) == state.path and instance.deleted_at is None
                for key, instance in assigned.picture.instances.items()
            )
            if not wanted:
                await _end_orphan(state)

    def __repr__(self) -> str:
        ready = sum(one.ready for one in self._living.values())
        return f"<Runners: {len(self._living)} instances, {ready} ready>"


async def _end_orphan(state: GroupState) -> None:
    log.warning(
        "Ending an engine nobody wants: instance=%s pid=%d", state.meta.get("instance", "?"), state.pid
    )
    group = adopt(state)
    ended = (
        await end_remains(state, _ORPHAN_GRACE)
        if group is None
        else await group.end(_ORPHAN_GRACE) is not None
    )
    if ended and state.path is not None:
        forget_state(state.path)
