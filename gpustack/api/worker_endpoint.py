"""What workers send all the time, served on the front's own HTTP core: no framework on the way."""

from __future__ import annotations

import re

import attrs

from gpustack.errors import GpustackError, Unavailable
from gpustack.http1.exchange import BodyError, BodyTimeout, Exchange
from gpustack.http1.head import RequestHead
from gpustack.server.assignment_index import AssignmentIndex
from gpustack.server.memory_budget import MemoryReservation

from .assignments import stream_assignments
from .context import ApiContext
from .problems import Problem, problem_of
from .request import ApiRequest, Query
from .resources import model_files, model_instances, workers
from .route import WORKERS, ApiCall, ApiResponse, ApiRoute, carry_out

LARGEST_BODY = 2 << 20

ASSIGNMENTS_PATH = "/v1/workers/{id}/assignments"
_POSTS = (
    workers.HEARTBEAT,
    workers.DRAIN,
    workers.LEAVE,
    workers.STATUS,
    workers.FILES,
    model_instances.REPORT,
    model_files.REPORT,
)


async def _admitted(call: ApiCall) -> ApiResponse:
    """What is told is the truth for the worker: never an old picture while another server has the present one."""
    worker_id = workers.own_id(call)
    shown = call.snapshot.workers[worker_id].credential_hash
    await call.context.store.refresh()
    workers.refuse_while_cut_off(call)
    worker = call.snapshot.workers.get(worker_id)
    if worker is not None and worker.credential_hash != shown:
        raise Unavailable("The worker's credential has just been changed: ask again", 1.0)
    return ApiResponse(document=worker_id)


_ASSIGNMENTS = ApiRoute(
    method="GET",
    path=ASSIGNMENTS_PATH,
    summary="The stream by which a worker learns what is wanted of it",
    handler=_admitted,
    allow=WORKERS,
)


def _pattern(route: ApiRoute) -> re.Pattern[str]:
    return re.compile(route.path.replace("{id}", r"(?P<id>[0-9]{1,18})"))


_TABLE = tuple((route.method, _pattern(route), route) for route in (*_POSTS, _ASSIGNMENTS))


def _find(method: str, path: str) -> tuple[ApiRoute, dict[str, str]] | None:
    if not path.startswith(("/v1/workers/", "/v1/model-")):
        return None
    for wanted, pattern, route in _TABLE:
        if wanted == method and (match := pattern.fullmatch(path)):
            return route, match.groupdict()
    return None


def claims(head: RequestHead) -> bool:
    """Whether a request is one of these."""
    return _find(head.method, head.path) is not None


@attrs.frozen
class WorkerEndpoint:
    """Answers what ``claims`` takes."""

    _context: ApiContext
    _book: AssignmentIndex

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request; what the worker did wrong is answered too. Cancellable at any time."""
        head = exchange.head
        found = _find(head.method, head.path)
        if found is None:
            raise ValueError(f"{head.method} {head.path} is not claimed")
        route, params = found
        try:
            with self._context.memory.hold() as hold:
                reply = await carry_out(self._context, route, _ask(exchange, params, hold))
        except (BodyError, BodyTimeout):
            raise  # the transport answers these, and knows what is left of the connection
        except GpustackError as error:
            await _refuse(exchange, problem_of(error))
            return
        if route is _ASSIGNMENTS:
            await stream_assignments(exchange, self._context.store, self._book, int(params["id"]))
            return
        await exchange.respond(reply.status, _fields(), reply.content)


def _ask(exchange: Exchange, params: dict[str, str], hold: MemoryReservation) -> ApiRequest:
    head = exchange.head
    return ApiRequest(
        method=head.method,
        path=head.path,
        header=head.get,
        peer=exchange.peer.host,
        body=lambda: exchange.read_body(LARGEST_BODY, hold.take),
        hold=hold,
        params=params,
        query=Query.of(head.query),
        header_names=head.names,
        owner=exchange.owner,
    )


async def _refuse(exchange: Exchange, problem: Problem) -> None:
    extra = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await exchange.respond(problem.status, [*_fields(), *extra], problem.body(exchange.head.path))


def _fields() -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
