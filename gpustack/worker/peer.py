"""Other workers as sources of model files: who they are, and their bytes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.peer import EMPTY_PAUSE, FAULT_PAUSE, UNREACHABLE_PAUSE, PeerFault
from gpustack.domain.artifact import ModelSource
from gpustack.domain.report import FileHolder
from gpustack.errors import GpustackError
from gpustack.http1.pool import ConnectionPool
from gpustack.remote.http import RemoteError
from gpustack.remote.pooled_client import PooledClient
from gpustack.worker.file_server import PREFIX, WAITING
from gpustack.worker.membership import Membership

log = logging.getLogger(__name__)

_ASK_WITHIN = 5.0
"""Seconds in which the server must say who has the files; then the hub is asked for all of them."""
_PATIENCE = 20.0
"""Seconds that a worker may be silent. It waits half as long for bytes that are still on their way to it."""
_NOT_NOW = frozenset({425, 503})


@attrs.frozen(repr=False)
class WorkerPeer:
    """A worker that serves its model files (``worker/file_server.py``)."""

    name: str
    _client: PooledClient
    _ticket: str
    _fetching: bool = False
    """It may still have to begin."""

    @asynccontextmanager
    async def open_range(self, file: RemoteFile, start: int, end: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """As ``FilePeer``."""
        headers = {"authorization": f"Bearer {self._ticket}", "range": f"bytes={start}-{end - 1}"}
        path, answered = f"{PREFIX}{file.sha256}{WAITING if self._fetching else ''}", False
        try:
            async with self._client.stream("GET", path, headers=headers, timeout=_PATIENCE) as answer:
                answered = True
                if answer.status != 206:
                    pause = EMPTY_PAUSE if answer.status in _NOT_NOW else FAULT_PAUSE
                    raise PeerFault(f"it answered {answer.status}", pause=pause)
                yield answer.pieces()
        except RemoteError as error:
            if answered:
                raise PeerFault(error.fault) from error
            raise PeerFault(error.fault, pause=UNREACHABLE_PAUSE, everything=True) from error

    def __repr__(self) -> str:
        return f"<WorkerPeer {self.name}>"


@attrs.frozen(repr=False)
class PeerFinder:
    """Asks the server which workers have the files of a source."""

    _membership: Membership
    _pool: ConnectionPool

    async def find(self, source: ModelSource, local_dir: str) -> Sequence[WorkerPeer]:
        """The workers to ask for files of ``source``, the best first; none when the server does not say so in time.

        Names this worker's own record first, so that of two that begin at the same time one asks the other.
        """
        member = self._membership.member
        if member is None:
            return ()
        with trio.move_on_after(_ASK_WITHIN):
            try:
                record = await self._membership.client.ensure_file(
                    member.worker_id, source, local_dir, holders=True
                )
            except GpustackError as error:
                log.info("The server does not say which workers have files: reason=%s", error)
                return ()
            return [self._peer(holder) for holder in record.holders]
        return ()

    def _peer(self, holder: FileHolder) -> WorkerPeer:
        host = f"[{holder.host}]" if ":" in holder.host else holder.host
        client = PooledClient.to(f"http://{host}:{holder.port}", self._pool)
        return WorkerPeer(holder.name, client, holder.ticket, holder.fetching)

    def __repr__(self) -> str:
        return "<PeerFinder>"
