"""Passing an upstream's answer on to the client, chunk by chunk, as fast as the client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpustack.http1.exchange import Exchange
from gpustack.http1.fields import Headers, tokens
from gpustack.http1.reply import OWNED, Fields
from gpustack.http1.upstream import UpstreamResponse

HOP_BY_HOP: Final = OWNED | {b"proxy-connection", b"te", b"trailer", b"proxy-authenticate", b"expect"}
NOT_RELAYED: Final = HOP_BY_HOP | {b"date", b"server"}


def end_to_end(headers: Headers, dropped: frozenset[bytes] = HOP_BY_HOP) -> Headers:
    """The headers meant for whoever is at the far end: without those of this connection alone.

    ``dropped`` are HOP_BY_HOP and what else must not pass.
    """
    for value in [value for name, value in headers if name == b"connection"]:
        dropped = dropped | tokens(value)
    return [field for field in headers if field[0] not in dropped]


async def relay(
    response: UpstreamResponse,
    exchange: Exchange,
    *,
    headers: Fields | None = None,
    tap: Callable[[bytes], None] | None = None,
) -> None:
    """Answers the exchange with the response; ``tap`` sees each piece of the body first.

    ``headers`` replace the response's own end-to-end ones. Raises UpstreamClosed, UpstreamTimeout and
    UpstreamProtocolError from the upstream, Disconnected from the client; the answer is left unfinished then.
    """
    if headers is None:
        headers = end_to_end(response.headers, NOT_RELAYED)
    await exchange.start_response(
        response.status,
        headers,
        content_length=response.content_length,
        flush=not response.has_buffered,
    )
    while data := await response.next_chunk():
        if tap is not None:
            tap(data)
        await exchange.send(data)
    await exchange.finish()
