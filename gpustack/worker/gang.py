"""What the members of a gang know of each other: read from the server's record, which each worker's stream brings."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from gpustack.domain.instance import MemberStatus, ModelInstance, status_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.engines.engine import Gang, GangMember, GangPlan, StartOrder
from gpustack.nursery.wake import AsyncValue
from gpustack.worker.assignment_watcher import AssignmentSnapshot

_S = InstanceState
LIVE = frozenset({_S.INITIALIZING, _S.DOWNLOADING, _S.STARTING, _S.RUNNING, _S.UNREACHABLE})
"""States of an instance in which its present attempt is under way."""
LAUNCHED = frozenset({_S.STARTING, _S.RUNNING, _S.UNREACHABLE})
"""Those in which its main process was started, and its ports are known."""


@attrs.frozen
class GangRecord:
    """The server's record of one gang, as this worker was told it last, and waits for what it comes to show."""

    _assignments: AsyncValue[AssignmentSnapshot]
    _instance_id: int

    @property
    def now(self) -> ModelInstance | None:
        """The record; ``None`` once it is no longer assigned here."""
        return self._assignments.value.state.instances.get(self._instance_id)

    async def until(
        self, shows: Callable[[ModelInstance], bool], seen: Callable[[ModelInstance], None] | None = None
    ) -> ModelInstance:
        """Wait until the record shows it; ``seen`` is called with each record before. Cancellable."""
        revision = -1
        while True:
            revision, _ = await self._assignments.changed(revision)
            record = self.now
            if record is not None and shows(record):
                return record
            if record is not None and seen is not None:
                seen(record)


@attrs.frozen
class Followers:
    """The followers of one attempt, as their main member sees them."""

    record: GangRecord
    attempt: int
    count: int
    order: StartOrder

    async def until_prepared(self, tell: Callable[[str], None]) -> tuple[GangMember, ...]:
        """Wait until the main process may start: all are ready, or at least have their files and ports where they
        start together with it. ``tell`` is called with a sentence that says who is waited for, when that changes."""
        wanted = {_S.RUNNING} if self.order is StartOrder.FOLLOWERS_FIRST else {_S.STARTING, _S.RUNNING}
        told = ""

        def waits_for(record: ModelInstance) -> str:
            missing = [m for m in self._numbers if self._status(record, m).state not in wanted]
            return ", ".join(self._waiting(record, member) for member in missing)

        def say(record: ModelInstance) -> None:
            nonlocal told
            if (sentence := f"Waiting for {waits_for(record)}") != told:
                told = sentence
                tell(sentence)

        record = await self.record.until(lambda one: not waits_for(one), say)
        placement = record.placement
        return tuple(
            GangMember(
                index=member,
                address=self._status(record, member).address,
                ports=self._status(record, member).ports,
                gpu_indexes=() if placement is None else placement.share(member).gpu_indexes,
            )
            for member in self._numbers
        )

    async def until_failed(self) -> str:
        """Wait until one of this attempt has failed; return the sentence that says which, and why."""
        record = await self.record.until(lambda one: bool(self._failed(one)))
        member = self._failed(record)[0]
        return f"{name_of_member(record, member)}: {self._status(record, member).state_message}"

    @property
    def _numbers(self) -> range:
        return range(1, self.count + 1)

    def _failed(self, record: ModelInstance) -> list[int]:
        return [m for m in self._numbers if self._status(record, m).state is _S.ERROR]

    def _status(self, record: ModelInstance, member: int) -> MemberStatus:
        """What is said of it in this attempt: the record may still be of a former one."""
        return status_of(record, member) if record.attempt == self.attempt else MemberStatus()

    def _waiting(self, record: ModelInstance, member: int) -> str:
        status = self._status(record, member)
        progress = "" if status.download_progress is None else f", {status.download_progress:.0f} %"
        doing = {_S.DOWNLOADING: f"fetches files{progress}", _S.STARTING: "starts"}.get(status.state, "")
        # Its own words say more: it may wait for a port, or install its engine.
        said = status.state_message or doing
        return f"{name_of_member(record, member)}{f' ({said})' if said else ''}"


def gang_of(record: ModelInstance) -> Gang:
    """All members of the record's attempt, as far as they have said where they are reached."""
    placement = record.placement
    assert placement is not None  # only what has a place is assigned
    main = GangMember(index=0, address=record.address, ports=record.ports, gpu_indexes=placement.gpu_indexes)
    followers = []
    for number in range(1, len(placement.subordinates) + 1):
        status = status_of(record, number)
        followers.append(
            GangMember(
                index=number,
                address=status.address,
                ports=status.ports,
                gpu_indexes=placement.share(number).gpu_indexes,
            )
        )
    return Gang(attempt=record.attempt, members=(main, *followers))


def name_of_member(record: ModelInstance, member: int) -> str:
    """The name of a member for users."""
    placement = record.placement
    if placement is None or member > len(placement.subordinates):
        return f"member {member}"
    share = placement.share(member)
    return f"member {member} on worker {share.worker_name or share.worker_id}"


@attrs.define
class AttemptWatch:
    """Whether one attempt is over, as a follower sees it in the record."""

    attempt: int
    _launched: bool = False
    """Whether its main process was seen started."""

    def is_over(self, record: ModelInstance) -> bool:
        """Whether the main member failed, began anew, or was started and is no more."""
        if record.attempt != self.attempt or record.state not in LIVE:
            return True
        if record.state in LAUNCHED:
            self._launched = True
            return False
        return self._launched

    def may_join(self, record: ModelInstance, plan: GangPlan) -> bool:
        """Whether a follower that starts together with the main process may start now."""
        if plan.order is StartOrder.FOLLOWERS_FIRST:
            return True
        return (
            record.attempt == self.attempt
            and record.state in LAUNCHED
            and len(record.ports) > plan.main_ports
        )
