"""The handler of inference: reads a request and lets it in, has a replica answer it, counts what it used.

No database, no thread and no second encoding of a body on the way, but for the few bodies that take long to read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Final

import attrs
import trio

from gpustack.domain.access import Principal, Role
from gpustack.domain.model import Model
from gpustack.domain.route import RerankForm
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
from gpustack.gateway.authentication_cache import AuthenticationCache
from gpustack.gateway.dispatcher import Dispatcher, RenderError
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.form import is_form, read_form
from gpustack.gateway.gate import Gate
from gpustack.gateway.header import for_engine
from gpustack.gateway.json_member import may_have, members
from gpustack.gateway.limiter import LimitedSubject, Limiter, should_retry
from gpustack.gateway.media import refuse_addresses
from gpustack.gateway.path import BY_PATH, InferencePath
from gpustack.gateway.request import LONG, AdmittedRequest, InferenceRequest, is_slow, read_inference_request
from gpustack.gateway.rerank import adapted, most_memory
from gpustack.gateway.spooled_body import FormReader, HeldBody, free_bytes
from gpustack.gateway.token_bound import TokenBound, bound_of
from gpustack.gateway.token_usage import TokenUsage
from gpustack.http1.exchange import BodyTimeout, Exchange
from gpustack.http1.head import RequestHead
from gpustack.identity.authentication import is_still_valid
from gpustack.metrics.traffic import ModelTraffic, RequestMeasurement, Traffic
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.policy.access import may_see
from gpustack.server.memory_budget import MemoryBudget
from gpustack.server.usage_ledger import UsageKey, UsageLedger
from gpustack.store.store import Store

log = logging.getLogger(__name__)

_BODY_LIMIT: Final = 64 << 20
"""Bytes of a request body."""
_ANONYMOUS_BODY_LIMIT: Final = 4 << 20
"""The same for a caller without credentials."""
_FORM_LIMIT: Final = 512 << 20
"""Bytes of a form with files, which is kept on the disk."""
_SPOOLED: Final = 8 << 30
"""Bytes of all forms on the disk together."""
_DO_NOT_RETRY: Final = (b"x-should-retry", b"false")
"""Clients of OpenAI obey this header. Without it they ask again within seconds, however long ``Retry-After`` says."""
_PROMPT_CACHE: Final = b"cache_prompt"
_LORA: Final = b"lora"
_RIGHTS: Final = frozenset({"users", "api_keys", "sessions", "models"})
"""The tables that decide who may use which model."""
_CLIENT_LEFT: Final = 499
"""The status that is counted when the client closed the connection before it was answered."""
_ERROR_FIELDS: Final[Mapping[type[GpustackError], tuple[bytes, bytes]]] = {
    MethodNotAllowed: (b"allow", b"POST"),
    Unauthorized: (b"www-authenticate", b'Bearer realm="gpustack"'),
}


def is_inference(head: RequestHead) -> bool:
    """Whether the gateway answers this request; all others go to the API."""
    return head.path in BY_PATH


@attrs.frozen(eq=False, repr=False)
class Gateway:
    """The handler of all inference paths."""

    _authentication: AuthenticationCache
    _endpoints: Endpoints
    _dispatcher: Dispatcher
    _gate: Gate
    _usage: UsageLedger
    _render_error: RenderError
    limiter: Limiter
    traffic: Traffic
    """Is told of every request, for the metrics exporter."""
    _large: ThreadLimiter = attrs.field(factory=lambda: threads("gateway-large-body", 1))
    _memory: MemoryBudget = attrs.field(factory=MemoryBudget)
    _spool: Path | None = None
    """Where long forms are kept while they are passed on; by default where the system keeps temporary files."""
    _disk: MemoryBudget = attrs.field(factory=lambda: MemoryBudget(_SPOOLED))
    _free: Callable[[Path], int] = free_bytes
    """The free bytes of the disk of a folder."""
    _forms: FormReader = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: FormReader(folder=self._spool, threads=threads("gateway-form", 4), free=self._free),
            takes_self=True,
        ),
    )
    _under_way: dict[Exchange, tuple[Principal, RequestMeasurement]] = attrs.field(factory=dict, init=False)
    """Authenticated requests that have not ended, and who sent each."""

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request. Cancelled when the client leaves; the connection to the engine is closed then."""
        measurement = RequestMeasurement(time.monotonic())
        try:
            self._gate.enter()
            try:
                await self._serve(exchange, measurement)
            finally:
                self._gate.leave()
        except GpustackError as error:
            if exchange.response_started:
                raise
            status, headers, body = self._render_error(error, exchange.head.path)
            more = _ERROR_FIELDS.get(type(error))
            await exchange.respond(status, headers if more is None else [*headers, more], body)
        finally:
            self.traffic.passed(measurement, exchange.head.path, exchange.status or _CLIENT_LEFT)

    async def _serve(self, exchange: Exchange, measurement: RequestMeasurement) -> None:
        """Read one request, let it in, have a replica answer it and count it. Raises what is wrong with it."""
        path = BY_PATH[exchange.head.path]
        if exchange.head.method != "POST":
            raise MethodNotAllowed(f"{exchange.head.method} is not possible at {path.path}: it takes POST")
        principal = await self._authentication(exchange)
        self._under_way[exchange] = principal, measurement
        try:
            with (
                self._memory.hold(principal) as memory,
                self._disk.hold(principal) as room,
                ExitStack() as opened,
            ):
                held = HeldBody(memory, room, opened)
                request = await self._read(exchange, path, principal, measurement, held)
                limited = self.limiter.of(principal, request.route)
                if limited:
                    await self._reserve(request, limited)
                try:
                    if request.parsed.choices is not None and not request.bound.prompt:
                        request.bound = await self._bound(request, ())
                    await self._dispatcher.dispatch(request)
                except GpustackError:
                    request.failed = True
                    raise
                finally:
                    self._count(request)
        finally:
            del self._under_way[exchange]

    async def _read(
        self,
        exchange: Exchange,
        path: InferencePath,
        principal: Principal,
        measurement: RequestMeasurement,
        held: HeldBody,
    ) -> AdmittedRequest:
        """Read the body and find the model in it. Raises what is wrong with either."""
        head = exchange.head
        headers = for_engine(head)
        limit = _ANONYMOUS_BODY_LIMIT if principal.role is Role.ANYBODY else _BODY_LIMIT
        try:
            if path.form and is_form(head.headers):
                limit = limit if principal.role is Role.ANYBODY else _FORM_LIMIT
                parsed = await self._forms.read(exchange, limit, held)
            else:
                body = await exchange.read_body(limit, held.memory.take)
                parsed = await self._parsed(body, head, path)
        except BodyTimeout as error:
            raise RequestTimeout(str(error)) from error
        route = self._endpoints.route_for(parsed.model, principal)
        measurement.model_id = route.model_id
        fault = path.mismatch(route.model_name, route.categories)
        if fault is not None:
            raise BadRequest(fault)
        if route.keeps_no_prompts and may_have(parsed.body, _PROMPT_CACHE):
            await self._large.run(lambda: _refuse_prompt_cache(parsed.body, route.model_name))
        if route.adapter_by_scale:
            if path.form:
                raise BadRequest("Adapters answer no requests with files")
            if may_have(parsed.body, _LORA):
                await self._large.run(lambda: _refuse_lora(parsed.body, parsed.model))
        request = AdmittedRequest(exchange, path, principal, parsed, headers, route, measurement, held.memory)
        if path.operation is Operation.RERANK and route.rerank is not None:
            await self._adapt(request, route.rerank)
        return request

    async def _parsed(self, body: bytes, head: RequestHead, path: InferencePath) -> InferenceRequest:
        """What a body asks for; one that takes long is read in a thread."""
        if len(body) > LONG and is_slow(body):
            return await self._large.run(lambda: _parse(body, head, path))
        return _parse(body, head, path)

    async def _adapt(self, request: AdmittedRequest, form: RerankForm) -> None:
        """Put a request to rerank into the form that its engine wants; a long one in a thread.

        Raises ``Unavailable`` where its caller has no room for what the parsed body may take.
        """
        body = request.parsed.body
        request.rerank = form
        if len(body) > LONG:
            with self._memory.hold(request.principal) as parsing:
                parsing.take(await self._large.run(lambda: most_memory(body, form)))
                request.adapted = await self._large.run(lambda: adapted(body, form))
        else:
            request.adapted = adapted(body, form)
        # Many short texts become longer by far.
        if len(request.adapted) > LONG:
            request.memory.take(len(request.adapted))

    async def _reserve(self, request: AdmittedRequest, limited: Sequence[LimitedSubject]) -> None:
        """Reserve what the request may use at most, of everybody whose limits it counts against.

        Raises ``LimitReached``, or ``BadRequest`` where the most that it may use is not known.
        """
        exchange, bound = request.exchange, TokenBound(0, 0)
        try:
            if any(subject.counts_tokens for subject in limited):
                bound = await self._bound(request, limited)
            if bound.total is None:
                raise BadRequest(
                    f"{limited[0].words} has a limit of tokens, and nothing says how long an answer of "
                    f"'{request.route.model_name}' may become: send max_tokens"
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
        """How many tokens it may use. A long body is read in a thread, and only if nothing else refuses it."""
        body, operation, context = request.body, request.path.operation, request.route.context
        if len(body) <= LONG:
            return bound_of(body, operation, context)
        self.limiter.peek(limited)
        return await self._large.run(lambda: bound_of(body, operation, context))

    def _count(self, request: AdmittedRequest) -> None:
        """Count a request that has ended, once, however many replicas were asked; its tokens as far as known."""
        usage = None if request.meter is None else request.meter.usage()
        if request.permit is not None:
            self.limiter.leave(request.permit, _used(request, usage))
        if usage is not None:
            request.measurement.prompt, request.measurement.completion = usage.prompt, usage.completion
        principal, route = request.principal, request.route
        key = _usage_key(
            -1 if principal.user_id is None else principal.user_id,
            -1 if principal.api_key_id is None else principal.api_key_id,
            route.model_id,
            request.path.operation,
            principal.username,
            route.model_name,
        )
        self._usage.add(
            key,
            prompt=0 if usage is None else usage.prompt,
            completion=0 if usage is None else usage.completion,
            failed=request.failed,
        )

    def counted(self) -> Mapping[int, ModelTraffic]:
        """What was counted of each model that is asked, or was since the last call."""
        return self.traffic.changed_models(measurement for _, measurement in self._under_way.values())

    def shut_out(self, snapshot: Snapshot, faults: Quarantine) -> int:
        """End every request whose sender has lost the right to it; returns how many.

        A key or a login that expires does not end what was begun before. Where a fault prevents the decision, the
        request is ended.
        """
        cut = 0
        for exchange, (principal, measurement) in list(self._under_way.items()):
            may_go_on = False
            with faults.row((principal.user_id, principal.api_key_id, measurement.model_id)):
                may_go_on = _may_go_on(principal, snapshot.get(Model, measurement.model_id), snapshot)
            if not may_go_on:
                exchange.cut()
                cut += 1
        return cut


@attrs.frozen(eq=False, repr=False)
class Revocation:
    """A service: has the gateway end requests whenever the right to them may have been taken away.

    That is when an account or a key was disabled, deleted or changed, a login ended, or a model became others'.
    """

    _store: Store
    _gateway: Gateway
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("revocation"))
    name: str = "revocation"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._store.watch(_RIGHTS) as wake:
            task_status.started()
            while True:
                await wake.wait()
                if cut := self._gateway.shut_out(self._store.snapshot, self._faults):
                    log.info("Cut off requests of who may not go on with them: requests=%d", cut)

    def __repr__(self) -> str:
        return "<Revocation>"


