"""Servers that share a database tell each other the loads of the workers that report to them, and rates of models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import attrs
import trio

from gpustack.errors import Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.server.live_status import LiveStatus
from gpustack.server.model_rates import ModelRates
from gpustack.store import load_board
from gpustack.store.load_board import LoadBoard, LoadBoardRow, SharedLoad
from gpustack.store.store import Store

log = logging.getLogger(__name__)

EXCHANGE_EVERY = 15.0


@attrs.define(eq=False, repr=False)
class LoadExchange:
    """Writes what was measured here, and takes what others measured, every ``EXCHANGE_EVERY`` seconds. Does
    nothing while no other server is there."""

    _store: Store
    _live: LiveStatus
    _rates: ModelRates
    _server_uuid: str
    _is_alone: Callable[[], bool]
    _seen: Mapping[str, int] = attrs.field(factory=dict)
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("load-exchange", passing=(Unavailable,)))
    name: str = "load-exchange"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            await trio.sleep(EXCHANGE_EVERY)
            if not self._is_alone():
                with self._faults.row("loads"):
                    await self._exchange()

    async def _exchange(self) -> None:
        """Write and read once. A database that is away is survived: loads are some seconds older then."""
        loads = (
            SharedLoad(worker_id=key, ago=ago, load=load) for key, (load, ago) in self._live.own().items()
        )
        own = LoadBoardRow(tuple(loads), self._rates.own())
        try:
            board: LoadBoard = await self._store.beside(
                lambda conn, dialect: load_board.exchange(conn, dialect, self._server_uuid, own, self._seen)
            )
        except Unavailable as error:
            log.debug("The loads of workers are not exchanged: reason=%s", error)
            return
        self._seen = board.seen
        for one in board.loads:
            self._live.reported_elsewhere(one.worker_id, one.load, one.ago)
        for told in board.rates:
            self._rates.told_by(told.server_uuid, told.rates, told.ago)

    def __repr__(self) -> str:
        return f"<LoadExchange with {len(self._seen)} servers>"
