"""Counts of inference, kept in memory by the request and brought to the store every few seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import attrs
import trio

from gpustack.domain.usage import ModelUsage, Operation
from gpustack.errors import GpustackError
from gpustack.server.once import Once
from gpustack.server.spool import leave, take
from gpustack.store.store import Store

log = logging.getLogger(__name__)

_FLUSH_EVERY = 5.0
_FLUSH_WITHIN = 3.0
"""Seconds a write may take before we go on without knowing its end. A stop waits for two of them at most."""


@attrs.frozen(kw_only=True)
class UsageKey:
    """What one row of usage is about."""

    user_id: int
    api_key_id: int
    model_id: int
    operation: Operation
    username: str = attrs.field(eq=False)
    model_name: str = attrs.field(eq=False)


@attrs.define
class _Sum:
    key: UsageKey
    """The latest, for its names."""
    requests: int = 0
    failed: int = 0
    prompt: int = 0
    completion: int = 0

    def row(self, day: date) -> ModelUsage:
        return ModelUsage(
            date=day,
            user_id=self.key.user_id,
            api_key_id=self.key.api_key_id,
            model_id=self.key.model_id,
            operation=self.key.operation,
            username=self.key.username,
            model_name=self.key.model_name,
            prompt_token_count=self.prompt,
            completion_token_count=self.completion,
            request_count=self.requests,
            failed_count=self.failed,
        )


_Open = dict[tuple[date, UsageKey], _Sum]


@attrs.define(eq=False, repr=False)
class UsageLedger:
    """Owns counts not yet stored. Adding costs a dictionary look-up; storing adds to the rows of the day.

    What is being written when the database fails is put back, so that nothing is lost or counted twice. A daemon
    that is killed loses what it counted in the last seconds.
    """

    _store: Store
    _now: Callable[[], datetime]
    _spool: Path | None = None
    """Where counts are left that the store did not take any more, for the next daemon to bring to it."""
    _open: _Open = attrs.field(factory=dict)
    _given_up: bool = False
    name: str = "usage-flush"

    def add(self, key: UsageKey, *, prompt: int, completion: int, failed: bool) -> None:
        """Count one finished request, however it ended, on the day it is now (UTC). Only from the Trio thread; never
        waits."""
        day = (self._now().date(), key)
        counted = self._open.get(day)
        if counted is None:
            counted = self._open[day] = _Sum(key)
        counted.key = key
        counted.requests += 1
        counted.failed += failed
        counted.prompt += prompt
        counted.completion += completion

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            while True:
                await trio.sleep(_FLUSH_EVERY)
                if not self._given_up:
                    await self.collect()
                await self.flush()
        finally:
            await self.flush()
            self._leave_behind()

    async def give_up(self) -> None:
        """Store what is counted; what is counted from now on is left for the daemon that has the store."""
        await self.flush()
        self._given_up = True

    async def collect(self) -> None:
        """Take over what daemons before this one left behind."""
        if self._spool is not None:
            for row in take(self._spool, ModelUsage):
                self._add_row(row)

    def _leave_behind(self) -> None:
        if self._open and self._spool is not None:
            leave(self._spool, [counted.row(day) for (day, _), counted in self._open.items()])

    def _add_row(self, row: ModelUsage) -> None:
        key = UsageKey(
            user_id=row.user_id,
            api_key_id=row.api_key_id,
            model_id=row.model_id,
            operation=row.operation,
            username=row.username,
            model_name=row.model_name,
        )
        mine = self._open.setdefault((row.date, key), _Sum(key))
        mine.requests += row.request_count
        mine.failed += row.failed_count
        mine.prompt += row.prompt_token_count
        mine.completion += row.completion_token_count

    async def flush(self) -> None:
        """Bring all counts to the store; if it is away they wait here for the next time.

        Not cancellable, but bounded: a write given up in its midst could be stored and counted again.
        """
        if self._given_up:
            return
        taken, self._open = self._open, {}
        if not taken:
            return
        rows = [counted.row(day) for (day, _), counted in taken.items()]
        write = Once(lambda tx: tx.add_usage(rows))
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FLUSH_WITHIN) as patience:
            try:
                await self._store.write(write)
            except GpustackError as error:
                self._put_back(taken)
                log.warning("Usage counts wait for the database: rows=%d reason=%s", len(taken), error)
        if patience.cancelled_caught:
            if write.withdraw():
                self._put_back(taken)
            else:  # it will be stored, unless the database fails just now
                log.warning("Usage counts take long to store: rows=%d", len(taken))

    def _put_back(self, taken: _Open) -> None:
        for day, counted in taken.items():
            mine = self._open.setdefault(day, counted)
            if mine is not counted:
                mine.requests += counted.requests
                mine.failed += counted.failed
                mine.prompt += counted.prompt
                mine.completion += counted.completion

    def __repr__(self) -> str:
        return f"<UsageLedger: {len(self._open)} rows to store>"
