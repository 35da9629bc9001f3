"""The way of a request: key → model → replica → bytes through → usage. No database, no thread, no re-encoding."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import inf
from typing import Final

import attrs

from gpustack.domain.access import Principal, Role
from gpustack.domain.model import Model
from gpustack.domain.route import ModelRoute
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.usage import Operation
from gpustack.errors import (
    BadRequest,
    GpustackError,
    LimitReached,
    MethodNotAllowed,
    RequestTimeout,
    Unauthorized,
)
from gpustack.gateway.authentication_cache import Authenticate, AuthenticationCache
from gpustack.gateway.dispatcher import Dispatcher, RenderError
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.form import read_form
from gpustack.gateway.gate import Gate
from gpustack.gateway.header import for_engine
from gpustack.gateway.inference_request import LONG, InferenceRequest, is_slow, read_inference_request
from gpustack.gateway.json_member import may_have, members
from gpustack.gateway.limiter import LimitedSubject, Limiter, should_retry
from gpustack.gateway.media import refuse_addresses
from gpustack.gateway.path import BY_PATH, InferencePath
from gpustack.gateway.purpose import mismatch
from gpustack.gateway.request import AdmittedRequest
from gpustack.gateway.token_bound import TokenBound, bound_of
from gpustack.gateway.token_usage import TokenUsage
from gpustack.http1.exchange import BodyTimeout, ClientDisconnect, Exchange
from gpustack.http1.head import RequestHead
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.reply import Fields
from gpustack.identity.authentication import holds
from gpustack.metrics.traffic import RequestMeasurement, Traffic
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.access import may_see, may_use, unknown
from gpustack.server.memory_budget import MemoryBudget, MemoryReservation
from gpustack.server.usage_ledger import UsageKey, UsageLedger

log = logging.getLogger(__name__)

_BODY_LIMIT: Final = 64 << 20
_BODY_OF_ANYBODY: Final = 4 << 20
"""Bytes of a request of who does not say who it is: all of them are kept until they are whole."""
_DO_NOT_RETRY: Final = (b"x-should-retry", b"false")
"""What clients of OpenAI heed: else they would ask again within seconds, however long ``Retry-After`` says."""
_PROMPT_CACHE: Final = b"cache_prompt"
_CLIENT_LEFT: Final = 499
"""Counted where nobody was left to be answered."""
_MORE: Final[Mapping[type[GpustackError], tuple[bytes, bytes]]] = {
    MethodNotAllowed: (b"allow", b"POST"),
    Unauthorized: (b"www-authenticate", b'Bearer realm="gpustack"'),
}


def is_inference(head: RequestHead) -> bool:
    """Whether a request is inference; everything else is somebody else's."""
    return head.path in BY_PATH


