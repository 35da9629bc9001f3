"""The stream by which a worker learns what is wanted of it, served on the front's own HTTP core."""

from __future__ import annotations

import trio

from gpustack.domain.assignment import AssignmentLine, Picture, Word, lines_between
from gpustack.domain.document import encode
from gpustack.http1.exchange import Exchange
from gpustack.server.assignment import AssignmentBook
from gpustack.store.store import Store

_STILL_EVERY = 15.0
_STALLED_AFTER = 30.0
_GATHER = 0.01
"""Seconds in which changes gather: a burst of commits becomes one look."""


async def stream_assignments(exchange: Exchange, store: Store, book: AssignmentBook, worker_id: int) -> None:
    """Tell the worker its whole picture, then every change, until it leaves or does not read any more.

    Level-triggered: each look compares the picture now with what was told, so no event can be lost.
    """
    await exchange.start_response(
        200, [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
    )
    told = Picture()
    synced = False
    with store.watch({"model_instances", "model_files", "models", "workers"}) as wake:
        while True:
            now = book.of(worker_id)
            lines = lines_between(told, now)
            if not synced:
                lines.append(AssignmentLine(word=Word.SYNCED))
                synced = True
            with trio.move_on_after(_STALLED_AFTER) as patience:
                if lines:
                    await exchange.send(b"".join(encode(line) + b"\n" for line in lines))
            if patience.cancelled_caught:
                return
            told = now
            if worker_id not in store.snapshot.workers:
                await exchange.finish()
                return
            if not await wake.wait(_STILL_EVERY):
                await exchange.send(encode(AssignmentLine(word=Word.STILL)) + b"\n")
            else:
                await trio.sleep(_GATHER)
