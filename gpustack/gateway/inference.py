"""The way of a request: key → model → replica → bytes through → usage. No database, no thread, no re-encoding."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs

from gpustack.domain.access import Principal
from gpustack.domain.route import Endpoint, Route
from gpustack.errors import BadRequest, GpustackError, NotFound, Unavailable
from gpustack.gateway.ask import Ask, read_ask
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.gate import Gate
from gpustack.gateway.route import BY_PATH, InferenceRoute
from gpustack.gateway.tally import PlainTally, StreamTally
from gpustack.http1.exchange import Disconnected, Exchange
from gpustack.http1.fault import UpstreamError
from gpustack.http1.head import Head
from gpustack.http1.pool import Pool
from gpustack.http1.relay import end_to_end
from gpustack.http1.upstream import Address, Response
from gpustack.server.usage import UsageKey, UsageLedger

log = logging.getLogger(__name__)

_BODY_LIMIT = 64 << 20
_NOT_FOR_ENGINES = frozenset({b"authorization", b"cookie", b"host", b"x-target-port", b"accept-encoding"})
_OURS = frozenset({b"date", b"server"})
_TRY_ELSEWHERE = frozenset({502, 503})

Authenticate = Callable[[Exchange], Awaitable[Principal]]
Problem = Callable[[GpustackError, str], tuple[int, list[tuple[bytes, bytes]], bytes]]
"""How an error is answered on a path: status, headers, body."""


def claims(head: Head) -> bool:
    """Whether a request is inference; everything else is somebody else's."""
    return head.path in BY_PATH


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
    """Seconds an engine may take to its first byte."""

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request. Cancelled when the client leaves; the engine is let go of then."""
        try:
            self._gate.enter()
            try:
                await self._serve(exchange)
            finally:
                self._gate.leave()
        except Disconnected:
            raise
        except GpustackError as error:
            if exchange.response_started:
                raise
            status, headers, body = self._problem(error, exchange.head.path)
            await exchange.respond(status, headers, body)

    async def _serve(self, exchange: Exchange) -> None:
        route = BY_PATH[exchange.head.path]
        if exchange.head.method != "POST":
            raise BadRequest(f"{route.path} takes POST only")
        principal = await self._authenticate(exchange)
        ask = read_ask(await exchange.read_body(_BODY_LIMIT))
        model = self._endpoints.route(ask.model)
        if model is None:
            raise NotFound(f"Model not found: no model named '{ask.model}' is deployed")
        headers = [field for field in end_to_end(exchange.head.headers) if field[0] not in _NOT_FOR_ENGINES]
        tried: set[int] = set()
        while True:
            endpoint = self._endpoints.pick(model, tried)
            if endpoint is None:
                raise _nobody(model, tried)
            tried.add(endpoint.instance_id)
            with self._endpoints.counting(endpoint):
                if await self._try(exchange, route, model, principal, ask, endpoint, headers, tried):
                    return

    async def _try(
        self,
        exchange: Exchange,
        route: InferenceRoute,
        model: Route,
        principal: Principal,
        ask: Ask,
        endpoint: Endpoint,
        headers: list[tuple[bytes, bytes]],
        tried: set[int],
    ) -> bool:
        """Ask one replica; false when another may be asked, because nothing of its answer reached the client."""
        address, target, extra = self._way_to(endpoint, route)
        tally = StreamTally(ask.hide_usage) if ask.stream else PlainTally()
        failed = True
        try:
            async with self._pool.request(
                address, "POST", target, [*headers, *extra], ask.body, first_byte_timeout=self._timeout
            ) as response:
                if response.status in _TRY_ELSEWHERE and self._endpoints.pick(model, tried) is not None:
                    self._endpoints.suspect(endpoint)
                    return False
                failed = response.status >= 400
                await _pass_through(response, exchange, tally)
        except UpstreamError as error:
            self._endpoints.suspect(endpoint)
            log.warning("A replica failed a request: instance=%s reason=%s", endpoint.instance_name, error)
            failed = True
            if not exchange.response_started:
                return False
            await self._end_torn(exchange, ask, error)
        finally:
            if exchange.response_started:
                self._count(route, model, principal, tally, failed)
        return True

    def _way_to(
        self, endpoint: Endpoint, route: InferenceRoute
    ) -> tuple[Address, bytes, list[tuple[bytes, bytes]]]:
        if endpoint.direct:
            return Address("127.0.0.1", endpoint.engine_port), route.engine_path.encode(), []
        key = self._forward_key(endpoint.worker_uuid)
        extra = [
            (b"authorization", b"Bearer " + key.encode()),
            (b"x-target-port", b"%d" % endpoint.engine_port),
        ]
        return Address(endpoint.host, endpoint.worker_port), b"/proxy" + route.engine_path.encode(), extra

    async def _end_torn(self, exchange: Exchange, ask: Ask, error: UpstreamError) -> None:
        """The replica died in the midst of its answer: a stream says so in its own form, anything else is cut."""
        if not ask.stream:
            raise error
        _, _, body = self._problem(
            Unavailable("The replica that was answering has failed"), exchange.head.path
        )
        await exchange.send(b"data: " + body + b"\n\n")
        await exchange.finish()

    def _count(
        self,
        route: InferenceRoute,
        model: Route,
        principal: Principal,
        tally: PlainTally | StreamTally,
        failed: bool,
    ) -> None:
        usage = tally.usage()
        key = UsageKey(
            user_id=-1 if principal.user_id is None else principal.user_id,
            api_key_id=-1 if principal.api_key_id is None else principal.api_key_id,
            model_id=model.model_id,
            operation=route.operation,
            username=principal.username,
            model_name=model.model_name,
        )
        self._usage.add(
            key,
            prompt=0 if usage is None else usage.prompt,
            completion=0 if usage is None else usage.completion,
            failed=failed,
        )


async def _pass_through(response: Response, exchange: Exchange, tally: PlainTally | StreamTally) -> None:
    headers = [field for field in end_to_end(response.headers) if field[0] not in _OURS]
    # What we leave out of a stream makes it shorter than any length said.
    hides = isinstance(tally, StreamTally) and tally.hide
    length = None if hides else response.content_length
    await exchange.start_response(
        response.status, headers, content_length=length, flush=not response.has_buffered
    )
    while data := await response.next_chunk():
        onward = tally.take(data)
        if onward:
            await exchange.send(onward)
    left = tally.rest()
    if left:
        await exchange.send(left)
    await exchange.finish()


def _nobody(model: Route, tried: set[int]) -> Unavailable:
    if tried:
        return Unavailable(
            f"No replica of '{model.model_name}' answered ({len(tried)} tried)", retry_after=1.0
        )
    return Unavailable(
        f"No running instances available for '{model.model_name}': {model.pending_reason}", retry_after=2.0
    )
