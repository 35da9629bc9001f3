"""The way of a request: key → model → replica → bytes through → usage. No database, no thread, no re-encoding."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from functools import lru_cache
from math import inf
from typing import Final

import attrs

from gpustack.domain.access import Principal, Role, Scope
from gpustack.domain.dialect import Dialect
from gpustack.domain.model import Model
from gpustack.domain.route import RUNS, RUNS_LEFT, TARGET_PORT, WORKER_FAULT, Endpoint, Route
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.usage import Operation
from gpustack.errors import (
    BadRequest,
    GatewayTimeout,
    GpustackError,
    LimitReached,
    MethodNotAllowed,
    RequestTimeout,
    Unauthorized,
    Unavailable,
)
from gpustack.gateway.admission import Admission, Authenticate
from gpustack.gateway.answer import pass_on
from gpustack.gateway.ask import LONG, Ask, is_slow, read_ask
from gpustack.gateway.bound import Bound, bound_of
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.form import read_form_ask
from gpustack.gateway.gate import Gate
from gpustack.gateway.header import for_engine
from gpustack.gateway.limiter import Limiter, Party, should_retry
from gpustack.gateway.media import refuse_addresses
from gpustack.gateway.member import may_have, members
from gpustack.gateway.purpose import mismatch
from gpustack.gateway.request import AdmittedRequest
from gpustack.gateway.route import BY_PATH, InferenceRoute
from gpustack.gateway.tally import EventTally
from gpustack.gateway.usage import Usage
from gpustack.http1.exchange import BodyTimeout, Disconnected, Exchange
from gpustack.http1.fault import UpstreamError, UpstreamTimeout
from gpustack.http1.fields import Headers
from gpustack.http1.head import Head
from gpustack.http1.pool import Pool
from gpustack.http1.reply import Fields
from gpustack.http1.upstream import Address, Response
from gpustack.identity.authenticate import holds
from gpustack.metrics.traffic import Passage, Traffic
from gpustack.nursery.limiter import Threads, threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.access import may_see, may_use, unknown
from gpustack.server.memory import MemoryBudget, MemoryHold
from gpustack.server.usage import UsageKey, UsageLedger

log = logging.getLogger(__name__)

_BODY_LIMIT: Final = 64 << 20
_BODY_OF_ANYBODY: Final = 4 << 20
"""Bytes of a request of who does not say who it is: all of them are kept until they are whole."""
_MOST_RUNS: Final = 2
"""Connections to engines on which one request may be sent: what kills engines must not go through all of them."""
_TRY_ELSEWHERE: Final = frozenset({502, 503})
_DO_NOT_RETRY: Final = (b"x-should-retry", b"false")
"""What clients of OpenAI heed: else they would ask again within seconds, however long ``Retry-After`` says."""
_LONGEST_COUNT: Final = 2
"""Digits."""
_PROMPT_CACHE: Final = b"cache_prompt"
_CLIENT_LEFT: Final = 499
"""Counted where nobody was left to be answered."""
_MORE: Final[Mapping[type[GpustackError], tuple[bytes, bytes]]] = {
    MethodNotAllowed: (b"allow", b"POST"),
    Unauthorized: (b"www-authenticate", b'Bearer realm="gpustack"'),
}

Problem = Callable[[GpustackError, str], tuple[int, list[tuple[bytes, bytes]], bytes]]
"""How an error is answered on a path: status, headers, body."""


def claims(head: Head) -> bool:
    """Whether a request is inference; everything else is somebody else's."""
    return head.path in BY_PATH


class _Outcome(Enum):
    """What came of asking one replica."""

    ANSWERED = auto()
    """As far as it can be: the client has the answer, or the part of it that there is."""
    FAILED = auto()
    """Nothing of an answer reached the client."""
    STALE = auto()
    """The same, over a kept connection that was closed: a new one tells whether the replica still serves."""


