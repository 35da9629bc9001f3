"""Chooses replicas for a request and asks them one after the other, until one has answered.

The retry rule: no replica is asked twice, but for one whose kept connection turned out to be closed; and an engine may
begin to work on one request twice at most. What makes an engine crash must not go through all replicas of a model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from math import inf
from typing import Final

import attrs

from gpustack.domain.access import KeyScope, Principal
from gpustack.domain.error_format import ErrorFormat
from gpustack.domain.route import RUNS, RUNS_LEFT, TARGET_PORT, WORKER_FAULT, Endpoint, ModelRoute
from gpustack.errors import GatewayTimeout, GpustackError, Unavailable
from gpustack.gateway.answer import pass_on
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.meter import EventStreamMeter
from gpustack.gateway.request import AdmittedRequest
from gpustack.gateway.rerank import TEXTS_PATH
from gpustack.http1.fields import Fields
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream import UpstreamAddress, UpstreamError, UpstreamResponse, UpstreamTimeout
from gpustack.http1.upstream_exchange import UpstreamExchange

log = logging.getLogger(__name__)

_MAX_RUNS: Final = 2
"""Connections to engines on which one request may be sent."""
_TRY_ELSEWHERE: Final = frozenset({502, 503})
"""Statuses of an engine after which another replica is asked."""
_LONGEST_COUNT: Final = 2
"""Digits of a number of runs."""

RenderError = Callable[[GpustackError, str], tuple[int, list[tuple[bytes, bytes]], bytes]]
"""How an error is answered on a path: status, headers, body."""


class _Outcome(Enum):
    """What came of asking one replica."""

    ANSWERED = auto()
    """The client has the answer, or as much of it as there is: nobody else can be asked."""
    FAILED = auto()
    """Nothing of an answer has been sent to the client."""
    STALE = auto()
    """The same, because a kept connection had been closed: a new connection tells whether the replica still serves."""


@attrs.frozen(eq=False, repr=False)
class Dispatcher:
    """Sends requests to replicas: to engines on this machine directly, to others through their workers."""

    _endpoints: Endpoints
    _pool: ConnectionPool
    _forward_key: Callable[[str], str]
    """The key with which we authenticate at a worker, by the worker's uuid."""
    _engine_fields: Callable[[int], Fields]
    """The headers that authenticate us at the engine on a port of this machine. On other machines the worker adds
    them."""
    _render_error: RenderError
    _timeout: float
    """Seconds an engine may take until its first byte, and between two pieces of its answer."""
    _max_in_flight: float = inf
    """Requests to engines that may be in flight at once."""

    async def dispatch(self, request: AdmittedRequest) -> None:
        """Ask one replica after the other until one has answered.

        Raises ``Unavailable`` when none is left to ask or the request has had its two runs, ``GatewayTimeout`` when an
        engine has not answered in time.
        """
        if self._pool.in_flight >= self._max_in_flight:
            raise Unavailable(
                f"{self._max_in_flight:g} requests are under way, as many as GPUSTACK_TCP_CONNECTOR_LIMIT allows; "
                "try again in a moment",
                retry_after=1.0,
            )
        again: Endpoint | None = None
        while True:
            endpoint = again or self._endpoints.pick(request.route, request.tried)
            if endpoint is None:
                raise _none_left(request.route, request.tried, request.principal)
            request.tried.add(endpoint.instance_id)
            outcome = await self._ask(endpoint, request, fresh=again is not None)
            if outcome is _Outcome.ANSWERED:
                return
            if request.runs >= _MAX_RUNS:
                raise Unavailable(
                    f"'{request.route.model_name}' failed this request {request.runs} times; it is not tried again"
                )
            again = endpoint if outcome is _Outcome.STALE else None
            # It may have changed meanwhile, and so may the right to it.
            request.route = self._endpoints.route_for(request.parsed.model, request.principal)

    async def _ask(self, endpoint: Endpoint, request: AdmittedRequest, *, fresh: bool) -> _Outcome:
        """Send the request to one replica, over a new connection if ``fresh``, and pass its answer on.

        Whatever was sent counts as a run, whether or not it was read.
        """
        upstream = self._upstream(endpoint, request, fresh=fresh)
        response: UpstreamResponse | None = None
        try:
            with self._endpoints.under_way(endpoint, upstream):
                async with upstream as response:
                    if not self._is_refusal(response, endpoint, request):
                        await pass_on(response, request)
                        return _Outcome.ANSWERED
        except UpstreamError as error:
            # A worker that began to answer has said how often it asked its engine.
            request.runs += upstream.runs if response is None or endpoint.direct else _runs_told(response)
            request.failed = True
            if upstream.stale and request.runs < _MAX_RUNS:
                return _Outcome.STALE
            self._suspect(endpoint, str(error))
            if request.exchange.response_started:
                await self._end_torn(request)
                return _Outcome.ANSWERED
            if isinstance(error, UpstreamTimeout) and error.stage != "connect":
                raise GatewayTimeout(f"'{request.route.model_name}' did not answer in time") from error
        return _Outcome.FAILED

    def _upstream(self, endpoint: Endpoint, request: AdmittedRequest, *, fresh: bool) -> UpstreamExchange:
        """The request as the engine gets it, not sent yet: to it directly, or through its worker."""
        query = request.exchange.head.query
        texts = request.rerank is not None and request.rerank.texts
        target = TEXTS_PATH if texts else request.path.engine_path
        if query:
            target = b"%b?%b" % (target, query.encode("ascii"))
        port = endpoint.engine_port
        if endpoint.direct:
            address = _address("127.0.0.1", port)
            headers = [*request.headers, *self._engine_fields(port)]
        else:
            address = _address(endpoint.host, endpoint.worker_port)
            target = b"/proxy" + target
            headers = [
                *request.headers,
                (b"authorization", b"Bearer " + self._forward_key(endpoint.worker_uuid).encode()),
                (TARGET_PORT, b"%d" % port),
                (RUNS_LEFT, b"%d" % (_MAX_RUNS - request.runs)),
            ]
        file = request.parsed.file
        return self._pool.request(
            address,
            "POST",
            target,
            headers,
            request.sent_to(endpoint) if file is None else file.pieces(),
            content_length=None if file is None else file.size,
            first_byte_timeout=self._timeout,
            # Some engines send their head at once, and the first token when they have read the prompt.
            idle_timeout=self._timeout,
            fresh=fresh,
            redial=False,
        )

    def _is_refusal(self, response: UpstreamResponse, endpoint: Endpoint, request: AdmittedRequest) -> bool:
        """Whether the answer only means that another replica must be asked; counts the runs that it cost."""
        if not endpoint.direct and (fault := response.get(WORKER_FAULT)) is not None:
            # The worker speaks, not the engine. No client may see that, a 401 least of all.
            request.runs += 0 if fault == b"refused" else _runs_told(response)
            self._suspect(endpoint, f"its worker answered {response.status}")
            return True
        if response.status not in _TRY_ELSEWHERE:
            return False
        request.runs += 1 if endpoint.direct else _runs_told(response)
        if request.runs >= _MAX_RUNS or self._endpoints.pick(request.route, request.tried) is None:
            return False  # no better answer will come
        self._suspect(endpoint, f"it answered {response.status}")
        return True

    def _suspect(self, endpoint: Endpoint, reason: str) -> None:
        if self._endpoints.suspect(endpoint):
            log.warning("A replica failed a request: instance=%s reason=%s", endpoint.instance_name, reason)

    async def _end_torn(self, request: AdmittedRequest) -> None:
        """After a replica failed inside its answer: a stream of events ends with an error event in the form of its API.

        Any other answer is left unfinished, and the transport shows the client that it was cut.
        """
        if not isinstance(request.meter, EventStreamMeter):
            return
        error = Unavailable("The replica that was answering has failed")
        _, _, body = self._render_error(error, request.exchange.head.path)
        name = b"event: error\n" if request.path.error_format is ErrorFormat.ANTHROPIC else b""
        await request.exchange.send(b"%b%bdata: %b\n\n" % (request.meter.gap, name, body))
        await request.exchange.finish()


def _runs_told(response: UpstreamResponse) -> int:
    """How often a worker says that it gave the request to its engine; 1 where it does not say so (older versions)."""
    runs = response.get(RUNS) or b""
    return int(runs) if runs.isdigit() and len(runs) <= _LONGEST_COUNT else 1


@lru_cache(maxsize=1024)
def _address(host: str, port: int) -> UpstreamAddress:
    """Remembered, because the pool finds the connections of an address faster if it is the same object."""
    return UpstreamAddress(host, port)


def _none_left(route: ModelRoute, tried: set[int], principal: Principal) -> Unavailable:
    if tried:
        why = f": {route.silence}" if route.silence else ""
        return Unavailable(
            f"No replica of '{route.model_name}' answered ({len(tried)} tried){why}", retry_after=1.0
        )
    in_detail = principal.is_admin and principal.has_scope(KeyScope.READ, KeyScope.MANAGEMENT)
    why = route.pending_details if in_detail else route.pending_reason
    return Unavailable(f"No running instances available for '{route.model_name}': {why}", retry_after=2.0)
