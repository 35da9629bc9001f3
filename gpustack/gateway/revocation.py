"""Ends answers that are under way when the right to them is taken away."""

from __future__ import annotations

import logging

import attrs
import trio

from gpustack.domain.snapshot import Snapshot
from gpustack.gateway.inference import Gateway
from gpustack.nursery.quarantine import Quarantine
from gpustack.store.store import Store

log = logging.getLogger(__name__)

_TABLES = frozenset({"users", "api_keys", "sessions", "models"})


@attrs.frozen(eq=False, repr=False)
class Revocation:
    """Looks at what is under way whenever somebody's rights may have changed: an account or key was disabled, deleted
    or changed, a login ended, a model is for others now.
    """

    _store: Store
    _gateway: Gateway
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("revocation"))
    name: str = "revocation"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._store.watch(_TABLES) as wake:
            task_status.started()
            while True:
                await wake.wait()
                self._look(self._store.snapshot)

    def _look(self, snapshot: Snapshot) -> None:
        if cut := self._gateway.shut_out(snapshot, self._faults):
            log.info("Cut off requests of who may not go on with them: requests=%d", cut)

    def __repr__(self) -> str:
        return "<Revocation>"
