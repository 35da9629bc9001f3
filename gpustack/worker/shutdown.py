"""How a worker stops: whether its engines end with the daemon, and whether it is emptied before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from gpustack.worker.assignment_watcher import AssignmentWatcher
    from gpustack.worker.membership import Membership

log = logging.getLogger(__name__)


@attrs.define
class ShutdownMode:
    """Only a plain stop sets ``ends_engines``: engines outlive a crash, a watchdog kill and a hand-over."""

    ends_engines: bool = False


async def drain_worker(membership: Membership, assignments: AssignmentWatcher, within: float) -> None:
    """Have the server start elsewhere what runs here, and wait until nothing is assigned to this worker any more.

    Returns after ``within`` seconds at the latest, and at once if the server does not take it up. Cancellable.
    """
    if not await membership.request_drain():
        return
    requested_as = membership.member
    log.info("Leaving: what runs here is started elsewhere first, for %g s at most", within)
    left: list[str] = []
    with trio.move_on_after(within):
        revision = -1
        while True:
            revision, assigned = await assignments.latest.changed(revision)
            # It has joined again, as a worker that does not drain.
            if membership.member not in (requested_as, None):
                requested_as = membership.member
                await membership.request_drain()
            there = sorted(instance.name for instance in assigned.state.instances.values())
            if assigned.synced and not there:
                log.info("Nothing runs here any more")
                return
            if there != left:
                log.info("Still here: %s", ", ".join(there))
                left = there
    log.warning(
        "Not all found a place elsewhere in time, and end here now (gpustack ps says what the others wait for): %s",
        ", ".join(left),
    )
