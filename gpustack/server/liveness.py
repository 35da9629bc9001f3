"""Judges workers by when they were last heard, and gives up the places of instances on those that stay silent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial

import attrs
import trio

from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import CUT_OFF, RECONNECT, REPLACE, InstanceState
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Condition, Worker, WorkerState, WorkerStatus
from gpustack.errors import Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.liveness import LivenessSettings, LivenessVerdict, judge_all, next_look
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.lifecycle import give_up_place, make_move
from gpustack.server.row_write import write_rows
from gpustack.store.fenced_store import RecordStore
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_Row = Callable[[Tx], ModelInstance | None]
"""A write of one worker or instance; returns the instance if it was moved."""
_AT_ONCE = 256
"""Rows in one transaction."""
_LONGEST_REASON = 1000
"""Characters of the reason of a condition."""
_WORSE = {WorkerState.READY: 0, WorkerState.NOT_READY: 1, WorkerState.UNREACHABLE: 2}


@attrs.frozen
class Liveness:
    """Looks every ``look_every`` seconds, and when the time of a silent worker is over. A condition is written only
    when it changes, with its date and reason; the places of all that ran on it are given up in that same look."""

    _store: RecordStore
    _heartbeats: HeartbeatTimes
    _settings: LivenessSettings
    _clock: Callable[[], float]
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("liveness", passing=(Unavailable,)))
    _looks: Quarantine = attrs.field(factory=lambda: Quarantine("liveness' look"))
    name: str = "liveness"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        workers = self._store.snapshot.workers
        self._heartbeats.of(workers)
        task_status.started()
        before: Mapping[int, LivenessVerdict] = {}
        while True:
            snapshot = self._store.snapshot
            known, workers = workers, snapshot.workers
            for worker_id in _heard_by_record(known, workers):
                self._heartbeats.heard_elsewhere(worker_id, 0.0)
            last_heard, now = self._heartbeats.of(workers), self._clock()
            stopped = {key for key, worker in workers.items() if worker.leaving}
            verdicts = judge_all(last_heard, now, self._settings, stopped)
            silence = {worker_id: now - heard for worker_id, heard in last_heard.items()}
            try:
                await self._apply(verdicts, before, snapshot)
                await self._mark(verdicts, silence, snapshot)
                before = verdicts
            except Unavailable as error:
                log.warning("The conditions of workers wait for the database: reason=%s", error)
            # Counted from when these were judged: the time of others may have ended while the writes took theirs.
            due = now + next_look(last_heard, now, self._settings, stopped)
            await trio.sleep(max(0.0, due - self._clock()))

    async def _apply(
        self,
        verdicts: Mapping[int, LivenessVerdict],
        before: Mapping[int, LivenessVerdict],
        snapshot: Snapshot,
    ) -> None:
        news: dict[int, LivenessVerdict] = {}
        for worker_id, verdict in verdicts.items():
            with self._looks.row(worker_id):
                if self._is_to_write(snapshot.get(Worker, worker_id), verdict, before.get(worker_id)):
                    news[worker_id] = verdict
        lost = frozenset(worker_id for worker_id, verdict in verdicts.items() if verdict.replace)
        rows: dict[object, _Row] = {
            ("worker", key): partial(_write_condition, key, verdict, snapshot)
            for key, verdict in news.items()
        }
        going = _to_give_up(snapshot, lost)
        rows.update({key: partial(_give_up, key, lost, snapshot) for key in going})
        done = await self._written(rows)
        for worker_id, verdict in news.items():
            if ("worker", worker_id) in done:
                _log_condition(snapshot.workers[worker_id], verdict)
        for instance in filter(None, done.values()):
            why = _reason_for_moving(instance, snapshot)
            log.warning("Gave up an instance's place: instance=%s reason=%s", instance.name, why)

    async def _mark(
        self, verdicts: Mapping[int, LivenessVerdict], silence: Mapping[int, float], snapshot: Snapshot
    ) -> None:
        """Mark what runs on silent workers unreachable, and running again once all its workers are heard."""
        lost = {key for key, verdict in verdicts.items() if verdict.silent}
        heard = {
            key
            for key, verdict in verdicts.items()
            if verdict.state is WorkerState.READY and self._heartbeats.has_spoken(key)
        }
        marked: list[int] = []
        for instance in snapshot.instances.values():
            with self._looks.row(("instance", instance.id)):
                if _is_cut_off(instance, lost) or _is_back(instance, heard, snapshot):
                    marked.append(instance.id)
        rows: dict[object, _Row] = {
            key: partial(_mark_one, key, lost, heard, silence, snapshot) for key in marked
        }
        moved = await self._written(rows)
        for instance in filter(None, moved.values()):
            level = logging.INFO if instance.state is InstanceState.RUNNING else logging.WARNING
            log.log(
                level,
                "An instance is %s: instance=%s reason=%s",
                instance.state.value,
                instance.name,
                instance.state_message or "its worker is heard again",
            )

    async def _written(self, rows: Mapping[object, _Row]) -> dict[object, ModelInstance | None]:
        """What each row returns, as ``write_rows``, in transactions that keep others waiting for a moment only."""
        done: dict[object, ModelInstance | None] = {}
        keys = list(rows)
        for first in range(0, len(keys), _AT_ONCE):
            some = {key: rows[key] for key in keys[first : first + _AT_ONCE]}
            done.update(await write_rows(self._store, some, self._faults))
        return done

    def _is_to_write(
        self, worker: Worker | None, verdict: LivenessVerdict, before: LivenessVerdict | None
    ) -> bool:
        """Whether the condition of the worker is to be written."""
        if worker is None or worker.barred:  # the condition is an administrator's
            return False
        state = worker.condition.state
        if state is verdict.state:
            # Only whether its instances are given up has changed: the reason says so.
            return before is not None and before.state is state and before.replace is not verdict.replace
        # That this server has just begun to judge is no sign of life: only a request of the worker is.
        return self._heartbeats.has_spoken(worker.id) or _WORSE[verdict.state] > _WORSE[state]


def _write_condition(worker_id: int, verdict: LivenessVerdict, seen: Snapshot, tx: Tx) -> None:
    worker = tx.get(Worker, worker_id)
    # It may have spoken to another server in the meantime: then the verdict does not hold.
    if worker is not None and _is_as_seen(tx, worker_id, seen):
        tx.update(attrs.evolve(worker, condition=_condition(worker, verdict, tx)))


def _give_up(instance_id: int, lost: frozenset[int], seen: Snapshot, tx: Tx) -> ModelInstance | None:
    instance = tx.get(ModelInstance, instance_id)
    if instance is None or not any(_is_as_seen(tx, key, seen) for key in workers_of(instance) & lost):
        return None
    give_up_place(tx, instance, REPLACE, _reason_for_moving(instance, seen))
    return instance


def _mark_one(
    instance_id: int,
    lost: set[int],
    heard: set[int],
    silence: Mapping[int, float],
    seen: Snapshot,
    tx: Tx,
) -> ModelInstance | None:
    instance = tx.get(ModelInstance, instance_id)
    if instance is None:
        return None
    still = {key for key in workers_of(instance) if _is_as_seen(tx, key, seen)}
    if _is_cut_off(instance, lost & still):
        return _cut_off(tx, instance, lost & still, silence)
    if _is_back(instance, heard & still, tx.snapshot):
        note = "" if instance.placement is None else instance.placement.note
        return make_move(tx, instance, RECONNECT, note)
    return None


def _is_as_seen(tx: Tx, worker_id: int, seen: Snapshot) -> bool:
    """Whether the worker has written nothing since the snapshot."""
    return _spoken_fields(tx.get(Worker, worker_id)) == _spoken_fields(seen.get(Worker, worker_id))


def _heard_by_record(known: Mapping[int, Worker], workers: Mapping[int, Worker]) -> list[int]:
    """Workers whose record shows that they spoke to any server since the last look.

    A worker without a credential cannot have spoken: an administrator has voided it.
    """
    if known is workers:
        return []
    return [
        key
        for key, worker in workers.items()
        if worker.credential_hash and key in known and _spoken_fields(worker) != _spoken_fields(known[key])
    ]


def _spoken_fields(worker: Worker | None) -> object:
    """Fields of the record that change when a worker joins, leaves, or reports a new status."""
    return None if worker is None else (worker.heartbeat_time, worker.credential_hash, worker.leaving)


def _is_cut_off(instance: ModelInstance, lost: set[int]) -> bool:
    is_said_to_run = instance.state is InstanceState.RUNNING and instance.deleted_at is None
    return is_said_to_run and not lost.isdisjoint(workers_of(instance))


def _is_back(instance: ModelInstance, heard: set[int], snapshot: Snapshot) -> bool:
    """Whether all its workers are heard again as the same daemons. One that has joined since reports what runs."""
    if instance.state is not InstanceState.UNREACHABLE or not workers_of(instance) <= heard:
        return False
    return not any(
        _joined_since(snapshot.workers.get(key), instance.state_since) for key in workers_of(instance)
    )


def _joined_since(worker: Worker | None, instant: datetime | None) -> bool:
    joined = None if worker is None else worker.credential_since
    return joined is not None and instant is not None and joined > instant


def _cut_off(tx: Tx, instance: ModelInstance, lost: set[int], silence: Mapping[int, float]) -> ModelInstance:
    worker_id = min(workers_of(instance) & lost)
    worker, since = tx.get(Worker, worker_id), tx.now - timedelta(seconds=silence[worker_id])
    name = worker_id if worker is None else worker.name
    message = f"Worker {name} has not been heard since {since:%Y-%m-%d %H:%M:%S} UTC"
    return make_move(tx, instance, CUT_OFF, message)


def _to_give_up(snapshot: Snapshot, lost: frozenset[int]) -> list[int]:
    """Ids of the instances on lost workers to give up: all, but for those of workers that were stopped in order while
    no worker takes instances."""
    if not lost:
        return []
    there = [i for i in snapshot.instances.values() if workers_of(i) & lost]
    if any(_takes_instances(worker) for worker in snapshot.workers.values()):
        return [i.id for i in there]
    # Their own worker may come back, with the files.
    return [i.id for i in there if i.deleted_at is not None or not _is_of_stopped(i, snapshot)]


def _is_of_stopped(instance: ModelInstance, snapshot: Snapshot) -> bool:
    workers = [snapshot.workers[key] for key in workers_of(instance) if key in snapshot.workers]
    return any(worker.leaving for worker in workers)


def _takes_instances(worker: Worker) -> bool:
    return worker.condition.state is WorkerState.READY and worker.takes_instances and not worker.leaving


def _reason_for_moving(instance: ModelInstance, snapshot: Snapshot) -> str:
    what = "was stopped" if _is_of_stopped(instance, snapshot) else "has been silent too long"
    whose = "Its worker" if len(workers_of(instance)) < 2 else "One of its workers"
    return f"{whose} {what}; looking for another place"


def _condition(worker: Worker, verdict: LivenessVerdict, tx: Tx) -> Condition:
    if verdict.state is WorkerState.READY:
        return ready_condition(worker.condition, worker.status, tx.now)
    return with_reason(worker.condition, verdict.state, verdict.why, tx.now)


def _log_condition(worker: Worker, verdict: LivenessVerdict) -> None:
    level = logging.INFO if verdict.state is WorkerState.READY else logging.WARNING
    reason = verdict.why or "heard again"
    log.log(level, "Worker is %s: worker=%s reason=%s", verdict.state.value, worker.name, reason)


def ready_condition(before: Condition | None, status: WorkerStatus, now: datetime) -> Condition:
    """Ready, since it last became so. Faults of hardware detection are its reason and do not make it unready: what was
    measured holds, and a detector that fails once must not move instances.
    """
    since = before.since if before is not None and before.state is WorkerState.READY else now
    return Condition(
        state=WorkerState.READY, since=since, why="; ".join(status.detection_faults)[:_LONGEST_REASON]
    )


def condition_after_status(before: Condition, status: WorkerStatus, now: datetime) -> Condition:
    """The condition after a new status, which renews the reason of a ready worker and makes no other one ready."""
    return ready_condition(before, status, now) if before.state is WorkerState.READY else before


def with_reason(before: Condition, state: WorkerState, why: str, now: datetime) -> Condition:
    """The state with a reason; ``since`` stays while the state is the same."""
    if before.state is state:
        return attrs.evolve(before, why=why)
    return Condition(state=state, since=now, why=why)
