"""Model files on workers: fetched ahead of need, fetched again, removed."""

from __future__ import annotations

from gpustack.artifacts.source import source_for
from gpustack.domain.access import Principal, Role
from gpustack.domain.artifact import FileState, ModelFile, SourceKind
from gpustack.domain.report import FileReport
from gpustack.errors import AlreadyExists, Forbidden
from gpustack.server import deploy
from gpustack.server.report import report_file

from ..deployment import SOURCE_BODY, source_from
from ..listing import Selection, equal
from ..parameter import Parameter
from ..resource import Resource
from ..route import WORKERS, Call, Reply, Route
from ..shape import Document, Flag, Maybe, Shape, Text, Thing, Whole
from ..wire import FILE, Doc


def _visible(principal: Principal, file: ModelFile) -> bool:
    return principal.is_admin or principal.worker_id == file.worker_id


async def _create(call: Call) -> ModelFile:
    source = source_from(call.document)
    source_for(source.kind)
    rest = {name: value for name, value in call.document.items() if name in _FIELDS}
    file = ModelFile(source=source, source_index=source.index, **rest)
    where = {"worker_id": file.worker_id, "source_index": file.source_index, "local_dir": file.local_dir}
    if call.snapshot.find(ModelFile, **where) is not None:
        raise AlreadyExists(f"Worker {file.worker_id} has a model file of {source.readable} there already")
    return await deploy.create_file(call.context.store, file)


async def _update(call: Call, file: ModelFile) -> ModelFile:
    return await call.context.store.write(lambda tx: tx.change(ModelFile, file.id, **call.document))


async def _delete(call: Call, file: ModelFile) -> Doc:
    said = call.query.one("cleanup")
    gone = await deploy.delete_file(
        call.context.store, file.id, None if said is None else call.query.flag("cleanup")
    )
    if gone.source.kind is SourceKind.LOCAL_PATH:
        return {
            "kept": True,
            "message": f"{gone.source.readable} is kept: only what we have fetched is removed",
        }
    if not gone.cleanup_on_delete:
        return {"kept": True, "message": f"The files of {gone.source.readable} are kept, as asked for"}
    return {"kept": False, "message": f"The files of {gone.source.readable} are being removed"}


async def _reset(call: Call) -> Reply:
    file = await deploy.reset_file(call.context.store, RESOURCE.item(call).id)
    return RESOURCE.shown(call, file)


async def _report(call: Call) -> Reply:
    if call.caller.worker_id is None:
        raise Forbidden("Only a worker reports")
    await report_file(call.context.store, call.caller.worker_id, call.number(), call.document)
    return Reply(document=None)


REPORT = Route(
    method="PUT",
    path="/v1/model-files/{id}/report",
    summary="Say how the fetching of a file fares",
    handler=_report,
    allow=WORKERS,
    body=Thing(FileReport),
)

_FIELDS: dict[str, Shape] = {
    "worker_id": Whole(least=1),
    "local_dir": Maybe(Text(longest=4096), ""),
    "cleanup_on_delete": Maybe(Flag(), True),
}

RESOURCE = Resource(
    path="/v1/model-files",
    name="Model file",
    record=ModelFile,
    view=FILE,
    list_by=frozenset({Role.ADMIN, Role.WORKER}),
    read_by=frozenset({Role.ADMIN, Role.WORKER}),
    visible=_visible,
    selection=Selection(
        filters=(
            equal("worker_id", Whole()),
            equal("state", Text(), lambda file: FileState(file.state).value),
        ),
        search=lambda file: (*file.resolved_paths, file.source.readable, file.source.local_path),
    ),
    create_body=Document(
        name="ModelFileCreate", fields={**SOURCE_BODY, **_FIELDS}, required=("source", "worker_id")
    ),
    create=_create,
    update_body=Document(name="ModelFileUpdate", fields={"cleanup_on_delete": Flag()}),
    update=_update,
    delete=_delete,
    deleted=Document(
        name="ModelFileRemoval",
        fields={"kept": Flag(), "message": Text()},
        note="kept: the record goes, the bytes stay. Files at a local path were there before us, and always do.",
    ),
    delete_query=(
        Parameter(name="cleanup", shape=Flag(), note="Remove the bytes too; else as cleanup_on_delete says."),
    ),
    routes=(
        Route(
            method="POST",
            path="/v1/model-files/{id}/reset",
            summary="Fetch a file again",
            handler=_reset,
            about=ModelFile,
            answer=FILE,
        ),
        REPORT,
    ),
)
