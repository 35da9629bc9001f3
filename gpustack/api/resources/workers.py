"""Workers: joining, what they report, and what an administrator may change."""

from __future__ import annotations

import secrets
from typing import Any

import attrs

from gpustack.domain.access import Principal, Role
from gpustack.domain.artifact import FileState, ModelFile, ModelSource
from gpustack.domain.report import JoinRequest, StatusReport
from gpustack.domain.taint import Taint, faults_of_taints, with_times
from gpustack.domain.worker import SystemReserved, Worker
from gpustack.errors import Conflict, Forbidden, NotFound, Unavailable
from gpustack.identity.file_ticket import issue_ticket
from gpustack.identity.keys import WorkerKeyText, parse
from gpustack.policy.model_file import holders
from gpustack.server import deployment
from gpustack.server.credential import (
    CredentialAction,
    bar,
    is_at_rest,
    next_action,
    readmit,
    renew_credential,
)
from gpustack.server.drain import DrainOutlook, begin_drain, plan_drain
from gpustack.server.join import JoinResult, PresentedCredential, join
from gpustack.server.report import (
    LONGEST,
    MOST_FILES,
    bounded,
    is_stamp_due,
    report_status,
    worker_drains,
    worker_leaves,
)
from gpustack.store.transaction import Tx

from ..access import credentials_of
from ..listing import ListSelection, equal
from ..load_document import read_load
from ..problems import MalformedRequest
from ..request import is_whole
from ..resource import Resource, document_view
from ..route import WORKERS, ApiCall, ApiResponse, ApiRoute, read_document
from ..shape import (
    Array,
    AttrsObject,
    Boolean,
    Dictionary,
    Document,
    Integer,
    Nullable,
    Number,
    QueryParameter,
    Text,
)
from ..view import RenderContext, plain
from ..wire import WORKER
from ..worker_address import check_address

MOST_TAINTS = 100


def _visible(principal: Principal, worker: Worker) -> bool:
    return principal.is_admin or principal.worker_id == worker.id


@attrs.frozen
class _JoinAnswer:
    joined: JoinResult
    heartbeat_interval: float


def _joined(answer: _JoinAnswer, context: RenderContext) -> dict[str, Any]:
    return {
        **WORKER.of(answer.joined.worker, context),
        "credential": answer.joined.credential,
        "forward_key": answer.joined.forward_key,
        "heartbeat_interval": answer.heartbeat_interval,
    }


def _shown(call: ApiCall) -> PresentedCredential | None:
    """The worker credential of the caller; ``None`` where it joins with the cluster token."""
    if call.caller.worker_id is None:
        return None
    text = parse(credentials_of(call.request).bearer or "")
    assert isinstance(text, WorkerKeyText)
    return PresentedCredential(worker_id=text.worker_id, hash=call.context.keys.worker_hash(text.secret))


async def _join(call: ApiCall) -> _JoinAnswer:
    check_address(call.document.ip, call.request.peer)
    if call.context.workers.clones is not None:
        await call.context.workers.clones.refuse(call.document, call.snapshot)
    joined = await join(
        call.context.store,
        call.document,
        keys=call.context.keys,
        heartbeats=call.context.workers.heartbeats,
        secret=lambda: secrets.token_hex(32),
        rng=call.context.rng,
        shown=_shown(call),
    )
    return _JoinAnswer(joined, call.context.workers.heartbeat_interval)


