"""What the loss of each worker would do to the models that run there."""

from __future__ import annotations

from gpustack.errors import Unavailable
from gpustack.policy.survival import WorkerLoss

from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, AttrsObject, Document, Instant, Nullable
from ..view import plain


async def _read(call: ApiCall) -> ApiResponse:
    watch = call.context.models.survival
    if watch is None:
        raise Unavailable("Placement is not running on this server")
    report = watch.report
    if report is None:
        return ApiResponse(document={"at": None, "losses": []})
    losses = [plain(report.losses[key]) for key in sorted(report.losses)]
    return ApiResponse(document={"at": report.at, "losses": losses})


ROUTES = tagged(
    "survival",
    (
        ApiRoute(
            method="GET",
            path="/v1/survival",
            summary="Say which models would not survive the loss of a worker",
            handler=_read,
            answer=Document(
                name="Survival",
                fields={"at": Nullable(Instant()), "losses": Array(AttrsObject(WorkerLoss))},
                note="As of at, which is null before all workers have been looked at; those that run nothing are left "
                "out. stops: models of which nothing would serve any more; shrinks: those that would have fewer "
                "replicas.",
            ),
        ),
    ),
)
