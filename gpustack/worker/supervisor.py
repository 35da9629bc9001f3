"""Begins a runner for each assigned instance, ends those not assigned any more, and ends orphaned engines."""

from __future__ import annotations

import logging
import random

import attrs
import trio

from gpustack.domain.instance import ModelInstance, members_on
from gpustack.domain.report import InstanceReport
from gpustack.errors import Unavailable
from gpustack.nursery.group import KILL_WITHIN
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.restart import RestartPolicy
from gpustack.nursery.state import GroupState
from gpustack.worker.assignment_watcher import AssignmentSnapshot, AssignmentWatcher
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_process import (
    end_former_engine,
    engine_on_record,
    engines_on_record,
    holder_name,
    ports_of,
)
from gpustack.worker.follower import FollowerRunner
from gpustack.worker.report import FollowerReporter, InstanceReporter
from gpustack.worker.runner import BACK_OFF, InstanceRunner

log = logging.getLogger(__name__)

_SETTLES_WITHIN = 2.0
"""Seconds after which a record that still shows another state than was reported is reported again."""
_SETTLES_AT_MOST = 30.0
"""The longest pause before that is done once more."""


_Key = tuple[int, int]
"""An instance's id, and the member of it that runs here."""


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
    _runners: dict[_Key, InstanceRunner | FollowerRunner] = attrs.field(factory=dict)
    """By instance id and member."""
    _removing: set[_Key] = attrs.field(factory=set)
    """Members of deleted instances without a runner, whose former processes are being ended."""
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
        return {
            key: one.instance.name for (key, member), one in self._runners.items() if one.ready and not member
        }

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
        wanted = self._members(assigned)
        known = dict.fromkeys([*self._runners, *wanted])
        self._faults.keep_only({*known, *(("compare", key) for key in known)})
        self._run_faults.keep_only({*known, *(instance_id for instance_id, _ in known)})
        for key in known:
            if not self._faults.holds(key) and not self._faults.holds(("compare", key)):
                with self._faults.row(("compare", key)):
                    self._compare_one(key, wanted.get(key), nursery)

    def _is_ending(self, instance_id: int) -> bool:
        """Whether another member of it ends here, whose memory the next one needs: that one begins afterwards."""
        return any(key[0] == instance_id and runner.is_ending for key, runner in self._runners.items())

    def _members(self, assigned: AssignmentSnapshot) -> dict[_Key, ModelInstance]:
        """The members that this worker is to run, each with its instance's record."""
        found: dict[_Key, ModelInstance] = {}
        for key, record in assigned.state.instances.items():
            placement = record.placement
            is_gang = placement is not None and bool(placement.subordinates)
            # Whatever is assigned here alone is run here, also where its place does not say how.
            for member in members_on(record, assigned.worker_id) if is_gang else (0,):
                found[key, member] = record
        return found

    def _compare_one(self, key: _Key, record: ModelInstance | None, nursery: trio.Nursery) -> None:
        runner = self._runners.get(key)
        if runner is not None:
            if record is None or record.deleted_at is not None or not runner.is_placed_as(record):
                runner.end()
            elif runner.reporter.differs(record) and not runner.settling:
                runner.settling = True
                nursery.start_soon(self._settle, key, runner, name=f"settle:{record.name}")
        elif record is None or key in self._removing:
            return
        elif record.deleted_at is None and not self._is_ending(key[0]):
            self._runners[key] = runner = self._runner_of(key, record)
            nursery.start_soon(self._run, key, runner, nursery, name=f"instance:{runner.holder}")
        elif record.deleted_at is not None and not self._context.reports.has_removal(*key):
            self._removing.add(key)
            nursery.start_soon(self._remove_deleted, key, record, nursery, name=f"end:{record.name}")

    def _runner_of(self, key: _Key, record: ModelInstance) -> InstanceRunner | FollowerRunner:
        member = key[1]
        if member:
            return FollowerRunner(
                instance=record,
                member=member,
                reporter=FollowerReporter(self._context.reports, record.id, member),
                context=self._context,
                assignments=self._assignments,
                faults=self._run_faults,
            )
        return InstanceRunner(
            instance=record,
            reporter=InstanceReporter(self._context.reports, record.id, record.state),
            context=self._context,
            assignments=self._assignments,
            faults=self._run_faults,
            back_off=self.back_off,
            rng=self._rng,
        )

    async def _run(self, key: _Key, runner: InstanceRunner | FollowerRunner, nursery: trio.Nursery) -> None:
        try:
            await runner.run()
        finally:
            self._runners.pop(key, None)
            for ports in (self._context.ports, self._context.rpc_ports):
                ports.expect_no_more(runner.holder)
        # Only an end that was wanted comes here. A deleted record is reported gone now; one placed anew is begun.
        self._compare(self._assignments.latest.value, nursery)

    async def _settle(self, key: _Key, runner: InstanceRunner | FollowerRunner) -> None:
        """Report the state again while the record goes on showing another one: a report was refused or lost, and what
        it was refused for need not be told here when it is over."""
        pause = _SETTLES_WITHIN
        try:
            while True:
                await trio.sleep(pause)
                pause = min(pause * 2, _SETTLES_AT_MOST)
                record = self._assignments.latest.value.state.instances.get(runner.instance.id)
                # Of a process that is being ended nothing is told: the record may be placed here anew meanwhile.
                gone = self._runners.get(key) is not runner or runner.is_ending
                if record is None or gone or not runner.reporter.is_other(record):
                    return
                with self._run_faults.row(("settle", key)):
                    runner.reporter.repeat(record)
        finally:
            runner.settling = False

    async def _remove_deleted(self, key: _Key, record: ModelInstance, nursery: trio.Nursery) -> None:
        """End the former process of a member that was deleted while it had no runner, then report it gone."""
        member = key[1]
        try:
            with self._faults.row(key) as attempt:
                state = await engine_on_record(record.id, self._context, member)
                if state is None or await self._end_former_engine(state):
                    self._context.reports.add_instance(record.id, InstanceReport(member=member, gone=True))
        finally:
            self._removing.discard(key)
        if attempt.fault is not None:
            await trio.sleep(max(attempt.fault.again_at - trio.current_time(), 0.0))
            self._compare(self._assignments.latest.value, nursery)

    # --- engines that former daemons left

    async def _take_over_former_engines(self, assigned: AssignmentSnapshot, nursery: trio.Nursery) -> None:
        """Reserve the ports of those that assigned instances will adopt, and begin to end the orphans."""
        orphans, wanted = [], self._members(assigned)
        for key, state in (await engines_on_record(self._context)).items():
            record = wanted.get(key)
            with self._run_faults.row(("former", state.pid)):
                if record is None:
                    orphans.append(state)
                    continue
                for port in ports_of(state):
                    owner = self._context.port_owner(port, key[1])
                    owner.expect(port, holder_name(record, key[1]))
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
