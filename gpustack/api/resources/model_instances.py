"""Model instances: their state, why they wait, and their logs."""

from __future__ import annotations

import shlex
from contextlib import AsyncExitStack
from typing import Any

from gpustack.domain.access import Principal, Role
from gpustack.domain.instance import ModelInstance, workers_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.report import InstanceReport
from gpustack.domain.worker import Worker
from gpustack.errors import BadRequest, NotFound, Unavailable
from gpustack.policy.explain import Explanation
from gpustack.server import deployment
from gpustack.server.evaluation import explain_instance
from gpustack.server.report import report_instance

from ..access import guards_of, still_admitted
from ..body_stream import OpenedStream, RevocableStream
from ..listing import ListSelection, equal
from ..problems import MalformedRequest
from ..resource import Resource
from ..route import WORKERS, ApiCall, ApiResponse, ApiRoute
from ..shape import (
    Array,
    AttrsObject,
    Boolean,
    Choice,
    Dictionary,
    Document,
    Instant,
    Integer,
    QueryParameter,
    Text,
)
from ..view import plain
from ..wire import INSTANCE
from ..worker_address import check_address


def _visible(principal: Principal, instance: ModelInstance) -> bool:
    return principal.is_admin or principal.worker_id in workers_of(instance)


async def _refuse(call: ApiCall) -> ModelInstance:
    raise BadRequest("Instances follow from their model: change its replicas instead")


async def _refuse_update(call: ApiCall, instance: ModelInstance) -> ModelInstance:
    raise BadRequest(
        f"Instance {instance.name} follows from model {instance.model_name}: change that instead"
    )


async def _delete(call: ApiCall, instance: ModelInstance) -> None:
    await deployment.delete_instance(call.context.store, instance.id)


async def _report(call: ApiCall) -> ApiResponse:
    worker_id = call.caller.worker_id
    assert worker_id is not None  # the route is for workers
    report: InstanceReport = call.document
    check_address(report.address or None, call.request.peer, field="address")
    if not all(0 < port < 1 << 16 for port in report.ports or ()):
        raise MalformedRequest("ports: must be numbers from 1 to 65535")
    await report_instance(call.context.store, worker_id, call.number(), report)
    return ApiResponse(document=None)


async def _explain(call: ApiCall) -> ApiResponse:
    instance, models = RESOURCE.item(call), call.context.models
    if models.facts is None:
        raise Unavailable("Placement is not running on this server")
    found = await explain_instance(
        call.context.store,
        models.facts,
        instance.id,
        models.gangs,
        silence_allowed=models.silence_allowed,
    )
    return ApiResponse(document=plain(found))


def _seat(call: ApiCall, instance: ModelInstance) -> tuple[Worker, int]:
    """The worker of the member that is asked for, and the member's number. Raises ``NotFound``."""
    member = _member(call, instance)
    where = None if instance.placement is None else instance.placement.share(member).worker_id
    worker = call.rendering().worker(where)
    if worker is None:
        raise NotFound("Model instance not assigned to a worker")
    return worker, member


async def _launch(call: ApiCall) -> ApiResponse:
    instance: Any = RESOURCE.item(call)
    worker, member = _seat(call, instance)
    record = await call.context.workers.logs.launch(worker, instance.id, member)
    variables = (f"{name}={shlex.quote(value)}" for name, value in sorted(record.env.items()))
    command = " ".join((*variables, shlex.join(record.argv)))
    return ApiResponse(
        document={**plain(record), "worker_id": worker.id, "member": member, "command": command}
    )


