"""Passes a replica's answer on to the client, counts it on the way, and words refusals as the client reads them."""

from __future__ import annotations

import time

from gpustack.gateway.choices import ChoicesMeter
from gpustack.gateway.engine_error import LONGEST, in_form, reworded
from gpustack.gateway.header import for_client
from gpustack.gateway.meter import BodyMeter, EventStreamMeter, UsageMeter
from gpustack.gateway.request import AdmittedRequest
from gpustack.gateway.speed import Stopwatch, with_engine_speed
from gpustack.gateway.sse_usage import ChoiceUsageReader, MessageUsageReader
from gpustack.http1.upstream import UpstreamResponse


async def pass_on(response: UpstreamResponse, request: AdmittedRequest) -> None:
    """The answer, byte for byte as fast as the client reads."""
    exchange = request.exchange
    events = (response.get(b"content-type") or b"").lower().startswith(b"text/event-stream")
    # Before the first piece has come nothing is promised: a replica that dies here can still be replaced.
    data = await response.next_chunk()
    request.failed = response.status >= 400
    if request.failed:
        data = await _refusal(response, data, request)
    tally = request.tally = _tally(request, events=events)
    headers = for_client(response.headers)
    if response.complete and not events:
        request.passage.first_byte = time.monotonic()
        body = tally.take(data)
        await exchange.respond(
            response.status, headers, with_engine_speed(body) if request.route.splices else body
        )
        return
    await exchange.start_response(
        response.status,
        headers,
        # What we leave out of a stream makes it shorter than any length said.
        content_length=None if events else response.content_length,
        flush=not data,
    )
    request.passage.first_byte = time.monotonic()
    while data:
        onward = tally.take(data)
        if onward:
            await exchange.send(onward)
        data = await response.next_chunk()
    left = tally.rest()
    if left:
        await exchange.send(left)
    await exchange.finish()


async def _refusal(response: UpstreamResponse, data: bytes, request: AdmittedRequest) -> bytes:
    """What an engine says that refuses, as the client should read it. Raises what we say in its place."""
    while not response.complete and len(data) <= LONGEST and (more := await response.next_chunk()):
        data += more
    if not response.complete:
        return data
    error = reworded(response.status, data, request.route, request.model.model_name)
    if error is not None:
        raise error
    return in_form(response.status, data, request.route)


def _tally(request: AdmittedRequest, *, events: bool) -> UsageMeter:
    """What counts the answer, and mends it, as its path and the number of answers in it need."""
    ask, route = request.ask, request.route
    if not events:
        return (
            BodyMeter()
            if ask.several is None
            else ChoicesMeter(ask.several, request.bound, request.hold.take)
        )
    if not route.splices:
        return EventStreamMeter(False, edits=False, reader=MessageUsageReader() if route.parted else None)
    return EventStreamMeter(
        ask.hide_usage,
        reader=None if ask.several is None else ChoiceUsageReader(ask.several),
        watch=None if ask.hide_usage else Stopwatch(request.passage.began, time.monotonic),
    )
