"""Model files on workers: fetched in advance, fetched again, removed."""

from __future__ import annotations

from gpustack.artifacts.source import source_for
from gpustack.domain.access import Principal, Role
from gpustack.domain.artifact import FileState, ModelFile, SourceKind
from gpustack.domain.report import FileReport
from gpustack.errors import AlreadyExists, NotFound
from gpustack.server import deployment
from gpustack.server.report import report_file

from ..deployment import SOURCE_BODY, source_from
from ..listing import ListSelection, equal
from ..resource import Resource
from ..route import WORKERS, ApiCall, ApiResponse, ApiRoute
from ..shape import (
    Array,
    AttrsObject,
    Boolean,
    Document,
    Instant,
    Integer,
    JsonShape,
    Nullable,
    QueryParameter,
    Text,
)
from ..view import Doc
from ..wire import FILE


def _visible(principal: Principal, file: ModelFile) -> bool:
    return principal.is_admin or principal.worker_id == file.worker_id


async def _create(call: ApiCall) -> ModelFile:
    source = source_from(call.document)
    source_for(source.kind)
    rest = {name: value for name, value in call.document.items() if name in _FIELDS}
    file = ModelFile(source=source, source_index=source.index, **rest)
    where = {"worker_id": file.worker_id, "source_index": file.source_index, "local_dir": file.local_dir}
    if call.snapshot.find(ModelFile, **where) is not None:
        raise AlreadyExists(f"Worker {file.worker_id} has a model file of {source.readable} there already")
    return await deployment.create_file(call.context.store, file)


async def _update(call: ApiCall, file: ModelFile) -> ModelFile:
    return await call.context.store.write(lambda tx: tx.change(ModelFile, file.id, **call.document))


async def _delete(call: ApiCall, file: ModelFile) -> Doc:
    said = call.query.one("cleanup")
    gone = await deployment.delete_file(
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


async def _evict(call: ApiCall) -> ApiResponse:
    asked = call.document
    if asked["worker_id"] not in call.snapshot.workers:
        raise NotFound(f"Worker {asked['worker_id']} does not exist")
    plan = await deployment.evict_files(
        call.context.store, asked["worker_id"], asked.get("bytes"), dry_run=bool(asked.get("dry_run"))
    )
    return ApiResponse(
        document={
            "items": [
                {
                    "id": file.id,
                    "source": file.source.readable,
                    "size": file.size,
                    "last_used_at": file.last_used_at,
                }
                for file in plan.files
            ],
            "freed": plan.freed,
            "kept": plan.kept,
        }
    )


async def _reset(call: ApiCall) -> ApiResponse:
    file = await deployment.reset_file(call.context.store, RESOURCE.item(call).id)
    return RESOURCE.respond(call, file)


async def _report(call: ApiCall) -> ApiResponse:
    worker_id = call.caller.worker_id
    assert worker_id is not None  # the route is for workers
    await report_file(call.context.store, worker_id, call.number(), call.document)
    return ApiResponse(document=None)


REPORT = ApiRoute(
    method="PUT",
    path="/v1/model-files/{id}/report",
    summary="Say how the fetching of a file fares",
    handler=_report,
    allow=WORKERS,
    body=AttrsObject(FileReport),
)

EVICT = ApiRoute(
    method="POST",
    path="/v1/model-files/evict",
    summary="Remove files of a worker that nobody uses, the longest unused first",
    handler=_evict,
    action="model_file.evict",
    body=Document(
        name="ModelFileEviction",
        fields={
            "worker_id": Integer(least=1),
            "bytes": Nullable(Integer(least=1)),
            "dry_run": Nullable(Boolean()),
        },
        required=("worker_id",),
        strict=True,
        note="bytes: how many to free; without it all that nobody uses goes. dry_run: only say what would go.",
    ),
    answer=Document(
        name="EvictedModelFiles",
        fields={
            "items": Array(
                Document(
                    name="EvictedModelFile",
                    fields={
                        "id": Integer(),
                        "source": Text(),
                        "size": Nullable(Integer()),
                        "last_used_at": Nullable(Instant()),
                    },
                )
            ),
            "freed": Integer(),
            "kept": Text(),
        },
        note="freed: bytes. kept: why other files stay.",
    ),
)

_FIELDS: dict[str, JsonShape] = {
    "worker_id": Integer(least=1),
    "local_dir": Nullable(Text(longest=4096), ""),
    "cleanup_on_delete": Nullable(Boolean(), True),
    "pinned": Nullable(Boolean(), False),
}

RESOURCE = Resource(
    path="/v1/model-files",
    name="Model file",
    record=ModelFile,
    view=FILE,
    list_by=frozenset({Role.ADMIN, Role.WORKER}),
    read_by=frozenset({Role.ADMIN, Role.WORKER}),
    visible=_visible,
    selection=ListSelection(
        filters=(
            equal("worker_id", Integer()),
            equal("state", Text(), lambda file: FileState(file.state).value),
        ),
        search=lambda file: (*file.resolved_paths, file.source.readable, file.source.local_path),
    ),
    create_body=Document(
        name="ModelFileCreate", fields={**SOURCE_BODY, **_FIELDS}, required=("source", "worker_id")
    ),
    create=_create,
    update_body=Document(
        name="ModelFileUpdate", fields={"cleanup_on_delete": Boolean(), "pinned": Boolean()}
    ),
    update=_update,
    delete=_delete,
    deleted=Document(
        name="ModelFileRemoval",
        fields={"kept": Boolean(), "message": Text()},
        note="kept: the record goes, the bytes stay. Files at a local path were there before us, and always do.",
    ),
    delete_query=(
        QueryParameter(
            name="cleanup", shape=Boolean(), note="Remove the bytes too; else as cleanup_on_delete says."
        ),
    ),
    routes=(
        ApiRoute(
            method="POST",
            path="/v1/model-files/{id}/reset",
            summary="Fetch a file again",
            handler=_reset,
            about=ModelFile,
            answer=FILE,
        ),
        EVICT,
        REPORT,
    ),
)
