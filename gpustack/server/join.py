"""A worker joins: it is found by its uuid or name, recorded, and given a credential. Copies of a worker are refused."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs

from gpustack.domain.report import JoinRequest
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import AlreadyExists, Conflict, Forbidden, Invalid
from gpustack.http1.upstream import UpstreamAddress
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.keys import worker_key
from gpustack.identity.lookup import FieldIndex
from gpustack.server.credential import is_held, valid_hashes
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.liveness import ready_condition
from gpustack.server.report import MOST_WORKERS, bounded, merged_labels
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

_BY_UUID = FieldIndex[Worker]("worker_uuid")
_LONGEST = 200
_NAME = "worker-name"
"""The built-in label; it follows the worker's name until a user edits it."""


@attrs.frozen(kw_only=True)
class JoinResult:
    """The worker's record and two secrets that are shown only now: its credential, and the key by which it recognises
    the server on its own port."""

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
    heartbeats: HeartbeatTimes,
    secret: Callable[[], str],
    rng: random.Random,
    shown: PresentedCredential | None = None,
    most: int = MOST_WORKERS,
) -> JoinResult:
    """Record the worker and give it a new credential. A worker that is known keeps its id and what users edited; the
    credential that it showed stays good until it shows the new one.

    Raises ``Invalid`` for a request that names no machine, ``AlreadyExists`` when the name was given explicitly and
    belongs to a worker with another uuid, and ``Forbidden`` for one that is barred, says to be another, or has held a
    credential and does not show it: the cluster token lets new machines in.
    """
    _refuse_nameless(request)
    request = bounded(request)
    own = secret()
    former = _BY_UUID.find(store.snapshot.workers, request.worker_uuid)
    _refuse_impostor(former, shown, keys)
    if former is not None:
        # Before the record says ready: else liveness might judge it by its old silence once more.
        heartbeats.heard(former.id)

    def work(tx: Tx) -> Worker:
        known = tx.find(Worker, worker_uuid=request.worker_uuid)
        holder = tx.find(Worker, name=request.name)
        if known is None and holder is not None and not holder.worker_uuid:
            known = holder  # recorded before there were uuids: this is it
        _refuse_impostor(known, shown, keys)
        name = _free_name(tx, request, holder, known, rng)
        former = known or Worker(name=name, worker_uuid=request.worker_uuid)
        described = attrs.evolve(
            former,
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
            condition=ready_condition(None if known is None else known.condition, former.status, tx.now),
        )
        if known is not None:
            return tx.update(described)
        if len(tx.all(Worker)) >= most:
            raise Conflict(f"There are {most} workers, as many as there may be: delete some that have gone")
        return tx.insert(described)

    worker = await store.write(work)
    heartbeats.heard(worker.id)
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
        if known is None or known.id != shown.worker_id or shown.hash not in valid_hashes(known):
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
    """Labels of the server's record stay; those that the worker brings are added."""
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


log = logging.getLogger(__name__)

COPIED: Final = ("worker_uuid", "worker_name", "worker_credential")
"""The files of a data directory that make a machine this worker."""
COPIED_FILES: Final = f"{', '.join(COPIED[:-1])} and {COPIED[-1]}"
_SAME_FOR = 3600.0
_MOST = 1000


class RunProbe(Protocol):
    """Finds out which daemon answers at a worker's recorded address."""

    async def run_of(self, worker: Worker) -> str | None:
        """The id of that daemon's run; ``None`` where nobody answers."""


@attrs.define(eq=False)
class CloneDetector:
    """Refuses a machine that has the identity of a worker which answers at another address."""

    _probe: RunProbe
    _clock: Callable[[], float]
    _told: dict[tuple[int, str], float] = attrs.field(factory=dict)
    """When a worker and the address of its copy were logged last."""

    async def refuse(self, request: JoinRequest, snapshot: Snapshot) -> None:
        """Raise ``Conflict``, with both addresses and what to delete on the copy, if the recorded daemon answers there.

        A daemon that was restarted has the same address, or nobody answers at its former one.
        """
        worker = _BY_UUID.find(snapshot.workers, request.worker_uuid)
        if worker is None or worker.leaving or worker.barred or not request.run:
            return
        here, there = (
            str(UpstreamAddress(request.ip, request.port)),
            str(UpstreamAddress(worker.ip, worker.port)),
        )
        if here == there or not worker.ip:
            return
        run = await self._probe.run_of(worker)
        if run is None or run == request.run:
            return
        self._tell(worker, there, here)
        raise Conflict(
            f"Worker {worker.name} is at {there} and answers there, and the machine at {here} says to be the same "
            "worker: the data directory of one of them is a copy. On the machine that is the copy stop gpustack, "
            f"delete {COPIED_FILES} in its data directory and start it again: it joins as a "
            "worker of its own then"
        )

    def _tell(self, worker: Worker, there: str, here: str) -> None:
        """Log once an hour: the copy tries to join every few seconds."""
        now = self._clock()
        if now - self._told.get((worker.id, here), -_SAME_FOR) < _SAME_FOR:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told[worker.id, here] = now
        log.warning(
            "Two machines say to be one worker, for a data directory was copied; the one that was there first stays, "
            "delete %s in that of the copy: worker=%s there=%s refused=%s",
            COPIED_FILES,
            worker.name,
            there,
            here,
        )
