"""Judges workers by when they were last heard, and moves their instances elsewhere only after a long grace."""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.worker import Condition, Worker
from gpustack.policy.liveness import LivenessSettings, Verdict, expire
from gpustack.server.leases import Leases
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)


@attrs.frozen
class Liveness:
    """Looks every few seconds; a condition is written only when it changes, with its date and reason."""

    _store: Store
    _leases: Leases
    _settings: LivenessSettings
    _clock: Callable[[], float]
    name: str = "liveness"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self._leases.start_full(self._store.snapshot.workers)
        task_status.started()
        while True:
            verdicts = expire(self._leases.all(), self._clock(), self._settings)
            await self._apply(verdicts)
            await trio.sleep(self._settings.look_every)

    async def _apply(self, verdicts: dict[int, Verdict]) -> None:
        snapshot = self._store.snapshot
        changed = {
            worker_id: verdict
            for worker_id, verdict in verdicts.items()
            if (worker := snapshot.get(Worker, worker_id)) is not None
            and worker.condition.state is not verdict.state
        }
        lost = {worker_id for worker_id, verdict in verdicts.items() if verdict.replace}
        # One at a time: a worker that comes back in the meantime keeps what has not been moved yet.
        moving = next((i for i in snapshot.instances.values() if i.worker_id in lost), None)
        if not changed and moving is None:
            return

        def work(tx: Tx) -> None:
            for worker_id, verdict in changed.items():
                if tx.get(Worker, worker_id) is not None:
                    condition = Condition(state=verdict.state, since=tx.now, why=verdict.why)
                    tx.change(Worker, worker_id, condition=condition)
            if moving is not None:
                _give_up_place(tx, moving.id)

        await self._store.write(work)
        for worker_id, verdict in changed.items():
            worker = snapshot.workers[worker_id]
            log.warning(
                "Worker is %s: worker=%s reason=%s",
                verdict.state.value,
                worker.name,
                verdict.why or "heard again",
            )


def _give_up_place(tx: Tx, instance_id: int) -> None:
    instance = tx.get(ModelInstance, instance_id)
    if instance is None or instance.placement is None:
        return
    if instance.deleted_at is not None:
        tx.delete(ModelInstance, instance_id)
        return
    log.warning("Moving an instance off a lost worker: instance=%s", instance.name)
    tx.move(
        instance,
        InstanceState.PENDING,
        by=Party.LIVENESS,
        message="Its worker has been silent too long; looking for another place",
        placement=None,
        pid=None,
        port=None,
        ports=(),
        download_progress=None,
        resolved_path=None,
        next_retry_at=None,
    )
