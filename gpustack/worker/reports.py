"""Carries what this worker says of instances and files to the server: in order, and until it arrives."""

from __future__ import annotations

import logging
import random
from collections import deque

import attrs
import trio

from gpustack.domain.artifact import ModelSource
from gpustack.domain.report import FileReport, InstanceReport
from gpustack.errors import BadRequest, Conflict, Forbidden, GpustackError, Invalid, NotFound, Unauthorized
from gpustack.nursery.wake import Wake
from gpustack.worker.membership import Membership

log = logging.getLogger(__name__)

_ROOM = 10_000
_TRY_AGAIN = 1.0


@attrs.frozen
class _OfInstance:
    instance_id: int
    said: InstanceReport


@attrs.frozen
class _OfFile:
    source: ModelSource
    local_dir: str
    said: FileReport


@attrs.frozen
class _OfFileGone:
    file_id: int


_One = _OfInstance | _OfFile | _OfFileGone


@attrs.define(eq=False, repr=False)
class Reports:
    """A queue with one sender. Saying never waits; while the server is away the newest progress replaces older.

    A report the server refuses (the instance is gone or moved, its life does not allow it) is dropped: the watch
    will show what is wanted now.
    """

    _membership: Membership
    _rng: random.Random
    _queue: deque[_One] = attrs.field(factory=deque)
    _wake: Wake = attrs.field(factory=Wake)
    name: str = "reports"

    def instance(self, instance_id: int, said: InstanceReport) -> None:
        """Queue a report of an instance; one of mere progress takes the place of the one before it."""
        last = self._queue[-1] if self._queue else None
        if (
            len(self._queue) > 1  # the head may be on its way
            and isinstance(last, _OfInstance)
            and last.instance_id == instance_id
            and last.said.state is said.state
            and not last.said.gone
        ):
            self._queue[-1] = _OfInstance(instance_id, said.over(last.said))
        else:
            self._add(_OfInstance(instance_id, said))
        self._wake.wake()

    def file(self, source: ModelSource, local_dir: str, said: FileReport) -> None:
        """Queue a report of a source's files; the server's record of them is made if there is none."""
        last = self._queue[-1] if self._queue else None
        if (
            len(self._queue) > 1
            and isinstance(last, _OfFile)
            and (last.source, last.local_dir) == (source, local_dir)
            and last.said.state is said.state
        ):
            self._queue[-1] = _OfFile(source, local_dir, said)
        else:
            self._add(_OfFile(source, local_dir, said))
        self._wake.wake()

    def file_gone(self, file_id: int) -> None:
        """Queue the word that a file has been removed."""
        self._add(_OfFileGone(file_id))
        self._wake.wake()

    def pending_for(self, instance_id: int) -> bool:
        """Whether something about the instance has not arrived yet."""
        return any(isinstance(one, _OfInstance) and one.instance_id == instance_id for one in self._queue)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            while self._queue:
                if await self._deliver(self._queue[0]):
                    self._queue.popleft()
                else:
                    await trio.sleep(_TRY_AGAIN * (0.5 + self._rng.random()))
            await self._wake.wait()

    async def drain(self, within: float) -> None:
        """Wait until all is delivered, ``within`` seconds at most."""
        with trio.move_on_after(within):
            while self._queue:
                await trio.sleep(0.02)

    def _add(self, one: _One) -> None:
        if len(self._queue) >= _ROOM:
            log.error("The server has been away too long, the oldest report is dropped: waiting=%d", _ROOM)
            del self._queue[1]
        self._queue.append(one)

    async def _deliver(self, one: _One) -> bool:
        """Send one; false when it is worth another try."""
        member = await self._membership.joined()
        client = self._membership.client
        try:
            if isinstance(one, _OfInstance):
                await client.report_instance(one.instance_id, one.said)
            elif isinstance(one, _OfFileGone):
                await client.report_file(one.file_id, FileReport(gone=True))
            else:
                file_id = await client.ensure_file(member.worker_id, one.source, one.local_dir)
                await client.report_file(file_id, one.said)
        except Unauthorized:
            self._membership.void()
            return False
        except (NotFound, Forbidden, Conflict, BadRequest, Invalid) as error:
            log.info("The server did not take a report: report=%s reason=%s", one, error)
        except GpustackError as error:
            log.warning("A report waits for the server: waiting=%d reason=%s", len(self._queue), error)
            return False
        return True

    def __repr__(self) -> str:
        return f"<Reports: {len(self._queue)} waiting>"
