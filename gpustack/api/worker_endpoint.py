"""What workers send all the time, and their streams of assignments: served on the front's own HTTP core."""

from __future__ import annotations

import re

import attrs
import trio

from gpustack.domain.assignment import AssignmentEvent, AssignmentLine, AssignmentState, lines_between
from gpustack.domain.document import encode
from gpustack.errors import GpustackError, Unavailable
from gpustack.http1.exchange import BodyError, BodyTimeout, Exchange
from gpustack.http1.head import RequestHead
from gpustack.server.assignment_index import AssignmentIndex
from gpustack.server.memory_budget import MemoryReservation
from gpustack.store.store import Store

from .context import ApiContext
from .problems import Problem, problem_of
from .request import ApiRequest, Query
from .resource import routes_of
from .resources import model_files, model_instances, workers
from .route import WORKERS, ApiCall, ApiResponse, ApiRoute, carry_out

LARGEST_BODY = 2 << 20
"""Bytes."""

ASSIGNMENTS_PATH = "/v1/workers/{id}/assignments"
_JSON_FIELDS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


async def _admit_stream(call: ApiCall) -> ApiResponse:
    """Check the caller against the newest snapshot: another server may have changed the worker a moment ago."""
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
    handler=_admit_stream,
    allow=WORKERS,
)
_JOIN = next(
    route for route in routes_of(workers.RESOURCE) if route.method == "POST" and "{" not in route.path
)
_ROUTES = (
    _JOIN,
    workers.HEARTBEAT,
    workers.DRAIN,
    workers.LEAVE,
    workers.STATUS,
    workers.FILES,
    model_instances.REPORT,
    model_files.REPORT,
    _ASSIGNMENTS,
)
_TABLE = tuple(
    (route.method, re.compile(route.path.replace("{id}", r"(?P<id>[0-9]{1,18})")), route) for route in _ROUTES
)


def _find(method: str, path: str) -> tuple[ApiRoute, dict[str, str]] | None:
    if not path.startswith(("/v1/workers", "/v1/model-")):
        return None
    for wanted, pattern, route in _TABLE:
        if wanted == method and (match := pattern.fullmatch(path)):
            return route, match.groupdict()
    return None


def is_worker_request(head: RequestHead) -> bool:
    """Whether ``WorkerEndpoint`` answers a request."""
    return _find(head.method, head.path) is not None


@attrs.frozen
class WorkerEndpoint:
    """Answers the requests for which ``is_worker_request`` says yes."""

    _context: ApiContext
    _assignments: AssignmentIndex

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request, refusals included. Cancellable."""
        head = exchange.head
        found = _find(head.method, head.path)
        if found is None:
            raise ValueError(f"{head.method} {head.path} is not claimed")
        route, params = found
        try:
            with self._context.transport.memory.hold() as hold:
                reply = await carry_out(self._context, route, _request(exchange, params, hold))
        except (BodyError, BodyTimeout):
            raise  # the transport answers these: it knows what is left of the connection
        except GpustackError as error:
            await _refuse(exchange, problem_of(error))
            return
        if route is _ASSIGNMENTS:
            await stream_assignments(exchange, self._context.store, self._assignments, int(params["id"]))
        else:
            await exchange.respond(reply.status, _JSON_FIELDS, reply.content)


def _request(exchange: Exchange, params: dict[str, str], hold: MemoryReservation) -> ApiRequest:
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
    if problem.status == 401:
        extra.append((b"www-authenticate", b'Bearer realm="gpustack"'))
    await exchange.respond(problem.status, [*_JSON_FIELDS, *extra], problem.body(exchange.head.path))


# --- the stream of assignments


@attrs.frozen(kw_only=True)
class StreamTiming:
    """Seconds."""

    still_every: float = 15.0
    """A stream with nothing to tell says so this often."""
    stalled_after: float = 30.0
    """A reader that takes nothing for so long is given up."""
    gather: float = 0.02
    """Pause after each batch of lines, so that a burst of commits becomes few lines."""


async def stream_assignments(
    exchange: Exchange,
    store: Store,
    index: AssignmentIndex,
    worker_id: int,
    *,
    timing: StreamTiming = StreamTiming(),
) -> None:
    """Send a worker all its assignments, then every change, until it leaves or stops reading. Cancellable.

    Level-triggered: each round compares the assignments of now with those that were sent, so no event can be lost. Ends
    when the worker is deleted or gets another credential (it joined again): the stream was opened with the former one.
    ``index`` must run.
    """
    credential = _credential(store, worker_id)
    told = AssignmentState()
    synced = False
    quiet_until = trio.current_time() + timing.still_every
    with index.follow(worker_id) as wake:
        await exchange.start_response(
            200, [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
        )
        while credential is not None and _credential(store, worker_id) == credential:
            now = index.of(worker_id)
            lines = [] if now is told else lines_between(told, now)
            told = now
            if not synced:
                lines.append(AssignmentLine(word=AssignmentEvent.SYNCED))
                synced = True
            if lines:
                if not await _sent(exchange, lines, timing):
                    return  # left unfinished, so that the worker sees that it was cut
                await trio.sleep(timing.gather)
            elif await wake.wait(max(0.0, quiet_until - trio.current_time())):
                continue  # perhaps what changed is nothing of the assignments: then this one has heard nothing yet
            elif not await _sent(exchange, [AssignmentLine(word=AssignmentEvent.STILL)], timing):
                return
            quiet_until = trio.current_time() + timing.still_every
    await exchange.finish()


async def _sent(exchange: Exchange, lines: list[AssignmentLine], timing: StreamTiming) -> bool:
    """Whether the reader has taken them in time."""
    with trio.move_on_after(timing.stalled_after) as patience:
        await exchange.send(b"".join(encode(line) + b"\n" for line in lines))
    return not patience.cancelled_caught


def _credential(store: Store, worker_id: int) -> str | None:
    worker = store.snapshot.workers.get(worker_id)
    return None if worker is None else worker.credential_hash
