"""Serves the model files of this worker's cache to other workers, in ranges, by their SHA-256."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

import attrs
import trio

from gpustack.artifacts.shared_file import SharedFile
from gpustack.errors import BadRequest, NotFound
from gpustack.http1.exchange import Exchange

log = logging.getLogger(__name__)

PREFIX = "/modelFiles/"
WAITING = "?fetching=true"
"""What a reader adds who knows that this worker is about to fetch the file: it waits until that has begun."""
_MOST_STREAMS = 8
"""Ranges that are served at the same time: requests for inference come over the same port and network."""
_BLOCK = 1 << 20
_WAIT = 10.0
"""Seconds to wait for bytes that this worker is still fetching."""
_STALL = 30.0
"""Seconds for which a reader may take nothing before it is given up."""
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})", re.ASCII)
_PLAIN = (b"content-type", b"application/octet-stream")


@attrs.define(eq=False, repr=False)
class FileServer:
    """Answers one kind of request of the worker's port; whoever asks has shown a ticket already."""

    _find: Callable[[str, float], Awaitable[SharedFile | None]]
    """The file with that SHA-256, if it is in this worker's cache or on its way there within so many seconds; never
    another file."""
    _streams: int = 0

    async def serve(self, exchange: Exchange) -> None:
        """Send a range, or what is here of it and comes meanwhile. 503 where enough is being served, 425 where the
        range has not begun to arrive here.

        Raises NotFound and BadRequest. Cancellable.
        """
        start, end = _range_of(exchange)
        if self._streams >= _MOST_STREAMS:
            await exchange.respond(503, [(b"retry-after", b"5")], b"")
            return
        self._streams += 1
        try:
            await self._send(exchange, start, end)
        finally:
            self._streams -= 1

    async def _send(self, exchange: Exchange, start: int, end: int) -> None:
        fetching = f"?{exchange.head.query}" == WAITING
        file = await self._find(exchange.head.path.removeprefix(PREFIX), _WAIT if fetching else 0.0)
        if file is None and fetching:
            await exchange.respond(425, (), b"")
            return
        if file is None or start >= file.size:
            raise NotFound("There is no such model file here")
        end = min(end, file.size)
        try:
            with file.opened() as descriptor:
                here = await file.available(start, within=_WAIT)
                if here <= start:
                    await exchange.respond(425, (), b"")
                    return
                told = b"bytes %d-%d/%d" % (start, end - 1, file.size)
                length = end - start if file.arriving is None else None
                await exchange.start_response(206, [_PLAIN, (b"content-range", told)], content_length=length)
                at = start
                while at < end and (here := await file.available(at, within=_WAIT)) > at:
                    block = await file.read(descriptor, at, min(here, end, at + _BLOCK) - at)
                    if not block:
                        return  # cut short on the disk: left unfinished, so that the reader sees it
                    at += len(block)
                    if not await _taken(exchange, block):
                        return
                await exchange.finish()
        except OSError as error:
            if not exchange.response_started:
                raise NotFound("The model file cannot be read here any more") from error
            log.warning("A model file could not be read for another worker: reason=%s", error.strerror)

    def __repr__(self) -> str:
        return f"<FileServer: {self._streams} of {_MOST_STREAMS} streams>"


async def _taken(exchange: Exchange, block: bytes) -> bool:
    with trio.move_on_after(_STALL):
        await exchange.send(block)
        return True
    return False


def _range_of(exchange: Exchange) -> tuple[int, int]:
    given = (exchange.head.get(b"range") or b"").decode("latin-1")
    found = _RANGE.fullmatch(given)
    if found is None or int(found[1]) > int(found[2]):
        raise BadRequest("The header Range must name one range of bytes")
    return int(found[1]), int(found[2]) + 1