@attrs.frozen(eq=False, repr=False)
class Gateway:
    """The handler of inference paths."""

    _authenticate: Authenticate
    _endpoints: Endpoints
    _gate: Gate
    _pool: Pool
    _usage: UsageLedger
    _forward_key: Callable[[str], str]
    """The key by which a worker, named by its uuid, knows us."""
    _problem: Problem
    _timeout: float
    """Seconds an engine may take to its first byte, and between two of them."""
    limiter: Limiter
    traffic: Traffic
    """Told of every request, for the exporter."""
    _most: float = inf
    """Requests to engines that may be under way at once. Whoever is not let in takes none of them."""
    _engine_fields: Callable[[int], Fields] = lambda port: ()
    """By which the engine on a port of this machine knows us. Elsewhere its worker says who asks."""
    _large: Threads = attrs.field(factory=lambda: threads("gateway-large-body", 1))
    _admission: Admission = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: Admission(self._authenticate, self._endpoints.people), takes_self=True
        ),
    )
    _memory: MemoryBudget = attrs.field(factory=MemoryBudget)
    _under_way: dict[Exchange, tuple[Principal, Passage]] = attrs.field(factory=dict, init=False)
    """Whose every request is, from its head to its end."""

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request. Cancelled when the client leaves; the engine is let go of then."""
        passage = Passage(time.monotonic())
        try:
            await self._answer(exchange, passage)
        finally:
            self.traffic.passed(passage, exchange.head.path, exchange.status or _CLIENT_LEFT)

    def shut_out(self, snapshot: Snapshot, faults: Quarantine) -> int:
        """Cut off every request of somebody who may not go on with it any more; how many.

        A key or login that only comes to its end does not matter to what was begun before. One of which that cannot be
        found out is cut off as well.
        """
        cut = 0
        for exchange, (principal, passage) in list(self._under_way.items()):
            may_go_on = False
            with faults.row((principal.user_id, principal.api_key_id, passage.model_id)):
                may_go_on = _may_go_on(principal, snapshot.get(Model, passage.model_id), snapshot)
            if not may_go_on:
                exchange.cut()
                cut += 1
        return cut

    async def _answer(self, exchange: Exchange, passage: Passage) -> None:
        try:
            self._gate.enter()
            try:
                await self._serve(exchange, passage)
            finally:
                self._gate.leave()
        except Disconnected:
            raise
        except GpustackError as error:
            if exchange.response_started:
                raise
            await self._refuse(exchange, error)

    async def _refuse(self, exchange: Exchange, error: GpustackError) -> None:
        status, headers, body = self._problem(error, exchange.head.path)
        more = _MORE.get(type(error))
        await exchange.respond(status, headers if more is None else [*headers, more], body)

    async def _serve(self, exchange: Exchange, passage: Passage) -> None:
        route = BY_PATH[exchange.head.path]
        if exchange.head.method != "POST":
            raise MethodNotAllowed(f"{exchange.head.method} is not possible at {route.path}: it takes POST")
        principal = await self._admission(exchange)
        self._under_way[exchange] = principal, passage
        try:
            await self._serve_admitted(exchange, route, principal, passage)
        finally:
            del self._under_way[exchange]

    async def _serve_admitted(
        self, exchange: Exchange, route: InferenceRoute, principal: Principal, passage: Passage
    ) -> None:
        headers = for_engine(exchange.head)
        with self._memory.hold(principal) as hold:
            limit = _BODY_OF_ANYBODY if principal.role is Role.ANYBODY else _BODY_LIMIT
            ask = await self._read(exchange, route, limit, hold)
            await self._serve_asked(exchange, route, principal, passage, headers, ask, hold)

    async def _serve_asked(
        self,
        exchange: Exchange,
        route: InferenceRoute,
        principal: Principal,
        passage: Passage,
        headers: Headers,
        ask: Ask,
        hold: MemoryHold,
    ) -> None:
        model = self._route_of(ask, principal)
        request = AdmittedRequest(exchange, route, principal, ask, headers, model, passage, hold)
        passage.model_id = request.model.model_id
        fault = mismatch(route, request.model.model_name, request.model.categories)
        if fault is not None:
            raise BadRequest(fault)
        if request.model.keeps_no_prompts and may_have(ask.body, _PROMPT_CACHE):
            await self._large.run(lambda: _refuse_prompt_cache(ask.body, request.model.model_name))
        limited = self.limiter.of(principal, request.model)
        if limited:
            await self._reserve(request, limited)
        try:
            if ask.several is not None and not request.bound.prompt:
                request.bound = await self._bound(request, ())
            await self._ask_replicas(request)
        except GpustackError:
            request.failed = True
            raise
        finally:
            self._count(request)

    async def _reserve(self, request: AdmittedRequest, limited: Sequence[Party]) -> None:
        """Let it in as far as its limits go; what it may use is theirs until it has ended."""
        exchange, bound = request.exchange, Bound(0, 0)
        try:
            if any(party.counts_tokens for party in limited):
                bound = await self._bound(request, limited)
            if bound.total is None:
                raise BadRequest(
                    f"{limited[0].words} has a limit of tokens, and nothing says how long an answer of "
                    f"'{request.model.model_name}' may become: send max_tokens"
                )
            request.permit = await self.limiter.enter(limited, bound.total)
        except LimitReached as error:
            exchange.extra = [*exchange.extra, *self.limiter.fields(limited)]
            if not should_retry(error):
                exchange.extra = [*exchange.extra, _DO_NOT_RETRY]
            raise
        request.bound = bound
        exchange.extra = [*exchange.extra, *request.permit.fields]

    async def _bound(self, request: AdmittedRequest, limited: Sequence[Party]) -> Bound:
        body, operation, context = request.ask.body, request.route.operation, request.model.context
        if len(body) <= LONG:
            return bound_of(body, operation, context)
        self.limiter.peek(limited)
        return await self._large.run(lambda: bound_of(body, operation, context))

    async def _read(self, exchange: Exchange, route: InferenceRoute, limit: int, hold: MemoryHold) -> Ask:
        try:
            body = await exchange.read_body(limit, hold.take)
        except BodyTimeout as error:
            raise RequestTimeout(str(error)) from error
        if len(body) > LONG and is_slow(body):
            return await self._large.run(lambda: _ask_of(body, exchange.head, route))
        return _ask_of(body, exchange.head, route)

    def _route_of(self, ask: Ask, principal: Principal) -> Route:
        found = self._endpoints.route(ask.model)
        if found is None or not may_use(principal, found.model_name, found.access, found.allowed_user_ids):
            raise unknown(principal, ask.model)
        return found

    async def _ask_replicas(self, request: AdmittedRequest) -> None:
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
        response: Response | None = None
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

    def _is_refusal(self, response: Response, endpoint: Endpoint, request: AdmittedRequest) -> bool:
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

    def _way_to(self, endpoint: Endpoint, request: AdmittedRequest) -> tuple[Address, bytes, Headers]:
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
        if not isinstance(request.tally, EventTally):
            return  # unfinished, as the transport makes plain to the client
        error = Unavailable("The replica that was answering has failed")
        _, _, body = self._problem(error, request.exchange.head.path)
        name = b"event: error\n" if request.route.dialect is Dialect.ANTHROPIC else b""
        await request.exchange.send(b"%b%bdata: %b\n\n" % (request.tally.gap, name, body))
        await request.exchange.finish()

    def _count(self, request: AdmittedRequest) -> None:
        """Each request once, however it ended and however many replicas it took; its tokens as far as known."""
        usage = None if request.tally is None else request.tally.usage()
        if request.permit is not None:
            self.limiter.leave(request.permit, _used(request, usage))
        if usage is not None:
            request.passage.prompt, request.passage.completion = usage.prompt, usage.completion
        principal, model = request.principal, request.model
        key = _usage_key(
            -1 if principal.user_id is None else principal.user_id,
            -1 if principal.api_key_id is None else principal.api_key_id,
            model.model_id,
            request.route.operation,
            principal.username,
            model.model_name,
        )
        self._usage.add(
            key,
            prompt=0 if usage is None else usage.prompt,
            completion=0 if usage is None else usage.completion,
            failed=request.failed,
        )


def _runs_told(response: Response) -> int:
    """How often a worker says that it gave the request to its engine; former ones do not say it."""
    told = response.get(RUNS) or b""
    return int(told) if told.isdigit() and len(told) <= _LONGEST_COUNT else 1


def _ask_of(body: bytes, head: Head, route: InferenceRoute) -> Ask:
    if route.form:
        return read_form_ask(body, head.headers)
    refuse_addresses(body)
    return read_ask(body, splices=route.splices, single=route.parted)


def _refuse_prompt_cache(body: bytes, model: str) -> None:
    """A request may say otherwise than its engine was told, and would learn what was asked before it."""
    for name, start, end in members(body):
        if name == _PROMPT_CACHE.decode() and body[start:end] not in (b"false", b"null"):
            raise BadRequest(f"'{name}' cannot be set: '{model}' keeps no prompts between requests")


def _used(request: AdmittedRequest, usage: Usage | None) -> int:
    """What a request counts against its limits: what was measured, and the most it can have been where nothing was."""
    if usage is not None:
        prompt = usage.prompt if usage.measured else max(usage.prompt, request.bound.prompt)
        return prompt + usage.completion
    if request.failed:
        return 0
    if request.tally is None:  # its client left before the answer began, but somebody was at work on it
        return request.bound.prompt
    return request.bound.total or 0


@lru_cache(maxsize=1024)
def _address(host: str, port: int) -> Address:
    """One object for each place: the pool looks it up by identity."""
    return Address(host, port)


@lru_cache(maxsize=1024)
def _usage_key(
    user_id: int, api_key_id: int, model_id: int, operation: Operation, username: str, model_name: str
) -> UsageKey:
    """Most requests are counted where the one before was."""
    return UsageKey(
        user_id=user_id,
        api_key_id=api_key_id,
        model_id=model_id,
        operation=operation,
        username=username,
        model_name=model_name,
    )


def _nobody(model: Route, tried: set[int], principal: Principal) -> Unavailable:
    if tried:
        why = f": {model.silence}" if model.silence else ""
        return Unavailable(
            f"No replica of '{model.model_name}' answered ({len(tried)} tried){why}", retry_after=1.0
        )
    told = principal.is_admin and principal.has_scope(Scope.READ, Scope.MANAGEMENT)
    why = model.pending_details if told else model.pending_reason
    return Unavailable(f"No running instances available for '{model.model_name}': {why}", retry_after=2.0)


def _may_go_on(principal: Principal, model: Model | None, snapshot: Snapshot) -> bool:
    return holds(principal, snapshot, None) and (model is None or may_see(principal, model))
