"""Empties this worker before it stops: what runs here is started elsewhere first, and ends here then."""

from __future__ import annotations

import logging

import trio

from gpustack.worker.assignment_watcher import AssignmentWatcher
from gpustack.worker.membership import Membership

log = logging.getLogger(__name__)


async def drain_worker(membership: Membership, assignments: AssignmentWatcher, within: float) -> None:
    """Return once the server has nothing assigned to this worker any more, after ``within`` seconds at the latest."""
    if not await membership.ask_to_be_emptied():
        return
    asked_as = membership.member
    log.info("Leaving: what runs here is started elsewhere first, for %g s at most", within)
    left: list[str] = []
    with trio.move_on_after(within):
        revision = -1
        while True:
            revision, assigned = await assignments.latest.changed(revision)
            if membership.member not in (asked_as, None):  # it has joined anew, which begins afresh
                asked_as = membership.member
                await membership.ask_to_be_emptied()
            there = sorted(instance.name for instance in assigned.picture.instances.values())
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
