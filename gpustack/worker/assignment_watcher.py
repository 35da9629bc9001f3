"""What the server wants of this worker now: its instances, their models and its files, kept by watching."""

from __future__ import annotations

import logging
import random
from contextlib import aclosing
from functools import partial

import attrs
import trio

from gpustack.domain.assignment import AssignmentEvent, AssignmentLine, AssignmentState, applied
from gpustack.errors import Forbidden, GpustackError, NotFound, Unauthorized
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import AsyncValue
from gpustack.worker.membership import Member, Membership
from gpustack.worker.race import first_of

log = logging.getLogger(__name__)

_QUIET_FOR = 45.0
"""Seconds without a word (the server says something every 15) after which the watch is taken for dead."""
_RECONNECT = 1.0


@attrs.frozen
class AssignmentSnapshot:
    """The picture as of the server's last word; ``synced`` is false until the first one was complete."""

    picture: AssignmentState = AssignmentState()
    synced: bool = False


@attrs.frozen
class AssignmentWatcher:
    """Keeps ``latest``. A lost connection leaves the last picture standing; engines go on."""

    _membership: Membership
    _rng: random.Random
    latest: AsyncValue[AssignmentSnapshot] = attrs.field(factory=lambda: AsyncValue(AssignmentSnapshot()))
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("watch"))
    _unread: set[tuple[str, int]] = attrs.field(factory=set)
    """Records that could not be read when they were told last."""
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
        """Collect aside until the picture is complete, so that what vanished meanwhile is seen to have vanished.

        After a line that could not be taken in, everything is asked for anew in a while.
        """
        picture, synced = AssignmentState(), False
        again = trio.CancelScope()
        stream = aclosing(self._membership.client.assignments(worker_id, quiet_for=_QUIET_FOR))
        with again:
            async with stream as lines:
                async for line in lines:
                    with self._faults.row((line.kind, line.id)) as trial:
                        self._note(line)
                        picture = applied(picture, line, self.latest.value.picture)
                    if trial.fault is not None:
                        again.deadline = min(again.deadline, trial.fault.again_at)
                    synced = synced or line.word is AssignmentEvent.SYNCED
                    if synced and line.word is not AssignmentEvent.STILL:
                        self.latest.set(AssignmentSnapshot(picture, True))

    def _note(self, line: AssignmentLine) -> None:
        """Log once that a record cannot be read: what is known of it from before holds on."""
        if line.word is not AssignmentEvent.PUT:
            return
        about = (line.kind, line.id)
        if line.instance or line.file or line.model:
            self._unread.discard(about)
        elif about not in self._unread:
            self._unread.add(about)
            log.error(
                "A record that the server told cannot be read here, is this worker older? kind=%s id=%d",
                *about,
            )