async def _update(call: ApiCall, worker: Worker) -> Worker:
    fields = dict(call.document)
    if "labels" in fields:
        # A worker adds its built-in labels again at the next start, so they cannot be removed.
        built_in = {name: worker.labels[name] for name in _BUILT_IN if name in worker.labels}
        fields["labels"] = {**built_in, **fields["labels"]}
    if fields.get("draining"):
        fields["cordoned"] = True
    elif fields.get("cordoned") is False:
        fields["draining"] = False
    if faults := faults_of_taints(fields.get("taints", ())):
        raise MalformedRequest(*(f"taints: {fault}" for fault in faults))

    def work(tx: Tx) -> Worker:
        known = tx.get(Worker, worker.id)
        if "taints" in fields and known is not None:
            fields["taints"] = with_times(fields["taints"], known.taints, tx.now)
        if fields.get("draining"):
            return begin_drain(tx, worker.id, **fields)
        return tx.change(Worker, worker.id, **fields)

    return await call.context.store.write(work)


async def _delete(call: ApiCall, worker: Worker) -> None:
    await deployment.delete_worker(call.context.store, worker.id)
    call.context.workers.heartbeats.drop(worker.id)


_BUILT_IN = ("os", "arch", "worker-name")


# --- what a worker itself sends; in production these arrive at api/worker_endpoint.py


def own_id(call: ApiCall) -> int:
    """The id of the calling worker. Raises ``Forbidden`` when the path names another one, ``NotFound`` when it was
    deleted."""
    worker_id = call.number()
    if call.caller.worker_id != worker_id:
        raise Forbidden("A worker speaks only for itself")
    if worker_id not in call.snapshot.workers:
        raise NotFound(f"Worker {worker_id} does not exist")
    return worker_id


async def _renewed(call: ApiCall) -> str | None:
    """A new credential for the caller, if its own is old. Without a database there is none; the heartbeat counts."""
    context, now = call.context, call.context.clock()
    worker, lifetime = call.snapshot.workers.get(call.number()), call.context.workers.credential_lifetime
    if worker is None or is_at_rest(worker, now, lifetime):
        return None
    shown = _shown(call)
    if shown is None or next_action(worker, shown.hash, now, lifetime) is CredentialAction.NOTHING:
        return None
    try:
        return await renew_credential(
            context.store,
            worker.id,
            shown.hash,
            keys=context.keys,
            secret=lambda: secrets.token_hex(32),
            lifetime=lifetime,
        )
    except Unavailable:
        return None


def refuse_while_cut_off(call: ApiCall) -> None:
    """Raise ``Unavailable`` when the database is away and there are other servers: the worker then turns to those."""
    failure = call.context.store.failure
    if failure is not None and len(call.context.workers.server_urls()) > 1:
        raise Unavailable(str(failure), failure.retry_after)


async def _heartbeat(call: ApiCall) -> ApiResponse:
    call.context.workers.heartbeats.heard(own_id(call))
    refuse_while_cut_off(call)
    credential = await _renewed(call)
    return ApiResponse(
        document={
            "interval": call.context.workers.heartbeat_interval,
            "revision": call.snapshot.revision,
            "servers": list(call.context.workers.server_urls()),
            "credential": credential,
        }
    )


async def _drain(call: ApiCall) -> ApiResponse:
    await worker_drains(call.context.store, own_id(call))
    return ApiResponse(document=None)


async def _leave(call: ApiCall) -> ApiResponse:
    await worker_leaves(call.context.store, own_id(call))
    return ApiResponse(document=None)


async def _status(call: ApiCall) -> ApiResponse:
    worker_id, services, peer = own_id(call), call.context.workers, call.request.peer
    reading, now = read_load(call.document), call.context.clock()
    worker = call.snapshot.workers[worker_id]
    if (
        reading is not None
        and services.intake.agrees(worker, reading, peer)
        and not is_stamp_due(worker, now)
    ):
        services.heartbeats.heard(worker_id)
        services.live.reported(worker_id, reading.load)
        return ApiResponse(document=None)
    report = read_document(call.document, _STATUS_REPORT)
    check_address(report.ip, peer)
    services.heartbeats.heard(worker_id)
    shown = _shown(call)
    await report_status(
        call.context.store, services.live, worker_id, report, now, None if shown is None else shown.hash
    )
    recorded = call.snapshot.workers.get(worker_id)
    if reading is not None and recorded is not None:
        services.intake.was_taken(recorded, reading, peer)
    return ApiResponse(document=None)


