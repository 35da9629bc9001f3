"""Passes a replica's answer on to the client, and counts its tokens on the way."""

from __future__ import annotations

import time
from functools import partial

from gpustack.domain.route import RerankForm
from gpustack.errors import Unavailable
from gpustack.gateway.choices import ChoicesMeter
from gpustack.gateway.engine_error import LONGEST, in_form, reworded
from gpustack.gateway.header import for_client
from gpustack.gateway.meter import BodyMeter, EventStreamMeter, UsageMeter
from gpustack.gateway.request import LONG, AdmittedRequest
from gpustack.gateway.rerank import LONGEST_ANSWER, PARSED, TOKENS_FIELD, restored
from gpustack.gateway.speed import Stopwatch, with_engine_speed
from gpustack.gateway.sse_usage import ChoiceUsageReader, MessageUsageReader
from gpustack.http1.upstream import UpstreamResponse
from gpustack.nursery.limiter import threads

_rankings = threads("gateway-rankings", 1)


async def pass_on(response: UpstreamResponse, request: AdmittedRequest) -> None:
    """Send the answer to the client as it comes, no faster than the client reads.

    Raises ``UpstreamError``: nothing has been sent to the client if its ``exchange.response_started`` is false.
    Raises ``GpustackError`` in place of an engine's error that would mislead, ``ClientDisconnect``.
    """
    exchange = request.exchange
    events = (response.get(b"content-type") or b"").lower().startswith(b"text/event-stream")
    # Nothing is sent before the first piece has come: a replica that fails until then can still be replaced.
    data = await response.next_chunk()
    request.failed = response.status >= 400
    if request.failed:
        data = await _refusal(response, data, request)
    meter = request.meter = request.measurement.progress = _meter(request, events=events)
    headers = for_client(response.headers)
    if request.rerank is not None and not request.failed:
        request.measurement.first_byte = time.monotonic()
        body = await _ranking(response, data, request, request.rerank)
        await exchange.respond(response.status, headers, meter.take(body))
        return
    if response.complete and not events:
        request.measurement.first_byte = time.monotonic()
        body = meter.take(data)
        await exchange.respond(
            response.status, headers, with_engine_speed(body) if request.path.completions else body
        )
        return
    await exchange.start_response(
        response.status,
        headers,
        # What is left out of a stream makes it shorter than its Content-Length says.
        content_length=None if events else response.content_length,
        flush=not data,
    )
    request.measurement.first_byte = time.monotonic()
    while data:
        onward = meter.take(data)
        if onward:
            await exchange.send(onward)
        data = await response.next_chunk()
    left = meter.rest()
    if left:
        await exchange.send(left)
    await exchange.finish()


async def _ranking(
    response: UpstreamResponse, data: bytes, request: AdmittedRequest, form: RerankForm
) -> bytes:
    """The whole answer to a request that was adapted, as the client knows it. A long one is read in a thread.

    Raises ``Unavailable`` where it is too long, or its client has no room for what the parsed answer may take.
    """
    pieces, size = [data], len(data)
    while not response.complete and (more := await response.next_chunk()):
        size += len(more)
        if size > LONGEST_ANSWER:
            raise Unavailable(f"The engine of '{request.route.model_name}' answered with too much")
        request.memory.take(len(more))
        pieces.append(more)
    whole, tokens = b"".join(pieces), response.get(TOKENS_FIELD)
    read = partial(restored, whole, request.parsed.body, form, request.route.model_name, tokens)
    # Of what the client had sent only the form with texts is read again.
    parsed = size + (len(request.parsed.body) if form.texts else 0)
    if parsed <= LONG:
        return read()
    request.memory.take(PARSED * parsed)
    return await _rankings.run(read)


async def _refusal(response: UpstreamResponse, data: bytes, request: AdmittedRequest) -> bytes:
    """The body of an engine's error in the form of the path. Raises the error that is told in its place, if any."""
    while not response.complete and len(data) <= LONGEST and (more := await response.next_chunk()):
        data += more
    if not response.complete:
        return data
    error = reworded(response.status, data, request.path, request.route.model_name)
    if error is not None:
        raise error
    return in_form(response.status, data, request.path)


def _meter(request: AdmittedRequest, *, events: bool) -> UsageMeter:
    """The meter that fits the path and the number of choices asked for."""
    parsed, path = request.parsed, request.path
    if not events:
        if parsed.choices is None:
            return BodyMeter()
        return ChoicesMeter(parsed.choices, request.bound, request.memory.take)
    if not path.completions:
        reader = MessageUsageReader() if path.usage_in_parts else None
        return EventStreamMeter(False, edits=False, reader=reader, counts=path.in_tokens)
    return EventStreamMeter(
        parsed.hide_usage,
        reader=None if parsed.choices is None else ChoiceUsageReader(parsed.choices),
        stopwatch=None if parsed.hide_usage else Stopwatch(request.measurement.began, time.monotonic),
    )
