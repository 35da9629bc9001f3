"""The one cluster that there is: every document of GPUStack 2.x says which it is in."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import WorkerState

from ...listing import PAGE_PARAMETERS, PageRange, page_document
from ...route import ApiCall, ApiResponse, ApiRoute
from ..cluster import CLUSTER_ID, CLUSTER_NAME, check_cluster
from ..translation import Doc


def _document(snapshot: Snapshot) -> Doc:
    workers = snapshot.workers.values()
    return {
        "id": CLUSTER_ID,
        "name": CLUSTER_NAME,
        "description": None,
        "provider": "Docker",
        "state": "ready",
        "state_message": None,
        "is_default": True,
        "workers": len(workers),
        "ready_workers": sum(worker.condition.state is WorkerState.READY for worker in workers),
        "gpus": sum(len(worker.status.gpu_devices) for worker in workers),
        "models": len(snapshot.models),
    }


async def _list(call: ApiCall) -> ApiResponse:
    page = PageRange.of(call.query)
    return ApiResponse(document=page_document(page.cut([_document(call.snapshot)]), page, 1))


async def _read(call: ApiCall) -> ApiResponse:
    check_cluster(call.number())
    return ApiResponse(document=_document(call.snapshot))


ROUTES = (
    ApiRoute(
        method="GET",
        path="/v2/clusters",
        summary="List the one cluster",
        handler=_list,
        query=PAGE_PARAMETERS,
        listed=True,
    ),
    ApiRoute(method="GET", path="/v2/clusters/{id}", summary="Read the one cluster", handler=_read),
)
