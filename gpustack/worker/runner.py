"""Runs one assigned instance: starts its engine, and starts it again after each failure, with growing pauses."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.restart import RestartPolicy
from gpustack.worker.assignment_watcher import AssignmentWatcher
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_exit import is_port_taken
from gpustack.worker.engine_process import holder_name, placement_digest
from gpustack.worker.gang import GangRecord
from gpustack.worker.instance import InstanceRun, run_instance
from gpustack.worker.launch import InstanceFailure
from gpustack.worker.report import InstanceReporter

log = logging.getLogger(__name__)

BACK_OFF = RestartPolicy(
    first=5.0, factor=2.0, ceiling=300.0, budget=None, window=math.inf, stable_after=600.0
)
"""Pauses of 5, 10, 20 ... 300 s; after 600 s without a failure they begin at 5 s again."""
_PORT_TRIES = 3
"""How often an engine is started at once with other ports when one of its ports was taken meanwhile."""
_REPEATED_FOR = 3600.0
"""Seconds for which the same failure of the same instance is written to the log only once."""


@attrs.define(eq=False, kw_only=True, repr=False)
class InstanceRunner:
    """The restart loop of one instance, and what is known of it. ``end`` ends it; ``run`` returns then."""

    instance: ModelInstance
    """The record as it was when the runner began."""
    reporter: InstanceReporter
    _context: WorkerContext
    _assignments: AssignmentWatcher
    _faults: Quarantine
    _back_off: RestartPolicy
    _rng: random.Random
    model: Model | None = None
    """The deployment as of the instance's generation. It is kept when a user edits the deployment: a restart must not
    become an upgrade."""
    ready: bool = False
    """Whether its engine answers now."""
    settling: bool = False
    """Whether the supervisor waits to see if the server's record comes to show what was reported."""
    _unwanted: trio.Event = attrs.field(factory=trio.Event)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _attempt: int = 0
    """The last start of its gang, as it was counted here."""
    _logged: str = ""
    _logged_at: float = -math.inf
    """The last failure that was written to the log, and when that was."""

    async def run(self) -> None:
        """Run and restart the instance until ``end`` is called. Cancellable at any time."""
        with self._scope:
            while True:
                with self._faults.row(self.instance.id) as attempt:
                    await self._run_and_restart()
                if attempt.fault is not None:
                    with self._faults.row(("report", self.instance.id)):
                        self.reporter.report(InstanceState.ERROR, attempt.fault.sentence)
                    await trio.sleep(max(attempt.fault.again_at - trio.current_time(), 0.0))

    def end(self) -> None:
        """End the engine and the loop: the instance was deleted, moved to another worker or placed anew."""
        if not self._unwanted.is_set():
            log.info("Ending an instance: instance=%s", self.instance.name)
            self._unwanted.set()
            self._scope.cancel()

    @property
    def holder(self) -> str:
        """Its name as the holder of ports."""
        return holder_name(self.instance)

    @property
    def is_ending(self) -> bool:
        """Whether ``end`` was called."""
        return self._unwanted.is_set()

    def is_placed_as(self, record: ModelInstance) -> bool:
        """Whether ``record`` still has the placement that the engine was started with."""
        return placement_digest(self.instance.placement) == placement_digest(record.placement)

    async def _run_and_restart(self) -> NoReturn:
        restarts = self.instance.restart_count
        if self.instance.state is InstanceState.ERROR:
            await self._finish_former_back_off()
            restarts = self._report_restart(restarts)
        failures: tuple[float, ...] = ()
        port_tries = 0
        while True:
            reason = await self._run_once()
            if is_port_taken(reason) and port_tries < _PORT_TRIES:
                port_tries += 1
                log.info("A port was taken, trying others: instance=%s reason=%s", self.instance.name, reason)
                self.reporter.report(InstanceState.INITIALIZING, f"Starts again with other ports. {reason}")
                continue
            port_tries = 0
            now = trio.current_time()
            failures = self._back_off.recent((*failures, now), now)
            delay = self._back_off.delay(failures, now, rng=self._rng) or self._back_off.ceiling
            restarts_by_itself = self._restarts_on_error()
            self._report_failure(reason, restarts, delay if restarts_by_itself else None)
            if restarts_by_itself:
                await trio.sleep(delay)
            else:
                await self._until_restart_is_allowed()
            restarts = self._report_restart(restarts)

    async def _run_once(self) -> str:
        """Run the instance until it fails; return the sentence that says why."""

        def on_ready() -> None:
            self.ready = True
            if self.reporter.retrying:
                log.info("An instance serves again: instance=%s", self.instance.name)
                self.reporter.retrying, self._logged = False, ""

        await self._update_model()
        reason = ""
        with self._faults.row(self.instance.id) as attempt:
            try:
                await run_instance(self._next_run(on_ready), self._context)
            except InstanceFailure as failure:
                reason = str(failure)
            finally:
                self.ready = False
        return reason if attempt.fault is None else attempt.fault.sentence

    def _next_run(self, on_ready: Callable[[], None]) -> InstanceRun:
        record = GangRecord(self._assignments.latest, self.instance.id)

        def next_attempt() -> int:
            now = record.now or self.instance
            self._attempt = max(self._attempt, now.attempt) + 1
            return self._attempt

        return InstanceRun(
            instance=self.instance,
            model=self.model,
            next_attempt=next_attempt,
            record=record,
            assignments=self._assignments.latest,
            reporter=self.reporter,
            unwanted=self._unwanted,
            on_ready=on_ready,
        )

    async def _update_model(self) -> None:
        """Take over the deployment if it is of the instance's generation; wait while there is none (it was deleted)."""
        revision = -1
        while True:
            revision, assigned = await self._assignments.latest.changed(revision)
            model = assigned.state.models.get(self.instance.model_id)
            if model is not None and model.generation == self.instance.generation:
                self.model = model
            if model is not None:
                return

    def _report_failure(self, reason: str, restarts: int, delay: float | None) -> None:
        """Report it and log it. ``delay`` is the pause before the restart, ``None`` where a user must allow one."""
        now = trio.current_time()
        is_news = reason != self._logged or now - self._logged_at >= _REPEATED_FOR
        if is_news:
            self._logged, self._logged_at = reason, now
        self.reporter.retrying = True
        log.log(
            logging.WARNING if is_news else logging.DEBUG,
            "An instance failed: instance=%s restart=%s reason=%s",
            self.instance.name,
            "not wanted" if delay is None else f"in {delay:.1f} s",
            reason,
        )
        again = None if delay is None else self._context.now() + timedelta(seconds=delay)
        self.reporter.report(InstanceState.ERROR, reason, restart_count=restarts, next_retry_at=again)

    def _report_restart(self, restarts: int) -> int:
        self.reporter.report(
            InstanceState.INITIALIZING, restart_count=restarts + 1, last_restart_time=self._context.now()
        )
        return restarts + 1

    async def _finish_former_back_off(self) -> None:
        """Wait for the rest of a pause that a former daemon began."""
        if self.instance.next_retry_at is not None:
            left = (self.instance.next_retry_at - self._context.now()).total_seconds()
            await trio.sleep(min(max(left, 0.0), self._back_off.ceiling))

    async def _until_restart_is_allowed(self) -> None:
        revision = -1
        while not self._restarts_on_error():
            revision, _ = await self._assignments.latest.changed(revision)

    def _restarts_on_error(self) -> bool:
        """As the deployment says now: a user may edit this without making a new generation."""
        model = self._assignments.latest.value.state.models.get(self.instance.model_id) or self.model
        return model is None or model.restart_on_error

    def __repr__(self) -> str:
        return f"<InstanceRunner of {self.instance.name}: {'ready' if self.ready else 'not ready'}>"
