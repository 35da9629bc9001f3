"""Model instances: replicas as they are, why they wait, and their logs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from gpustack.domain.access import Principal, Role
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.report import InstanceReport
from gpustack.errors import BadRequest, Forbidden, NotFound, Unavailable
from gpustack.policy.explain import Explanation
from gpustack.server import deploy
from gpustack.server.explain import explain_instance
from gpustack.server.report import report_instance

from ..access import guards_of, still_admitted
from ..guarded import Guarded
from ..listing import Selection, equal
from ..opened import Opened
from ..parameter import Parameter
from ..resource import Resource
from ..route import WORKERS, Call, Reply, Route
from ..shape import Document, Flag, Thing, Whole, Word
from ..wire import INSTANCE, plain


def workers_of(instance: ModelInstance) -> frozenset[int]:
    """Every worker an instance is placed on."""
    if instance.placement is None:
        return frozenset()
    return frozenset(
        {instance.placement.worker_id, *(share.worker_id for share in instance.placement.subordinates)}
    )


def _visible(principal: Principal, instance: ModelInstance) -> bool:
    return principal.is_admin or principal.worker_id in workers_of(instance)


async def _refuse(call: Call) -> ModelInstance:
    raise BadRequest("Instances follow from their model: change its replicas instead")


async def _refuse_update(call: Call, instance: ModelInstance) -> ModelInstance:
    raise BadRequest(
        f"Instance {instance.name} follows from model {instance.model_name}: change that instead"
    )


async def _delete(call: Call, instance: ModelInstance) -> None:
    await deploy.delete_instance(call.context.store, instance.id)


async def _report(call: Call) -> Reply:
    if call.caller.worker_id is None:
        raise Forbidden("Only a worker reports")
    await report_instance(call.context.store, call.caller.worker_id, call.number(), call.document)
    return Reply(document=None)


async def _explain(call: Call) -> Reply:
    instance = RESOURCE.item(call)
    if call.context.facts is None:
        raise Unavailable("Placement is not running on this server")
    return Reply(document=plain(await explain_instance(call.context.store, call.context.facts, instance.id)))


async def _logs(call: Call) -> Reply:
    instance: Any = RESOURCE.item(call)
    worker = call.look().worker(instance.worker_id)
    if worker is None:
        raise NotFound("Model instance not assigned to a worker")
    tail = call.query.whole("tail", -1, least=-1)
    stack = AsyncExitStack()
    source = await stack.enter_async_context(
        call.context.link.logs(
            worker,
            instance.id,
            tail=tail,
            follow=call.query.flag("follow"),
            previous=call.query.flag("previous"),
        )
    )
    context, caller = call.context, call.caller
    stream = Guarded(
        stream=Opened(stack, aiter(source)),
        store=context.store,
        guards=guards_of(caller),
        allowed=lambda: still_admitted(context, caller),
    )
    return Reply(stream=stream, content_type="text/plain; charset=utf-8")


REPORT = Route(
    method="PUT",
    path="/v1/model-instances/{id}/report",
    summary="Say how an instance fares",
    handler=_report,
    allow=WORKERS,
    body=Thing(InstanceReport),
)

RESOURCE = Resource(
    path="/v1/model-instances",
    name="Model instance",
    record=ModelInstance,
    view=INSTANCE,
    list_by=frozenset({Role.ADMIN, Role.WORKER}),
    read_by=frozenset({Role.ADMIN, Role.WORKER}),
    visible=_visible,
    selection=Selection(
        filters=(
            equal("id", Whole()),
            equal("model_id", Whole()),
            equal("worker_id", Whole()),
            equal("state", Word(InstanceState)),
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
        Route(
            method="GET",
            path="/v1/model-instances/{id}/logs",
            summary="Read the log of an instance from its worker",
            handler=_logs,
            query=(
                Parameter(name="tail", shape=Whole(least=-1), note="Lines from the end; -1 for all."),
                Parameter(name="follow", shape=Flag(), note="Go on with what is written from now on."),
                Parameter(name="previous", shape=Flag(), note="The log of the run before this one."),
            ),
            answer_type="text/plain",
        ),
        Route(
            method="GET",
            path="/v1/model-instances/{id}/explain",
            summary="Tell why an instance is where it is, or why it waits",
            handler=_explain,
            answer=Thing(Explanation),
        ),
        REPORT,
    ),
)
