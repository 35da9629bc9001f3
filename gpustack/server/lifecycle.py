"""The writes of an instance's state: whoever moves an instance or ends it does so by these functions.

Which moves there are, and whose they are: ``domain/lifecycle.py``. A test reads the code for writes beside these.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import Move, Party
from gpustack.domain.worker import Worker
from gpustack.store.transaction import Tx


def make_move(tx: Tx, instance: ModelInstance, move: Move, message: str = "", **fields: Any) -> ModelInstance:
    """A move of the scheduler, of liveness or of a user: ``instance``, as it was read, comes to the target of ``move``
    with a message and further fields. One that is there already gets the message and the fields.

    Raises ``Conflict`` when its state is none of the sources of the move, or it was changed since it was read.
    """
    return tx.move(instance, move.target, by=move.by, message=message, **fields)


def take_report(tx: Tx, instance: ModelInstance, fields: dict[str, Any]) -> None:
    """A move of the worker, or news within a state: write the fields that it reports.

    Raises ``Conflict`` when the table has no such move of a worker.
    """
    tx.change(ModelInstance, instance.id, by=Party.WORKER, **fields)


def give_up_place(tx: Tx, instance: ModelInstance, move: Move, why: str) -> None:
    """Free what it claims where it no longer may be: by ``move`` (``REPLACE`` or ``EVICT``) it waits for another place.

    One that was being ended is deleted.
    """
    if instance.deleted_at is not None:
        tx.delete(instance)
        return
    make_move(
        tx,
        instance,
        move,
        why,
        placement=None,
        pid=None,
        port=None,
        ports=(),
        address="",
        members=(),
        download_progress=None,
        resolved_path=None,
        memory=None,
        next_retry_at=None,
    )


def end_instance(tx: Tx, instance: ModelInstance) -> None:
    """Ask for its end (shown as ``ending``): the record is deleted when its worker says that the engine has ended.

    One without a place is deleted at once, and so is one whose workers are gone or were stopped in order: its processes
    ended with them, and what might be left a worker ends when it is back.
    """
    if not _awaited(tx, instance, ()):
        tx.delete(ModelInstance, instance.id)
    elif instance.deleted_at is None:
        tx.change(ModelInstance, instance.id, deleted_at=tx.now)


def make_room(tx: Tx, instance: ModelInstance, by: str) -> None:
    """Ask for its end, so that an instance of ``by``, a model with its priority, gets its place."""
    tx.change(ModelInstance, instance.id, displaced_by=by, state_message=f"Makes room for {by}")
    end_instance(tx, instance)


def take_end(tx: Tx, instance: ModelInstance, member: int) -> None:
    """A worker says that no process of a member is left: the record is deleted once that is so of all members.

    An instance that is not to end stays: the worker only did not find its engine, and starts it.
    """
    if instance.deleted_at is None:
        return
    ended = tuple(sorted({*instance.ended, member}))
    if _awaited(tx, instance, ended):
        tx.change(ModelInstance, instance.id, ended=ended)
    else:
        tx.delete(ModelInstance, instance.id)


def _awaited(tx: Tx, instance: ModelInstance, ended: Collection[int]) -> bool:
    """Whether a process may be left that its worker is there to end."""
    placement = instance.placement
    if placement is None:
        return False
    for member in range(1 + len(placement.subordinates)):
        worker = tx.get(Worker, placement.share(member).worker_id)
        if member not in ended and worker is not None and not worker.leaving:
            return True
    return False
