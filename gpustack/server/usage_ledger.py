"""Counts of inference, kept in memory by the request and brought to the store every few seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path

import attrs
import trio

from gpustack.domain.usage import ModelUsage, Operation
from gpustack.errors import Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.server.once import WithdrawableWrite
from gpustack.server.spool import leave, take
from gpustack.store.store import Store

log = logging.getLogger(__name__)

_FLUSH_EVERY = 5.0
_FLUSH_WITHIN = 2.0
"""Seconds a write may take before we go on without knowing its end. A stop waits for two of them at most."""
_TRIES = 20
"""How often counts are tried that the store cannot take for what they hold: about an hour."""


@attrs.frozen(kw_only=True, cache_hash=True)
class UsageKey:
    """What one row of usage is about."""

    user_id: int
    api_key_id: int
    model_id: int
    operation: Operation
    username: str = attrs.field(eq=False)
    model_name: str = attrs.field(eq=False)


@attrs.define
class _UsageCount:
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


_Day = tuple[date, UsageKey]
_Open = dict[_Day, _UsageCount]


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
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("usage-flush", passing=(Unavailable,)))
    name: str = "usage-flush"

    def add(self, key: UsageKey, *, prompt: int, completion: int, failed: bool) -> None:
        """Count one finished request, however it ended, on the day it is now (UTC). Only from the Trio thread; never
        waits."""
        day = (self._now().date(), key)
        counted = self._open.get(day)
        if counted is None:
            counted = self._open[day] = _UsageCount(key)
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
        mine = self._open.setdefault((row.date, key), _UsageCount(key))
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
        left = dict(taken)
        under_way: tuple[WithdrawableWrite, list[_Day]] | None = None

        async def store(some: Mapping[_Day, _UsageCount]) -> None:
            nonlocal under_way
            rows = [counted.row(day) for (day, _), counted in some.items()]
            write = WithdrawableWrite(lambda tx: tx.add_usage(rows))
            under_way = (write, list(some))
            await self._store.write(write)
            under_way = None
            for day in some:
                del left[day]

        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FLUSH_WITHIN) as patience:
            try:
                await self._faults.together(taken, store)
            except Unavailable as error:
                log.warning("Usage counts wait for the database: rows=%d reason=%s", len(left), error)
        if patience.cancelled_caught and under_way is not None and not under_way[0].withdraw():
            # It will be stored, unless the database fails just now.
            log.warning("Usage counts take long to store: rows=%d", len(under_way[1]))
            for day in under_way[1]:
                del left[day]
        self._drop_hopeless(left)
        self._put_back(left)

    def _drop_hopeless(self, left: _Open) -> None:
        for day in list(left):
            fault = self._faults.fault_of(day)
            if fault is not None and fault.streak >= _TRIES:
                log.error("Counts of usage cannot be stored and are lost: about=%s", day)
                self._faults.forget(day)
                del left[day]

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
