"""A worker's own credential: given when it joins, replaced from time to time, voided by an administrator."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

import attrs

from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import EVICT
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.keys import worker_key
from gpustack.server.lifecycle import give_up_place
from gpustack.server.row_write import existing
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

LIFETIME = timedelta(days=1)
AGAIN_AFTER = timedelta(hours=1)
"""How long a worker may show its former credential before it is given another new one: the answer was lost, or it
cannot store it. Each new one is a write and ends the worker's streams."""
_BARRED = "barred by an administrator"


class CredentialAction(Enum):
    """What to do after a worker has shown a good credential."""

    NOTHING = auto()
    CONFIRM = auto()
    """It is the new one, so the worker has it: void the former."""
    REPLACE = auto()


def next_action(
    worker: Worker, shown: str, now: datetime, lifetime: timedelta = LIFETIME
) -> CredentialAction:
    """What to do after the worker has shown the credential with the hash ``shown``, which is good."""
    is_new = shown == worker.credential_hash
    if is_new and worker.former_credential_hash is not None:
        return CredentialAction.CONFIRM
    if worker.credential_since is None:
        return CredentialAction.NOTHING  # a worker of a former version would not keep another
    due = now - worker.credential_since >= (lifetime if is_new else AGAIN_AFTER)
    return CredentialAction.REPLACE if due else CredentialAction.NOTHING


def confirmed(worker: Worker, shown: str | None) -> Worker:
    """The record after the worker has shown its new credential, which voids the former; else the very same."""
    if worker.former_credential_hash is None or shown != worker.credential_hash:
        return worker
    return attrs.evolve(worker, former_credential_hash=None)


def is_at_rest(worker: Worker, now: datetime, lifetime: timedelta = LIFETIME) -> bool:
    """Whether there is nothing to do, whichever good credential the worker has shown."""
    since = worker.credential_since
    return worker.former_credential_hash is None and (since is None or now - since < lifetime)


async def renew_credential(
    store: Store,
    worker_id: int,
    shown: str,
    *,
    keys: DerivedKeys,
    secret: Callable[[], str],
    lifetime: timedelta,
) -> str | None:
    """A new credential if the present one is due to be replaced, else ``None``. The former stays good until the new one
    is shown.

    ``shown`` is the hash of the credential that the worker showed. Raises ``Unavailable``.
    """
    own = secret()

    def work(tx: Tx) -> str | None:
        worker = tx.get(Worker, worker_id)
        if worker is None or worker.barred or shown not in valid_hashes(worker):
            return None  # replaced meanwhile, by another server or in another way
        match next_action(worker, shown, tx.now, lifetime):
            case CredentialAction.CONFIRM:
                tx.update(confirmed(worker, shown))
            case CredentialAction.REPLACE:
                new: dict[str, Any] = {"credential_hash": keys.worker_hash(own), "credential_since": tx.now}
                tx.update(attrs.evolve(worker, former_credential_hash=shown, **new))
                return worker_key(worker_id, own)
            case CredentialAction.NOTHING:
                pass
        return None

    return await store.write(work)


def valid_hashes(worker: Worker) -> tuple[str, ...]:
    """The hashes of the credentials that are good for the worker."""
    hashes = (worker.credential_hash, worker.former_credential_hash)
    return () if worker.barred else tuple(one for one in hashes if one)


def is_held(worker: Worker, keys: DerivedKeys) -> bool:
    """Whether the worker must show its credential when it joins again: it has shown one before.

    Not so for a worker of a former version, which keeps none, and not after the server's secret key was replaced,
    which voids all of them.
    """
    shown = worker.credential_since is not None and worker.former_credential_hash != ""
    return shown and keys.made_worker_hash(worker.credential_hash)


async def bar(store: Store, worker_id: int) -> Worker:
    """Void the worker's credential and refuse it when it joins; its instances are placed elsewhere.

    Raises ``NotFound``.
    """

    def work(tx: Tx) -> Worker:
        worker = existing(tx, Worker, worker_id)
        for instance in tx.all(ModelInstance).values():
            if worker_id in workers_of(instance):
                give_up_place(tx, instance, EVICT, "Its worker was barred; looking for another place")
        condition = Condition(state=WorkerState.UNREACHABLE, since=tx.now, why=_BARRED)
        return tx.update(attrs.evolve(worker, barred=True, condition=condition, **_VOID))

    return await store.write(work)


async def readmit(store: Store, worker_id: int) -> Worker:
    """Let a machine join as this worker with the cluster token alone, once, after it was barred or lost its credential.
    The present credential is voided. Raises ``NotFound``."""

    def work(tx: Tx) -> Worker:
        worker = existing(tx, Worker, worker_id)
        why = "may join again" if worker.barred else worker.condition.why
        condition = attrs.evolve(worker.condition, why=why)
        return tx.update(attrs.evolve(worker, barred=False, condition=condition, **_VOID))

    return await store.write(work)


_VOID: dict[str, Any] = {"credential_hash": "", "credential_since": None, "former_credential_hash": None}