async def _logs(call: ApiCall) -> ApiResponse:
    instance: Any = RESOURCE.item(call)
    worker, member = _seat(call, instance)
    tail = call.query.whole("tail", -1, least=-1)
    stack = AsyncExitStack()
    source = await stack.enter_async_context(
        call.context.workers.logs.logs(
            worker,
            instance.id,
            tail=tail,
            follow=call.query.flag("follow"),
            previous=call.query.flag("previous"),
            member=member,
        )
    )
    context, caller = call.context, call.caller
    stream = RevocableStream(
        stream=OpenedStream(stack, aiter(source)),
        store=context.store,
        guards=guards_of(caller),
        allowed=lambda: still_admitted(context, caller),
    )
    return ApiResponse(stream=stream, content_type="text/plain; charset=utf-8")


def _member(call: ApiCall, instance: ModelInstance) -> int:
    """The member that ``?member=`` names, by its number or its worker's name; 0, the main one, by default."""
    asked, placement = call.query.one("member"), instance.placement
    if not asked or placement is None:
        return 0
    rendering, found = call.rendering(), []
    for number in range(1 + len(placement.subordinates)):
        worker = rendering.worker(placement.share(number).worker_id)
        found.append((number, "" if worker is None else worker.name))
        if asked in (str(number), found[-1][1]):
            return number
    listed = ", ".join(f"{number} ({name})" if name else str(number) for number, name in found)
    raise NotFound(f"{instance.name} has no member {asked[:64]!r}; it has {listed}")


_MEMBER = QueryParameter(
    name="member",
    shape=Text(longest=256),
    note="Of an instance on several workers: the number of a member, or its worker's name; 0, the main one, by "
    "default.",
)

REPORT = ApiRoute(
    method="PUT",
    path="/v1/model-instances/{id}/report",
    summary="Say how an instance fares",
    handler=_report,
    allow=WORKERS,
    body=AttrsObject(InstanceReport),
)

RESOURCE = Resource(
    path="/v1/model-instances",
    name="Model instance",
    record=ModelInstance,
    view=INSTANCE,
    list_by=frozenset({Role.ADMIN, Role.WORKER}),
    read_by=frozenset({Role.ADMIN, Role.WORKER}),
    visible=_visible,
    selection=ListSelection(
        filters=(
            equal("id", Integer()),
            equal("model_id", Integer()),
            equal("worker_id", Integer()),
            equal("state", Choice(InstanceState)),
        ),
        search=lambda instance: (instance.name,),
    ),
    create_body=Document(
        name="ModelInstanceCreate", fields={}, note="Refused: instances follow from models."
    ),
    create=_refuse,
    update_body=Document(
        name="ModelInstanceUpdate", fields={}, note="Refused: instances follow from models."
    ),
    update=_refuse_update,
    delete=_delete,
    routes=(
        ApiRoute(
            method="GET",
            path="/v1/model-instances/{id}/logs",
            summary="Read the log of an instance from its worker",
            handler=_logs,
            query=(
                QueryParameter(name="tail", shape=Integer(least=-1), note="Lines from the end; -1 for all."),
                QueryParameter(
                    name="follow", shape=Boolean(), note="Go on with what is written from now on."
                ),
                QueryParameter(name="previous", shape=Boolean(), note="The log of the run before this one."),
                _MEMBER,
            ),
            answer_type="text/plain",
        ),
        ApiRoute(
            method="GET",
            path="/v1/model-instances/{id}/launch",
            summary="Tell with which command and environment the engine of an instance was started last",
            handler=_launch,
            query=(_MEMBER,),
            answer=Document(
                name="InstanceLaunch",
                fields={
                    "argv": Array(Text()),
                    "env": Dictionary(Text()),
                    "started_at": Instant(),
                    "files": Array(Text()),
                    "worker_id": Integer(),
                    "member": Integer(),
                    "command": Text(),
                },
                note="env: what it has beyond the environment of its worker. Secrets are masked on the worker. files: "
                "names of files that were written for it alone. command: all in one line for a shell.",
            ),
        ),
        ApiRoute(
            method="GET",
            path="/v1/model-instances/{id}/explain",
            summary="Tell why an instance is where it is, or why it waits",
            handler=_explain,
            answer=AttrsObject(Explanation),
        ),
        REPORT,
    ),
)
