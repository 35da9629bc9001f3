"""A worker joins: it is found by its uuid or name, recorded, and given a credential of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import attrs

from gpustack.domain.report import JoinRequest
from gpustack.domain.worker import Worker
from gpustack.errors import AlreadyExists, Conflict, Forbidden, Invalid
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.keys import worker_key
from gpustack.server.condition import ready
from gpustack.server.credential import good, is_held
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.report_bounds import MOST_WORKERS, bounded, merged_labels
from gpustack.server.twins import COPIED_FILES
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

__all__ = ["JoinRequest", "JoinResult", "join"]

_LONGEST = 200
_NAME = "worker-name"
"""The built-in label; it follows the name until somebody edits it."""


@attrs.frozen(kw_only=True)
class JoinResult:
    """The record, and two secrets that are shown this once: the worker's own credential, and the key with which
    it recognises the server on its own port."""

    worker: Worker
    credential: str = attrs.field(repr=False)
    forward_key: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class PresentedCredential:
    """The credential with which a worker proved who it is, by its hash."""

    worker_id: int
    hash: str


async def join(
    store: Store,
    request: JoinRequest,
    *,
    keys: DerivedKeys,
    leases: HeartbeatTimes,
    secret: Callable[[], str],
    rng: random.Random,
    shown: PresentedCredential | None = None,
    most: int = MOST_WORKERS,
) -> JoinResult:
    """Record the worker and give it a credential; its id, and what was edited here, stay. The one that it showed is
    good until the new one is.

    Raises ``Invalid`` for a request that names no machine, ``AlreadyExists`` when the name was given explicitly and
    belongs to a worker with another uuid, and ``Forbidden`` for one that is barred, says to be another, or has held a
    credential and does not show it: the cluster token lets new machines in.
    """
    _refuse_nameless(request)
    request = bounded(request)
    own = secret()
    former = store.snapshot.find(Worker, worker_uuid=request.worker_uuid)
    _refuse_impostor(former, shown, keys)
    if former is not None:
        leases.heard(
            former.id
        )  # before it shows as ready: else it might be judged by its old silence once more

    def work(tx: Tx) -> Worker:
        known = tx.find(Worker, worker_uuid=request.worker_uuid)
        holder = tx.find(Worker, name=request.name)
        if known is None and holder is not None and not holder.worker_uuid:
            known = holder  # recorded before there were uuids: this is it
        _refuse_impostor(known, shown, keys)
        name = _free_name(tx, request, holder, known, rng)
        described = attrs.evolve(
            known or Worker(name=name, worker_uuid=request.worker_uuid),
            name=name,
            worker_uuid=request.worker_uuid,
            hostname=request.hostname,
            ip=request.ip,
            port=request.port,
            metrics_port=request.metrics_port,
            labels=_labels(request.labels, name, known),
            system_reserved=request.system_reserved,
            version_running=request.version,
            credential_hash=keys.worker_hash(own),
            credential_since=tx.now if request.keeps_credential else None,
            former_credential_hash="" if shown is None else shown.hash,
            heartbeat_time=tx.now,
            leaving=False,
            draining=known is not None and known.draining and known.cordoned,
        )
        condition = ready(None if known is None else known.condition, described.status, tx.now)
        described = attrs.evolve(described, condition=condition)
        if known is not None:
            return tx.update(described)
        if len(tx.all(Worker)) >= most:
            raise Conflict(f"There are {most} workers, as many as there may be: delete some that have gone")
        return tx.insert(described)

    worker = await store.write(work)
    leases.heard(worker.id)
    return JoinResult(
        worker=worker,
        credential=worker_key(worker.id, own),
        forward_key=keys.forward_key(worker.worker_uuid),
    )


def _refuse_impostor(known: Worker | None, shown: PresentedCredential | None, keys: DerivedKeys) -> None:
    if known is not None and known.barred:
        raise Forbidden(
            f"Worker {known.name} is barred; on the server, gpustack workers admit {known.name} lets it in again"
        )
    if shown is not None:
        if known is None or known.id != shown.worker_id or shown.hash not in good(known):
            raise Forbidden("A worker joins only as itself")
    elif known is not None and is_held(known, keys):
        raise Forbidden(
            f"Worker {known.name}, last at {known.ip}, has a credential of its own and must show it. If this machine "
            f"is a copy of that one, delete {COPIED_FILES} in its data directory; if it "
            f"is that one, and has lost it, on the server gpustack workers admit {known.name} lets it in again"
        )


def _refuse_nameless(request: JoinRequest) -> None:
    faults = []
    for what, text in (("name", request.name), ("worker_uuid", request.worker_uuid)):
        if not text.strip() or not text.isprintable() or len(text) > _LONGEST:
            faults.append(f"{what} must have 1 to {_LONGEST} printable characters")
    if not 0 < request.port < 65536:
        faults.append(f"port must be between 1 and 65535, not {request.port}")
    if faults:
        raise Invalid(*faults)


def _labels(brought: Mapping[str, str], name: str, known: Worker | None) -> Mapping[str, str]:
    """Labels edited on the server survive; what the worker brings only fills in."""
    kept = {} if known is None else dict(known.labels)
    if known is not None and kept.get(_NAME) == known.name:
        kept[_NAME] = name
    return merged_labels({_NAME: name, **kept}, brought)


def _free_name(
    tx: Tx, request: JoinRequest, holder: Worker | None, known: Worker | None, rng: random.Random
) -> str:
    if holder is None or holder is known:
        return request.name
    if request.explicit_name:
        raise AlreadyExists(
            f"A worker named {request.name!r} already exists with a different UUID; choose another --worker-name, or "
            f"remove that one on the server with gpustack workers rm {request.name}"
        )
    if known is not None:
        return known.name
    for _ in range(100):
        candidate = f"{request.name}-{rng.randrange(10000, 100000)}"
        if tx.find(Worker, name=candidate) is None:
            return candidate
    raise AlreadyExists(f"No free name beside {request.name!r}; set --worker-name")
