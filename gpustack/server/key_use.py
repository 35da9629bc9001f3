"""When each API key was used last, to about a minute."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import attrs
import trio

from gpustack.domain.access import ApiKey
from gpustack.errors import Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.server.row_write import write_rows
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_LOOK_EVERY = 5.0
_EXACT_TO = timedelta(minutes=1)
"""A stored date is not replaced by one less than this later: each write ends caches of keys."""
_WITHIN = 2.0
"""Seconds that a stop waits for the last write."""


@attrs.define(eq=False, repr=False)
class KeyUseLedger:
    """Owns the dates that are not stored yet. They are written together every few seconds, each at most once a minute.
    A process that is killed forgets those of the last seconds.
    """

    _store: Store
    _now: Callable[[], datetime]
    _used: dict[int, datetime] = attrs.field(factory=dict)
    _given_up: bool = False
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("key-use", passing=(Unavailable,)))
    name: str = "key-use"

    def note(self, key_id: int) -> None:
        """The key was used now. Only from the Trio thread; never waits."""
        if not self._given_up:
            self._used[key_id] = self._now()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            while True:
                await trio.sleep(_LOOK_EVERY)
                await self.flush()
        finally:
            await self.give_up()

    async def give_up(self) -> None:
        """Write what is left, within ``_WITHIN`` seconds and not cancellable; nothing is written after that."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _WITHIN):
            await self.flush()
        self._given_up = True
        self._used.clear()

    async def flush(self) -> None:
        """Write the dates that are at least a minute newer than the stored ones. A database that is away is logged."""
        keys = self._store.snapshot.api_keys
        new = {
            key_id: partial(_note, key_id, at)
            for key_id, at in self._used.items()
            if (key := keys.get(key_id)) is not None
            and (key.last_used_at is None or at - key.last_used_at >= _EXACT_TO)
        }
        self._used = {key_id: at for key_id, at in self._used.items() if key_id in keys}
        if not new:
            return

        try:
            await write_rows(self._store, new, self._faults)
        except Unavailable as error:
            log.warning("The last use of API keys waits for the database: keys=%d reason=%s", len(new), error)

    def __repr__(self) -> str:
        return f"<KeyUseLedger: {len(self._used)} keys used>"


def _note(key_id: int, at: datetime, tx: Tx) -> None:
    if tx.get(ApiKey, key_id) is not None:
        tx.change(ApiKey, key_id, last_used_at=at)
