"""A worker joins: it is found by its uuid or name, recorded, and given a credential of its own."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from gpustack.domain.report import JoinRequest
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.errors import AlreadyExists
from gpustack.identity.secret import Keys
from gpustack.server.leases import Leases
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

__all__ = ["JoinRequest", "Joined", "join"]


@attrs.frozen(kw_only=True)
class Joined:
    """The record, and two secrets that are shown this once: the worker's own credential, and the key with which
    it recognises the server on its own port."""

    worker: Worker
    credential: str = attrs.field(repr=False)
    forward_key: str = attrs.field(repr=False)


async def join(
    store: Store,
    request: JoinRequest,
    *,
    keys: Keys,
    leases: Leases,
    secret: Callable[[], str],
    rng: random.Random,
) -> Joined:
    """Record the worker and void its former credential.

    Raises ``AlreadyExists`` when the name was given explicitly and belongs to a worker with another uuid.
    """
    own = secret()

    def work(tx: Tx) -> Worker:
        known = tx.find(Worker, worker_uuid=request.worker_uuid)
        name = _free_name(tx, request, known, rng)
        described = attrs.evolve(
            known or Worker(name=name, worker_uuid=request.worker_uuid),
            name=name,
            hostname=request.hostname,
            ip=request.ip,
            port=request.port,
            metrics_port=request.metrics_port,
            # Labels edited on the server survive; what the worker brings only fills in.
            labels={"worker-name": name, **request.labels, **(known.labels if known else {})},
            system_reserved=request.system_reserved,
            version_running=request.version,
            credential_hash=keys.worker_hash(own),
            heartbeat_time=tx.now,
            condition=Condition(state=WorkerState.READY, since=tx.now),
        )
        return tx.insert(described) if known is None else tx.update(described)

    worker = await store.write(work)
    leases.heard(worker.id)
    return Joined(
        worker=worker,
        credential=f"gpustack_worker_{worker.id}_{own}",
        forward_key=keys.forward_key(worker.worker_uuid),
    )


def _free_name(tx: Tx, request: JoinRequest, known: Worker | None, rng: random.Random) -> str:
    holder = tx.find(Worker, name=request.name)
    if holder is None or holder.worker_uuid == request.worker_uuid:
        return request.name
    if request.explicit_name:
        raise AlreadyExists(
            f"A worker named {request.name!r} already exists with a different UUID; choose another --worker-name, "
            "or delete that worker first"
        )
    if known is not None:
        return known.name
    for _ in range(100):
        candidate = f"{request.name}-{rng.randrange(10000, 100000)}"
        if tx.find(Worker, name=candidate) is None:
            return candidate
    raise AlreadyExists(f"No free name beside {request.name!r}; set --worker-name")
