"""When each API key was used last, as far as somebody wonders whether it still is."""

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
"""Younger dates are not renewed: each write makes everybody's keys be looked at anew."""
_WITHIN = 2.0
"""Seconds a write may take before we go on without knowing its end."""


@attrs.define(eq=False, repr=False)
class KeyUseLedger:
    """Owns the dates not yet stored. Noting one costs a dictionary entry; they are written together, each at most once
    a minute. A daemon that is killed forgets the last few seconds.
    """

    _store: Store
    _now: Callable[[], datetime]
    _used: dict[int, datetime] = attrs.field(factory=dict)
    _given_up: bool = False
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("key-use", passing=(Unavailable,)))
    name: str = "key-use"

    def note(self, key_id: int) -> None:
        """The key has just let somebody in. Only from the Trio thread; never waits."""
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
        """Write what is left, as far as the store takes it at once: then nothing is written here any more."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _WITHIN):
            await self.flush()
        self._given_up = True
        self._used.clear()

    async def flush(self) -> None:
        """Write what is new enough to be worth it; if the database is away it waits for the next time."""
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
        return f"<KeyUse: {len(self._used)} keys used>"


def _note(key_id: int, at: datetime, tx: Tx) -> None:
    if tx.get(ApiKey, key_id) is not None:
        tx.change(ApiKey, key_id, last_used_at=at)
