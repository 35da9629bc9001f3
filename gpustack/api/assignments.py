"""The stream by which a worker learns what is wanted of it, served on the front's own HTTP core."""

from __future__ import annotations

import attrs
import trio

from gpustack.domain.assignment import AssignmentEvent, AssignmentLine, AssignmentState, lines_between
from gpustack.domain.document import encode
from gpustack.http1.exchange import Exchange
from gpustack.server.assignment_index import AssignmentIndex
from gpustack.store.store import Store


@attrs.frozen(kw_only=True)
class StreamTiming:
    """Seconds: how often a quiet stream says that it lives, how long a reader may take nothing, and how long changes
    gather after some were told, so that a burst of commits becomes few words."""

    still_every: float = 15.0
    stalled_after: float = 30.0
    gather: float = 0.02


async def stream_assignments(
    exchange: Exchange,
    store: Store,
    book: AssignmentIndex,
    worker_id: int,
    *,
    pace: StreamTiming = StreamTiming(),
) -> None:
    """Tell the worker its whole picture, then every change, until it leaves or does not read any more.

    Level-triggered: each look compares the picture now with what was told, so no event can be lost. Ends when the
    worker is deleted, or joins again: then its credential is another one, and so must be the stream.
    """
    credential = _credential(store, worker_id)
    told = AssignmentState()
    synced = False
    quiet_until = trio.current_time() + pace.still_every
    with store.watch({"model_instances", "model_files", "models", "workers"}) as wake:
        await exchange.start_response(
            200, [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
        )
        while credential is not None and _credential(store, worker_id) == credential:
            now = book.of(worker_id)
            lines = [] if now is told else lines_between(told, now)
            told = now
            if not synced:
                lines.append(AssignmentLine(word=AssignmentEvent.SYNCED))
                synced = True
            if lines:
                if not await _sent(exchange, lines, pace):
                    return  # left unfinished, so that the worker sees it was cut
                await trio.sleep(pace.gather)
            elif await wake.wait(max(0.0, quiet_until - trio.current_time())):
                continue  # perhaps for what concerns other workers only: that is no sign of life to this one
            elif not await _sent(exchange, _STILL, pace):
                return
            quiet_until = trio.current_time() + pace.still_every
    await exchange.finish()


_STILL = [AssignmentLine(word=AssignmentEvent.STILL)]


async def _sent(exchange: Exchange, lines: list[AssignmentLine], pace: StreamTiming) -> bool:
    """Whether the reader has taken them in time."""
    with trio.move_on_after(pace.stalled_after) as patience:
        await exchange.send(b"".join(encode(line) + b"\n" for line in lines))
    return not patience.cancelled_caught


def _credential(store: Store, worker_id: int) -> str | None:
    worker = store.snapshot.workers.get(worker_id)
    return None if worker is None else worker.credential_hash