_STATUS_REPORT = AttrsObject(StatusReport)


@attrs.frozen(kw_only=True)
class FileAsk:
    """The files that a worker needs. A record of them is made unless there is one.

    ``holders``: it is about to fetch them, and wants to know who else has them.
    """

    source: ModelSource
    local_dir: str = ""
    holders: bool = False


async def _ensure_file(call: ApiCall) -> ApiResponse:
    worker_id, asked = own_id(call), call.document
    if bounded(asked) != asked:
        raise MalformedRequest(f"source and local_dir: no text may have more than {LONGEST} characters")

    def work(tx: Tx) -> ModelFile:
        wanted = {"worker_id": worker_id, "source_index": asked.source.index, "local_dir": asked.local_dir}
        known = tx.find(ModelFile, **wanted)
        if known is not None and known.deleted_at is None:
            return known
        if known is not None:  # wanted again before its removal was carried out
            return tx.change(ModelFile, known.id, deleted_at=None)
        if sum(file.worker_id == worker_id for file in tx.all(ModelFile).values()) >= MOST_FILES:
            raise Conflict(
                f"This worker has {MOST_FILES} records of files, as many as there may be: remove some"
            )
        return tx.insert(ModelFile(source=asked.source, **wanted))

    file = await call.context.store.write(work)
    return ApiResponse(document={"id": file.id, "holders": _holders(call, file) if asked.holders else []})


def _holders(call: ApiCall, file: ModelFile) -> list[dict[str, Any]]:
    """The workers that have the files too, each with a ticket for the caller to read them with."""
    snapshot, now = call.context.store.snapshot, call.context.clock().timestamp()
    return [
        {
            "name": worker.name,
            "host": worker.ip,
            "port": worker.port,
            "fetching": held.state is FileState.DOWNLOADING,
            "ticket": issue_ticket(call.context.keys.forward_key(worker.worker_uuid), file.worker_id, now),
        }
        for held, worker in holders(file, snapshot.files.values(), snapshot.workers)
    ]


HEARTBEAT = ApiRoute(
    method="POST",
    path="/v1/workers/{id}/heartbeat",
    summary="Say that the worker lives",
    handler=_heartbeat,
    allow=WORKERS,
    answer=Document(
        name="Heartbeat",
        fields={
            "interval": Number(),
            "revision": Integer(),
            "servers": Array(Text()),
            "credential": Nullable(Text(secret=True)),
        },
        note="interval: seconds until the next one is expected. credential: to be used from now on, if any.",
    ),
)
DRAIN = ApiRoute(
    method="POST",
    path="/v1/workers/{id}/drain",
    summary="Say that the worker is about to stop: what it runs is started elsewhere and ends there then",
    handler=_drain,
    allow=WORKERS,
)
LEAVE = ApiRoute(
    method="POST",
    path="/v1/workers/{id}/leave",
    summary="Say that the worker stops: it gets nothing new until it joins again",
    handler=_leave,
    allow=WORKERS,
)
STATUS = ApiRoute(
    method="PUT",
    path="/v1/workers/{id}/status",
    summary="Replace the status that the worker measured",
    handler=_status,
    allow=WORKERS,
    body=_STATUS_REPORT,
    reads_body=True,
)
FILES = ApiRoute(
    method="POST",
    path="/v1/workers/{id}/files",
    summary="Name the record of the files that the worker needs",
    handler=_ensure_file,
    allow=WORKERS,
    body=AttrsObject(FileAsk),
    answer=Document(
        name="WorkerFile",
        fields={
            "id": Integer(),
            "holders": Array(
                Document(
                    name="FileHolder",
                    fields={
                        "name": Text(),
                        "host": Text(),
                        "port": Integer(),
                        "fetching": Boolean(),
                        "ticket": Text(secret=True),
                    },
                )
            ),
        },
        note="holders: other workers that have the files or are fetching them, the best first, and a ticket to read"
        " them with for a day.",
    ),
)