def _may_go_on(principal: Principal, model: Model | None, snapshot: Snapshot) -> bool:
    return is_still_valid(principal, snapshot, None) and (model is None or may_see(principal, model))


def _parse(body: bytes, head: RequestHead, path: InferencePath) -> InferenceRequest:
    if path.form:
        return read_form(body, head.headers)
    refuse_addresses(body)
    return read_inference_request(body, completions=path.completions, single=path.usage_in_parts)


def _refuse_prompt_cache(body: bytes, model: str) -> None:
    """Raises ``BadRequest`` where a request turns the prompt cache on that its model's engine was told to keep off:
    its answer's timing would tell what others have asked."""
    for name, start, end in members(body):
        if name == _PROMPT_CACHE.decode() and body[start:end] not in (b"false", b"null"):
            raise BadRequest(f"'{name}' cannot be set: '{model}' keeps no prompts between requests")


def _refuse_lora(body: bytes, name: str) -> None:
    """Raises ``BadRequest`` where a request names an adapter and chooses adapters by itself too."""
    if any(member == _LORA.decode() for member, _, _ in members(body)):
        raise BadRequest(f"'lora' cannot be set: '{name}' names the adapter already")


def _used(request: AdmittedRequest, usage: TokenUsage | None) -> int:
    """Tokens that count against limits: those measured; where nothing was measured, the most that it can have been."""
    if usage is not None:
        prompt = usage.prompt if usage.measured else max(usage.prompt, request.bound.prompt)
        return prompt + usage.completion
    if request.failed:
        return 0
    # The client left before the answer began, but an engine had begun to read the prompt.
    if request.meter is None:
        return request.bound.prompt
    return request.bound.total or 0


@lru_cache(maxsize=1024)
def _usage_key(
    user_id: int, api_key_id: int, model_id: int, operation: Operation, username: str, model_name: str
) -> UsageKey:
    """Remembered, because most requests are counted under the same key as one before."""
    return UsageKey(
        user_id=user_id,
        api_key_id=api_key_id,
        model_id=model_id,
        operation=operation,
        username=username,
        model_name=model_name,
    )
