"""Asks the replicas of a model, one after the other, until one has answered: two runs for a request at most."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from typing import Final

import attrs

from gpustack.domain.access import KeyScope, Principal
from gpustack.domain.error_format import ErrorFormat
from gpustack.domain.route import RUNS, RUNS_LEFT, TARGET_PORT, WORKER_FAULT, Endpoint, ModelRoute
from gpustack.errors import GatewayTimeout, GpustackError, Unavailable
from gpustack.gateway.answer import pass_on
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.inference_request import InferenceRequest
from gpustack.gateway.meter import EventStreamMeter
from gpustack.gateway.request import AdmittedRequest
from gpustack.http1.fault import UpstreamError, UpstreamTimeout
from gpustack.http1.fields import Headers
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reply import Fields
from gpustack.http1.upstream import UpstreamAddress, UpstreamResponse

log = logging.getLogger(__name__)

_MOST_RUNS: Final = 2
"""Connections to engines on which one request may be sent: what kills engines must not go through all of them."""
_TRY_ELSEWHERE: Final = frozenset({502, 503})
_LONGEST_COUNT: Final = 2
"""Digits."""

RenderError = Callable[[GpustackError, str], tuple[int, list[tuple[bytes, bytes]], bytes]]
"""How an error is answered on a path: status, headers, body."""


class _Outcome(Enum):
    """What came of asking one replica."""

    ANSWERED = auto()
    """As far as it can be: the client has the answer, or the part of it that there is."""
    FAILED = auto()
    """Nothing of an answer reached the client."""
    STALE = auto()
    """The same, over a kept connection that was closed: a new one tells whether the replica still serves."""


@attrs.frozen(eq=False, repr=False)
class Dispatcher:
    """The way to the replicas, directly or through their workers."""

    _endpoints: Endpoints
    _pool: ConnectionPool
    _route_of: Callable[[InferenceRequest, Principal], ModelRoute]
    """Raises where the model is gone, or is not for that caller any more."""
    _forward_key: Callable[[str], str]
    """The key by which a worker, named by its uuid, knows us."""
    _engine_fields: Callable[[int], Fields]
    """By which the engine on a port of this machine knows us. Elsewhere its worker says who asks."""
    _problem: RenderError
    _timeout: float
    """Seconds an engine may take to its first byte, and between two of them."""
    _most: float
    """Requests to engines that may be under way at once."""

    async def ask(self, request: AdmittedRequest) -> None:
        """One after the other, until one has answered or nobody is left to ask."""
        if self._pool.in_flight >= self._most:
            raise Unavailable(
                f"{self._most:g} requests are under way, as many as GPUSTACK_TCP_CONNECTOR_LIMIT allows; try again "
                "in a moment",
                retry_after=1.0,
            )
        again: Endpoint | None = None
        while True:
            endpoint = again or self._endpoints.pick(request.model, request.tried)
            if endpoint is None:
                raise _nobody(request.model, request.tried, request.principal)
            request.tried.add(endpoint.instance_id)
            with self._endpoints.counting(endpoint):
                outcome = await self._ask_replica(endpoint, request, fresh=again is not None)
            if outcome is _Outcome.ANSWERED:
                return
            if request.runs >= _MOST_RUNS:
                raise Unavailable(
                    f"'{request.model.model_name}' failed this request {request.runs} times; it is not tried again"
                )
            again = endpoint if outcome is _Outcome.STALE else None
            request.model = self._route_of(request.ask, request.principal)  # it may have changed meanwhile

    async def _ask_replica(self, endpoint: Endpoint, request: AdmittedRequest, *, fresh: bool) -> _Outcome:
        """Send the request to one replica, over a new connection if ``fresh``, and pass its answer on.

        Whatever was sent counts as a run, whether or not it was read.
        """
        address, target, headers = self._way_to(endpoint, request)
        call = self._pool.request(
            address,
            "POST",
            target,
            headers,
            request.ask.body,
            first_byte_timeout=self._timeout,
            # Some engines send their head at once, and the first token when they have read the prompt.
            idle_timeout=self._timeout,
            fresh=fresh,
            redial=False,
        )
        response: UpstreamResponse | None = None
        try:
            with self._endpoints.under_way(endpoint, call):
                async with call as response:
                    if not self._is_refusal(response, endpoint, request):
                        await pass_on(response, request)
                        return _Outcome.ANSWERED
        except UpstreamError as error:
            # A worker that began to answer has said how often it asked its engine.
            request.runs += call.runs if response is None or endpoint.direct else _runs_told(response)
            request.failed = True
            if call.stale and request.runs < _MOST_RUNS:
                return _Outcome.STALE
            self._doubt(endpoint, str(error))
            if request.exchange.response_started:
                await self._end_torn(request)
                return _Outcome.ANSWERED
            if isinstance(error, UpstreamTimeout) and error.stage != "connect":
                raise GatewayTimeout(f"'{request.model.model_name}' did not answer in time") from error
        return _Outcome.FAILED

    def _is_refusal(self, response: UpstreamResponse, endpoint: Endpoint, request: AdmittedRequest) -> bool:
        """Whether the answer says no more than that somebody else must be asked; counts the runs that it cost."""
        if not endpoint.direct and (fault := response.get(WORKER_FAULT)) is not None:
            # Its worker speaks, not the engine: nothing that a client should see, a 401 least of all.
            request.runs += 0 if fault == b"refused" else _runs_told(response)
            self._doubt(endpoint, f"its worker answered {response.status}")
            return True
        if response.status not in _TRY_ELSEWHERE:
            return False
        request.runs += 1 if endpoint.direct else _runs_told(response)
        if request.runs >= _MOST_RUNS or self._endpoints.pick(request.model, request.tried) is None:
            return False  # then it is the best answer there is
        self._doubt(endpoint, f"it answered {response.status}")
        return True

    def _doubt(self, endpoint: Endpoint, reason: str) -> None:
        if self._endpoints.suspect(endpoint):
            log.warning("A replica failed a request: instance=%s reason=%s", endpoint.instance_name, reason)

    def _way_to(self, endpoint: Endpoint, request: AdmittedRequest) -> tuple[UpstreamAddress, bytes, Headers]:
        query = request.exchange.head.query
        path = request.route.engine_path
        target = b"%b?%b" % (path, query.encode("ascii")) if query else path
        if endpoint.direct:
            port = endpoint.engine_port
            return _address("127.0.0.1", port), target, [*request.headers, *self._engine_fields(port)]
        key = self._forward_key(endpoint.worker_uuid)
        headers = [
            *request.headers,
            (b"authorization", b"Bearer " + key.encode()),
            (TARGET_PORT, b"%d" % endpoint.engine_port),
            (RUNS_LEFT, b"%d" % (_MOST_RUNS - request.runs)),
        ]
        return _address(endpoint.host, endpoint.worker_port), b"/proxy" + target, headers

    async def _end_torn(self, request: AdmittedRequest) -> None:
        """The replica failed in the midst of its answer: a stream says so in its own form, anything else is cut."""
        if not isinstance(request.tally, EventStreamMeter):
            return  # unfinished, as the transport makes plain to the client
        error = Unavailable("The replica that was answering has failed")
        _, _, body = self._problem(error, request.exchange.head.path)
        name = b"event: error\n" if request.route.dialect is ErrorFormat.ANTHROPIC else b""
        await request.exchange.send(b"%b%bdata: %b\n\n" % (request.tally.gap, name, body))
        await request.exchange.finish()


def _runs_told(response: UpstreamResponse) -> int:
    """How often a worker says that it gave the request to its engine; former ones do not say it."""
    told = response.get(RUNS) or b""
    return int(told) if told.isdigit() and len(told) <= _LONGEST_COUNT else 1


@lru_cache(maxsize=1024)
def _address(host: str, port: int) -> UpstreamAddress:
    """One object for each place: the pool looks it up by identity."""
    return UpstreamAddress(host, port)


def _nobody(model: ModelRoute, tried: set[int], principal: Principal) -> Unavailable:
    if tried:
        why = f": {model.silence}" if model.silence else ""
        return Unavailable(
            f"No replica of '{model.model_name}' answered ({len(tried)} tried){why}", retry_after=1.0
        )
    told = principal.is_admin and principal.has_scope(KeyScope.READ, KeyScope.MANAGEMENT)
    why = model.pending_details if told else model.pending_reason
    return Unavailable(f"No running instances available for '{model.model_name}': {why}", retry_after=2.0)
