"""Keeps what the server wants of this worker (its instances, their models, its files) by watching a stream."""

from __future__ import annotations

import logging
import math
import random
from contextlib import aclosing
from functools import partial

import attrs
import trio

from gpustack.domain.assignment import AssignmentEvent, AssignmentLine, AssignmentState, applied
from gpustack.errors import Forbidden, GpustackError, NotFound, Unauthorized
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import AsyncValue, first_of
from gpustack.worker.membership import Member, Membership

log = logging.getLogger(__name__)

_SILENT_FOR = 45.0
"""Seconds without a line (the server sends one every 15) after which the stream is taken for dead."""
_RECONNECT = 1.0


@attrs.frozen
class AssignmentSnapshot:
    """The assignments as of the server's last line. ``synced`` is false until the server has told all of them once."""

    state: AssignmentState = AssignmentState()
    synced: bool = False
    worker_id: int = 0
    """Whose assignments they are; a worker that joins anew may get another id."""


@attrs.define(eq=False, repr=False)
class AssignmentWatcher:
    """A service that keeps ``latest``. When the connection is lost, the last snapshot stays and engines go on."""

    _membership: Membership
    _rng: random.Random
    latest: AsyncValue[AssignmentSnapshot] = attrs.field(factory=lambda: AsyncValue(AssignmentSnapshot()))
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("watch"))
    _unreadable: set[tuple[str, int]] = attrs.field(factory=set)
    """Kind and id of records that could not be read when they were told last."""
    heard_at: float = -math.inf
    """When the server sent a line last, by Trio's clock."""
    name: str = "watch"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            member = await self._membership.joined()
            await first_of(
                partial(self._watch, member),
                partial(self._membership.left, member),
                self._membership.client.turned,
            )
            await trio.sleep(_RECONNECT * (0.5 + self._rng.random()))

    async def _watch(self, member: Member) -> None:
        with self._faults.row("stream"):
            try:
                await self._follow(member.worker_id)
            except (Unauthorized, Forbidden, NotFound):
                self._membership.void(member)
            except GpustackError as error:
                log.warning("The watch broke, watching again: reason=%s", error)

    async def _follow(self, worker_id: int) -> None:
        """Read one stream to its end.

        Its lines are collected aside until they are complete: what is not among them then does not exist any more.
        After a line that could not be applied, the stream is ended when that row may be tried again.
        """
        state, synced = AssignmentState(), False
        retry = trio.CancelScope()
        stream = aclosing(self._membership.client.assignments(worker_id, quiet_for=_SILENT_FOR))
        with retry:
            async with stream as lines:
                async for line in lines:
                    self.heard_at = trio.current_time()
                    with self._faults.row((line.kind, line.id)) as attempt:
                        self._note_unreadable(line)
                        state = applied(state, line, self.latest.value.state)
                    if attempt.fault is not None:
                        retry.deadline = min(retry.deadline, attempt.fault.again_at)
                    synced = synced or line.word is AssignmentEvent.SYNCED
                    if synced and line.word is not AssignmentEvent.STILL:
                        self.latest.set(AssignmentSnapshot(state, True, worker_id))

    def _note_unreadable(self, line: AssignmentLine) -> None:
        """Log once that a record cannot be read. What is known of it from before stays: see ``applied``."""
        if line.word is not AssignmentEvent.PUT:
            return
        about = (line.kind, line.id)
        if line.instance or line.file or line.model or line.ray_head:
            self._unreadable.discard(about)
        elif about not in self._unreadable:
            self._unreadable.add(about)
            log.error(
                "A record that the server told cannot be read here, is this worker older? kind=%s id=%d",
                *about,
            )
