"""Counts of inference, kept in memory by the request and brought to the store every few seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

import attrs
import trio

from gpustack.domain.usage import ModelUsage, Operation
from gpustack.errors import Unavailable
from gpustack.store.store import Store

log = logging.getLogger(__name__)

_FLUSH_EVERY = 5.0
_LAST_FLUSH_WITHIN = 5.0


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
    requests: int = 0
    failed: int = 0
    prompt: int = 0
    completion: int = 0


@attrs.define(eq=False, repr=False)
class UsageLedger:
    """Owns counts not yet stored. Adding costs a dictionary look-up; storing adds to the rows of the day.

    What is being written when the database fails is put back, so that nothing is lost or counted twice.
    """

    _store: Store
    _now: Callable[[], datetime]
    _open: dict[UsageKey, _Sum] = attrs.field(factory=dict)
    name: str = "usage-flush"

    def add(self, key: UsageKey, *, prompt: int, completion: int, failed: bool) -> None:
        """Count one finished request, however it ended. Only from the Trio thread; never waits."""
        counted = self._open.setdefault(key, _Sum())
        counted.requests += 1
        counted.failed += failed
        counted.prompt += prompt
        counted.completion += completion

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            while True:
                await trio.sleep(_FLUSH_EVERY)
                await self.flush()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_FLUSH_WITHIN):
                await self.flush()

    async def flush(self) -> None:
        """Bring all counts to the store; if it is away they wait here for the next time."""
        taken, self._open = self._open, {}
        if not taken:
            return
        today = self._now().date()
        rows = [
            ModelUsage(
                date=today,
                user_id=key.user_id,
                api_key_id=key.api_key_id,
                model_id=key.model_id,
                operation=key.operation,
                username=key.username,
                model_name=key.model_name,
                prompt_token_count=counted.prompt,
                completion_token_count=counted.completion,
                request_count=counted.requests,
                failed_count=counted.failed,
            )
            for key, counted in taken.items()
        ]
        stored = False
        try:
            await self._store.write(lambda tx: tx.add_usage(rows))
            stored = True
        except Unavailable as error:
            log.warning("Usage counts wait for the database: rows=%d reason=%s", len(rows), error)
        finally:
            if not stored:
                self._put_back(taken)

    def _put_back(self, taken: dict[UsageKey, _Sum]) -> None:
        for key, counted in taken.items():
            mine = self._open.setdefault(key, _Sum())
            mine.requests += counted.requests
            mine.failed += counted.failed
            mine.prompt += counted.prompt
            mine.completion += counted.completion

    def __repr__(self) -> str:
        return f"<UsageLedger: {len(self._open)} rows to store>"
