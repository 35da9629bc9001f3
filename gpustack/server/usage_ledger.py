"""Counts of inference by user, key, model and day, kept in memory and written to the store every few seconds."""

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
from gpustack.server.row_write import flush_rows, read_spool, write_spool
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_FLUSH_EVERY = 5.0
_FLUSH_WITHIN = 2.0
"""Seconds a flush may take. A stop waits for two flushes at most: one under way, and the last."""
_TRIES = 20
"""Attempts at a row that the store cannot take for what it holds, with growing pauses: about an hour."""


@attrs.frozen(kw_only=True, cache_hash=True)
class UsageKey:
    """Whose request to which model: together with a day the key of one row of usage."""

    user_id: int
    api_key_id: int
    model_id: int
    operation: Operation
    username: str = attrs.field(eq=False)
    model_name: str = attrs.field(eq=False)


@attrs.define
class _UsageCount:
    key: UsageKey
    """The key of the latest request: names may have changed."""
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
    """Owns the counts that are not stored yet. Storing adds them to the rows of their day.

    A row is stored once: what a failed write held is put back. What cannot be stored at a stop goes to the spool
    folder. A process that is killed loses what it counted since the last flush.
    """

    _store: Store
    _now: Callable[[], datetime]
    _spool: Path | None = None
    """The folder for counts that a stopping daemon could not store; the next one stores them."""
    _open: _Open = attrs.field(factory=dict)
    _given_up: bool = False
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("usage-flush", passing=(Unavailable,)))
    name: str = "usage-flush"

    def add(self, key: UsageKey, *, prompt: int, completion: int, failed: bool) -> None:
        """Count one request that has ended, well or not, on the present day of UTC. Only from the Trio thread; one
        dictionary look-up."""
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
        """Flush, then write nothing any more: what is counted later goes to the spool, for the next daemon."""
        await self.flush()
        self._given_up = True

    async def collect(self) -> None:
        """Take over what daemons before this one left behind."""
        if self._spool is not None:
            for row in read_spool(self._spool, ModelUsage):
                self._merge((row.date, _key_of(row)), _count_of(row))

    def _leave_behind(self) -> None:
        if self._open and self._spool is not None:
            write_spool(self._spool, [counted.row(day) for (day, _), counted in self._open.items()])

    async def flush(self) -> None:
        """Write all counts to the store; while it is away they wait here for the next time.

        Not cancellable, but ends within ``_FLUSH_WITHIN`` seconds.
        """
        if self._given_up:
            return
        taken, self._open = self._open, {}
        deadline = trio.current_time() + _FLUSH_WITHIN
        result = await flush_rows(self._store, taken, _add_usage, self._faults, deadline=deadline)
        if result.error is not None:
            log.warning(
                "Usage counts wait for the database: rows=%d reason=%s", len(result.left), result.error
            )
        if result.under_way:
            log.warning("Usage counts take long to store: rows=%d", len(result.under_way))
        for day, counted in result.left.items():
            if not self._is_hopeless(day):
                self._merge(day, counted)

    def _is_hopeless(self, day: _Day) -> bool:
        """Whether the store could not take a row for what it holds, too often to try again: it is dropped then."""
        fault = self._faults.fault_of(day)
        if fault is None or fault.streak < _TRIES:
            return False
        log.error("Counts of usage cannot be stored and are lost: about=%s", day)
        self._faults.forget(day)
        return True

    def _merge(self, day: _Day, counted: _UsageCount) -> None:
        mine = self._open.setdefault(day, counted)
        if mine is not counted:
            mine.requests += counted.requests
            mine.failed += counted.failed
            mine.prompt += counted.prompt
            mine.completion += counted.completion

    def __repr__(self) -> str:
        return f"<UsageLedger: {len(self._open)} rows to store>"


def _add_usage(tx: Tx, counts: Mapping[_Day, _UsageCount]) -> None:
    tx.add_usage([counted.row(day) for (day, _), counted in counts.items()])


def _key_of(row: ModelUsage) -> UsageKey:
    return UsageKey(
        user_id=row.user_id,
        api_key_id=row.api_key_id,
        model_id=row.model_id,
        operation=row.operation,
        username=row.username,
        model_name=row.model_name,
    )


def _count_of(row: ModelUsage) -> _UsageCount:
    return _UsageCount(
        _key_of(row), row.request_count, row.failed_count, row.prompt_token_count, row.completion_token_count
    )