@attrs.frozen(eq=False, repr=False)
class Gateway:
    """The handler of inference paths."""

    _authenticate: Authenticate
    _endpoints: Endpoints
    _gate: Gate
    _pool: ConnectionPool
    _usage: UsageLedger
    _forward_key: Callable[[str], str]
    """The key by which a worker, named by its uuid, knows us."""
    _problem: RenderError
    _timeout: float
    """Seconds an engine may take to its first byte, and between two of them."""
    limiter: Limiter
    traffic: Traffic
    """Told of every request, for the exporter."""
    _most: float = inf
    """Requests to engines that may be under way at once. Whoever is not let in takes none of them."""
    _engine_fields: Callable[[int], Fields] = lambda port: ()
    """By which the engine on a port of this machine knows us. Elsewhere its worker says who asks."""
    _large: ThreadLimiter = attrs.field(factory=lambda: threads("gateway-large-body", 1))
    _admission: AuthenticationCache = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: AuthenticationCache(self._authenticate, self._endpoints.people), takes_self=True
        ),
    )
    _replicas: Dispatcher = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: Dispatcher(
                self._endpoints,
                self._pool,
                self._route_of,
                self._forward_key,
                self._engine_fields,
                self._problem,
                self._timeout,
                self._most,
            ),
            takes_self=True,
        ),
    )
    _memory: MemoryBudget = attrs.field(factory=MemoryBudget)
    _under_way: dict[Exchange, tuple[Principal, RequestMeasurement]] = attrs.field(factory=dict, init=False)
    """Whose every request is, from its head to its end."""

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request. Cancelled when the client leaves; the engine is let go of then."""
        passage = RequestMeasurement(time.monotonic())
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

    async def _answer(self, exchange: Exchange, passage: RequestMeasurement) -> None:
        try:
            self._gate.enter()
            try:
                await self._serve(exchange, passage)
            finally:
                self._gate.leave()
        except ClientDisconnect:
            raise
        except GpustackError as error:
            if exchange.response_started:
                raise
            await self._refuse(exchange, error)

    async def _refuse(self, exchange: Exchange, error: GpustackError) -> None:
        status, headers, body = self._problem(error, exchange.head.path)
        more = _MORE.get(type(error))
        await exchange.respond(status, headers if more is None else [*headers, more], body)

    async def _serve(self, exchange: Exchange, passage: RequestMeasurement) -> None:
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
        self, exchange: Exchange, route: InferencePath, principal: Principal, passage: RequestMeasurement
    ) -> None:
        headers = for_engine(exchange.head)
        with self._memory.hold(principal) as hold:
            limit = _BODY_OF_ANYBODY if principal.role is Role.ANYBODY else _BODY_LIMIT
            ask = await self._read(exchange, route, limit, hold)
            model = self._route_of(ask, principal)
            passage.model_id = model.model_id
            request = AdmittedRequest(exchange, route, principal, ask, headers, model, passage, hold)
            await self._serve_asked(request)

    async def _serve_asked(self, request: AdmittedRequest) -> None:
        ask, model = request.ask, request.model
        fault = mismatch(request.route, model.model_name, model.categories)
        if fault is not None:
            raise BadRequest(fault)
        if model.keeps_no_prompts and may_have(ask.body, _PROMPT_CACHE):
            await self._large.run(lambda: _refuse_prompt_cache(ask.body, model.model_name))
        limited = self.limiter.of(request.principal, model)
        if limited:
            await self._reserve(request, limited)
        try:
            if ask.several is not None and not request.bound.prompt:
                request.bound = await self._bound(request, ())
            await self._replicas.ask(request)
        except GpustackError:
            request.failed = True
            raise
        finally:
            self._count(request)

    async def _reserve(self, request: AdmittedRequest, limited: Sequence[LimitedSubject]) -> None:
        """Let it in as far as its limits go; what it may use is theirs until it has ended."""
        exchange, bound = request.exchange, TokenBound(0, 0)
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

    async def _bound(self, request: AdmittedRequest, limited: Sequence[LimitedSubject]) -> TokenBound:
        body, operation, context = request.ask.body, request.route.operation, request.model.context
        if len(body) <= LONG:
            return bound_of(body, operation, context)
        self.limiter.peek(limited)
        return await self._large.run(lambda: bound_of(body, operation, context))

    async def _read(
        self, exchange: Exchange, route: InferencePath, limit: int, hold: MemoryReservation
    ) -> InferenceRequest:
        try:
            body = await exchange.read_body(limit, hold.take)
        except BodyTimeout as error:
            raise RequestTimeout(str(error)) from error
        if len(body) > LONG and is_slow(body):
            return await self._large.run(lambda: _ask_of(body, exchange.head, route))
        return _ask_of(body, exchange.head, route)

    def _route_of(self, ask: InferenceRequest, principal: Principal) -> ModelRoute:
        found = self._endpoints.route(ask.model)
        if found is None or not may_use(principal, found.model_name, found.access, found.allowed_user_ids):
            raise unknown(principal, ask.model)
        return found

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


def _ask_of(body: bytes, head: RequestHead, route: InferencePath) -> InferenceRequest:
    if route.form:
        return read_form(body, head.headers)
    refuse_addresses(body)
    return read_inference_request(body, splices=route.splices, single=route.parted)


def _refuse_prompt_cache(body: bytes, model: str) -> None:
    """A request may say otherwise than its engine was told, and would learn what was asked before it."""
    for name, start, end in members(body):
        if name == _PROMPT_CACHE.decode() and body[start:end] not in (b"false", b"null"):
            raise BadRequest(f"'{name}' cannot be set: '{model}' keeps no prompts between requests")


def _used(request: AdmittedRequest, usage: TokenUsage | None) -> int:
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


def _may_go_on(principal: Principal, model: Model | None, snapshot: Snapshot) -> bool:
    return holds(principal, snapshot, None) and (model is None or may_see(principal, model))