async def _bar(call: ApiCall) -> ApiResponse:
    worker = RESOURCE.item(call)
    barred = await bar(call.context.store, worker.id)
    return RESOURCE.respond(call, barred)


async def _admit(call: ApiCall) -> ApiResponse:
    worker = RESOURCE.item(call)
    return RESOURCE.respond(call, await readmit(call.context.store, worker.id))


BAR = ApiRoute(
    method="POST",
    path="/v1/workers/{id}/bar",
    summary="Void the worker's credential and keep it from joining; what ran there is placed elsewhere",
    handler=_bar,
    about=Worker,
    answer=WORKER,
)
ADMIT = ApiRoute(
    method="POST",
    path="/v1/workers/{id}/admit",
    summary="Let a machine join as this worker with the cluster token: it was barred, or has lost its credential",
    handler=_admit,
    about=Worker,
    answer=WORKER,
)


async def _plan_drain(call: ApiCall) -> ApiResponse:
    worker, models = RESOURCE.item(call), call.context.models
    also = call.query.many("also")
    there = call.snapshot.workers
    if unknown := [text for text in also if not is_whole(text) or int(text) not in there]:
        raise MalformedRequest(f"also: there is no worker {unknown[0][:64]!r}")
    if models.facts is None:
        raise Unavailable("Placement is not running on this server")
    workers = list(dict.fromkeys([worker.id, *map(int, also)]))
    outlook = await plan_drain(call.context.store, models.facts, workers, models.gangs)
    return ApiResponse(document=plain(outlook))


DRAIN_PLAN = ApiRoute(
    method="GET",
    path="/v1/workers/{id}/drain-plan",
    summary="Tell what a drain of the worker would lead to: where each instance would go, and what would stay, and why",
    handler=_plan_drain,
    query=(
        QueryParameter(
            name="also", shape=Integer(), note="The id of a worker that would be drained as well.", many=True
        ),
    ),
    answer=AttrsObject(DrainOutlook),
)

RESOURCE = Resource(
    path="/v1/workers",
    name="Worker",
    record=Worker,
    view=WORKER,
    list_by=frozenset({Role.ADMIN, Role.WORKER}),
    read_by=frozenset({Role.ADMIN, Role.WORKER}),
    create_by=frozenset({Role.JOINER, Role.WORKER}),
    visible=_visible,
    shows_load=True,
    selection=ListSelection(
        filters=(
            equal("name", Text()),
            equal("uuid", Text(), lambda worker: worker.worker_uuid),
            equal("state", Text(), lambda worker: worker.condition.state.value),
        ),
        search=lambda worker: (worker.name,),
    ),
    create_body=AttrsObject(JoinRequest),
    create=_join,
    create_action="worker.join",
    created=document_view(
        "JoinedWorker",
        WORKER,
        {"credential": Text(secret=True), "forward_key": Text(secret=True), "heartbeat_interval": Number()},
        _joined,
    ),
    update_body=Document(
        name="WorkerUpdate",
        fields={
            "labels": Dictionary(Text(longest=1024)),
            "system_reserved": AttrsObject(SystemReserved),
            "cordoned": Boolean(),
            "draining": Boolean(),
            "taints": Nullable(Array(AttrsObject(Taint, strict=True), MOST_TAINTS), ()),
        },
        note="A cordoned worker keeps what it runs and gets nothing new. One that is drained is cordoned, and what it"
        " runs is started elsewhere, a replica at a time, before it ends there. Taints are replaced as a whole.",
    ),
    update=_update,
    delete=_delete,
    routes=(HEARTBEAT, DRAIN, LEAVE, STATUS, FILES, BAR, ADMIT, DRAIN_PLAN),
)
