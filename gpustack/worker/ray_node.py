"""Passes on to this machine's Ray what the server says of its head."""

from __future__ import annotations

import attrs
import trio

from gpustack.domain.ray import RayHead
from gpustack.ray.machine import RayMachine, ToldHead
from gpustack.worker.assignment_watcher import AssignmentWatcher


@attrs.frozen
class RayNode:
    """A service. While the server cannot be reached, what it said last stays."""

    _assignments: AssignmentWatcher
    _machine: RayMachine
    name: str = "ray-node"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        revision = -1
        while True:
            revision, assigned = await self._assignments.latest.changed(revision)
            if not assigned.synced:
                continue
            heads: list[RayHead] = list(assigned.state.ray_heads.values())
            told = ToldHead(heads[-1] if heads else None)
            if self._machine.told.value != told:
                self._machine.told.set(told)
