"""Begins a runner for each assigned instance, ends those not assigned any more, and ends orphaned engines."""

from __future__ import annotations

import logging
import random

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.report import InstanceReport
from gpustack.errors import Unavailable
from gpustack.nursery.group import KILL_WITHIN
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.restart import RestartPolicy
from gpustack.nursery.state import GroupState
from gpustack.worker.assignment_watcher import AssignmentSnapshot, AssignmentWatcher
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_process import end_former_engine, engine_on_record, engines_on_record
from gpustack.worker.report import InstanceReporter
from gpustack.worker.runner import BACK_OFF, InstanceRunner

log = logging.getLogger(__name__)

_SETTLES_WITHIN = 2.0
"""Seconds after which a record that still shows another state than was reported is reported again."""


@attrs.define(eq=False, repr=False)
class InstanceSupervisor:
    """A service: compares the assigned instances with the running ones at every change, and acts on the difference.

    Nothing is started or ended before the assignments are complete. Then, once, engines that former daemons left and
    that no assigned instance owns (orphans) are ended; no engine is started before they have.
    """

    _context: WorkerContext
    _assignments: AssignmentWatcher
    _rng: random.Random
    back_off: RestartPolicy = BACK_OFF
    _runners: dict[int, InstanceRunner] = attrs.field(factory=dict)
    """By instance id."""
    _removing: set[int] = attrs.field(factory=set)
    """Deleted instances without a runner, whose former engines are being ended."""
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("instances"))
    """Met when comparing, and when ending a deleted instance's former engine."""
    _run_faults: Quarantine = attrs.field(factory=lambda: Quarantine("runners"))
    """Met by the runners."""
    _took_over: bool = False
    """Whether every engine that a former daemon left has a runner or is being ended."""
    name: str = "instances"

    @property
    def ready_instances(self) -> dict[int, str]:
        """Ids of the instances whose engines answer, with their names."""
        return {key: one.instance.name for key, one in self._runners.items() if one.ready}

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await self._follow_assignments()
        finally:
            if self._context.shutdown.ends_engines and not self._took_over:
                await self._end_all_former_engines()

    async def _follow_assignments(self) -> None:
        revision, first = -1, True
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(self._faults.due_in()):
                    revision, _ = await self._assignments.latest.changed(revision)
                assigned = self._assignments.latest.value
                if not assigned.synced:
                    continue
                if first:
                    first, self._took_over = False, True
                    await self._take_over_former_engines(assigned, nursery)
                self._compare(assigned, nursery)

    # --- assigned against running

    def _compare(self, assigned: AssignmentSnapshot, nursery: trio.Nursery) -> None:
        wanted = assigned.state.instances
        known = dict.fromkeys([*self._runners, *wanted])
        self._faults.keep_only({*known, *(("compare", key) for key in known)})
        self._run_faults.keep_only(known)
        for key in known:
            if not self._faults.holds(key) and not self._faults.holds(("compare", key)):
                with self._faults.row(("compare", key)):
                    self._compare_one(key, wanted.get(key), nursery)

    def _compare_one(self, key: int, record: ModelInstance | None, nursery: trio.Nursery) -> None:
        runner = self._runners.get(key)
        if runner is not None:
            if record is None or record.deleted_at is not None or not runner.is_placed_as(record):
                runner.end()
            elif runner.reporter.differs(record) and not runner.settling:
                runner.settling = True
                nursery.start_soon(self._settle, runner, name=f"settle:{record.name}")
        elif record is None or key in self._removing:
            return
        elif record.deleted_at is None:
            self._runners[key] = runner = self._runner_of(record)
            nursery.start_soon(self._run, runner, nursery, name=f"instance:{record.name}")
        elif not self._context.reports.has_removal(key):
            self._removing.add(key)
            nursery.start_soon(self._remove_deleted, record, nursery, name=f"end:{record.name}")

    def _runner_of(self, record: ModelInstance) -> InstanceRunner:
        return InstanceRunner(
            instance=record,
            reporter=InstanceReporter(self._context.reports, record.id, record.state),
            context=self._context,
            assignments=self._assignments,
            faults=self._run_faults,
            back_off=self.back_off,
            rng=self._rng,
        )

    async def _run(self, runner: InstanceRunner, nursery: trio.Nursery) -> None:
        try:
            await runner.run()
        finally:
            self._runners.pop(runner.instance.id, None)
            self._context.ports.expect_no_more(runner.instance.name)
        # Only an end that was wanted comes here. A deleted record is reported gone now; one placed anew is begun.
        self._compare(self._assignments.latest.value, nursery)

    async def _settle(self, runner: InstanceRunner) -> None:
        """Report the state again if the record goes on showing another one: a report was refused or lost."""
        await trio.sleep(_SETTLES_WITHIN)
        runner.settling = False
        record = self._assignments.latest.value.state.instances.get(runner.instance.id)
        if record is not None and self._runners.get(record.id) is runner:
            with self._run_faults.row(("settle", record.id)):
                runner.reporter.repeat(record)

    async def _remove_deleted(self, record: ModelInstance, nursery: trio.Nursery) -> None:
        """End the former engine of an instance that was deleted while it had no runner, then report it gone."""
        try:
            with self._faults.row(record.id) as attempt:
                state = await engine_on_record(record.id, self._context)
                if state is None or await self._end_former_engine(state):
                    self._context.reports.add_instance(record.id, InstanceReport(gone=True))
        finally:
            self._removing.discard(record.id)
        if attempt.fault is not None:
            await trio.sleep(max(attempt.fault.again_at - trio.current_time(), 0.0))
            self._compare(self._assignments.latest.value, nursery)

    # --- engines that former daemons left

    async def _take_over_former_engines(self, assigned: AssignmentSnapshot, nursery: trio.Nursery) -> None:
        """Reserve the ports of those that assigned instances will adopt, and begin to end the orphans."""
        orphans = []
        for key, state in (await engines_on_record(self._context)).items():
            record = assigned.state.instances.get(key)
            with self._run_faults.row(("former", state.pid)):
                if record is None:
                    orphans.append(state)
                elif state.port is not None:
                    self._context.ports.expect(state.port, record.name)
        nursery.start_soon(self._end_orphans, orphans, name="orphans")

    async def _end_orphans(self, orphans: list[GroupState]) -> None:
        async with trio.open_nursery() as nursery:
            for state in orphans:
                log.warning(
                    "Ending an engine nobody wants: instance=%s pid=%d",
                    state.meta.get("instance", "?"),
                    state.pid,
                )
                nursery.start_soon(self._end_former_engine, state)
        self._context.orphans_ended.set()

    async def _end_all_former_engines(self) -> None:
        """A plain stop before the server has told the assignments ends the engines of former daemons too."""
        bound = self._context.stop_grace + KILL_WITHIN
        with trio.CancelScope(shield=True, deadline=trio.current_time() + bound):
            left = await engines_on_record(self._context)
            async with trio.open_nursery() as nursery:
                for state in left.values():
                    nursery.start_soon(self._end_former_engine, state)

    async def _end_former_engine(self, state: GroupState) -> bool:
        """Whether it has ended; one that cannot be ended is named in the log."""
        ended = False
        with self._run_faults.row(("former", state.pid)):
            try:
                await end_former_engine(state, self._context)
                ended = True
            except Unavailable as error:
                log.error("%s", error)
        return ended

    def __repr__(self) -> str:
        ready = sum(one.ready for one in self._runners.values())
        return f"<InstanceSupervisor: {len(self._runners)} instances, {ready} ready>"
