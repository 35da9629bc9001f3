"""What the server wants of this worker now: its instances and files, kept by watching."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import TypeVar

import attrs
import trio

from gpustack.domain.artifact import ModelFile
from gpustack.domain.instance import ModelInstance
from gpustack.domain.record import Record
from gpustack.errors import GpustackError
from gpustack.nursery.wake import Latest
from gpustack.remote.server_client import Watched
from gpustack.worker.membership import Membership

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

_QUIET_FOR = 45.0
"""Seconds without a word (the server says something every 15) after which the watch is taken for dead."""
_RECONNECT = 2.0


@attrs.frozen
class Assigned:
    """A whole picture, as of the last word of the server. ``synced`` is false until the first one is complete."""

    instances: Mapping[int, ModelInstance] = attrs.field(factory=dict)
    files: Mapping[int, ModelFile] = attrs.field(factory=dict)
    instances_synced: bool = False
    files_synced: bool = False


@attrs.frozen
class Assignments:
    """Two watches that keep ``latest``; lost connections leave the last picture standing."""

    _membership: Membership
    _rng: random.Random
    latest: Latest[Assigned] = attrs.field(factory=lambda: Latest(Assigned()))
    name: str = "watch"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, ModelInstance, "instances", name="watch:instances")
            nursery.start_soon(self._follow, ModelFile, "files", name="watch:files")

    async def _follow(self, cls: type[R], field: str) -> None:
        while True:
            membership = await self._membership.joined()
            try:
                await self._watch_once(cls, field, membership.worker_id)
            except GpustackError as error:
                log.warning("The watch of %s broke, watching again: reason=%s", field, error)
            await trio.sleep(_RECONNECT * (0.5 + self._rng.random()))

    async def _watch_once(self, cls: type[R], field: str, worker_id: int) -> None:
        """Collect the replay aside until it is complete, so that what vanished meanwhile is seen to have vanished."""
        client = self._membership.client
        seen: dict[int, R] = {}
        synced = False
        async with client.watch(cls, worker_id=worker_id, quiet_for=_QUIET_FOR) as events:
            async for event in events:
                synced = _apply(seen, event) or synced
                if synced:
                    self._publish(field, dict(seen))

    def _publish(self, field: str, picture: Mapping[int, Record]) -> None:
        now = attrs.evolve(self.latest.value, **{field: picture, f"{field}_synced": True})
        self.latest.set(now)


def _apply(seen: dict[int, R], event: Watched[R]) -> bool:
    """Take one event in; true for the mark that the replay is complete."""
    if event.record is None:
        return True
    if event.deleted:
        seen.pop(event.record.id, None)
    else:
        seen[event.record.id] = event.record
    return False
