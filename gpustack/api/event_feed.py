"""Events as they come: read from the database once for all who watch, and sent a line each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType

import attrs
import trio

from gpustack.domain.event import ClusterEvent
from gpustack.errors import Unavailable
from gpustack.nursery.wake import Wake
from gpustack.store import event_history
from gpustack.store.event_history import EventFilter
from gpustack.store.store import Store

from .brief import KIND_OF_TABLE
from .view import Doc, dumps
from .watch import SILENCE, WatchEvent

PAUSE = 0.1
"""Seconds between two looks."""
_AT_ONCE = 500
_KEPT = 2000
_TABLES = frozenset(KIND_OF_TABLE)
"""Those whose changes are told as events."""


@attrs.define(eq=False, repr=False)
class EventFeed:
    """Owns the newest events. They are read when a watcher asks after a commit, by the first one for all."""

    _store: Store
    last: int = 0
    """The id of the newest event that was read."""
    _floor: int | None = None
    """All events after it up to the last are kept."""
    _kept: deque[ClusterEvent] = attrs.field(factory=deque)
    _revision: int = -1
    _reading: trio.Event | None = None

    async def refresh(self) -> None:
        """Read what was committed since the last time. Raises ``Unavailable``."""
        while self._revision != self._store.snapshot.revision:
            if self._reading is not None:
                await self._reading.wait()
                continue
            self._reading, revision = trio.Event(), self._store.snapshot.revision
            try:
                await self._read()
                self._revision = revision
            finally:
                self._reading.set()
                self._reading = None
            return  # what was committed meanwhile wakes the watchers again

    async def _read(self) -> None:
        if self._floor is None:
            self.last = self._floor = await self._store.query(event_history.last)
            return
        found: Sequence[ClusterEvent] = ()
        while not found or len(found) == _AT_ONCE:
            found = await self._store.query(partial(event_history.after, key=self.last, most=_AT_ONCE))
            if not found:
                return
            self._kept.extend(found)
            self.last = found[-1].id
            while len(self._kept) > _KEPT:
                self._floor = self._kept.popleft().id

    def since(self, key: int) -> Sequence[ClusterEvent] | None:
        """The events after that one, oldest first; ``None`` where some are not kept here."""
        if self._floor is None or key < self._floor:
            return None
        found: list[ClusterEvent] = []
        for event in reversed(self._kept):
            if event.id <= key:
                break
            found.append(event)
        return found[::-1]

    def __repr__(self) -> str:
        return f"<EventFeed: {len(self._kept)} events up to {self.last}>"


@attrs.define(eq=False, kw_only=True, repr=False)
class ClusterEventStream:
    """The events that a filter selects: ``first``, then every later one. Its memory does not grow: events wait in the
    database, and a reader that is slower than they are removed there misses some."""

    _store: Store
    _feed: EventFeed
    _wanted: EventFilter
    _shown: Callable[[ClusterEvent], Doc]
    _allowed: Callable[[], bool]
    _guards: frozenset[str]
    _first: Sequence[ClusterEvent]
    _seen: int
    """The id of the newest event that was looked at."""
    _marked: bool = False
    """The end of what there was at the start is marked."""
    _began: bool = False
    _wake: Wake = attrs.field(factory=Wake)
    _open: ExitStack = attrs.field(factory=ExitStack)

    async def __aenter__(self) -> ClusterEventStream:
        self._wake = self._open.enter_context(self._store.watch(_TABLES | self._guards))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __aiter__(self) -> ClusterEventStream:
        return self

    async def __anext__(self) -> bytes:
        quiet_until = trio.current_time() + SILENCE
        while self._allowed():
            if not self._began:
                self._began = True
                await trio.lowlevel.checkpoint()
                mark = b'{"type":%d,"data":null}\n\n' % WatchEvent.SYNCED if self._marked else b""
                return (self._lines(self._first) + mark) or b"\n"
            try:
                lines = self._lines(await self._news())
            except Unavailable:
                lines = b""  # the database is away for a moment: they are told when it is back
            if lines:
                if not self._allowed():  # the right may be gone since they were asked for
                    break
                return lines
            left = quiet_until - trio.current_time()
            if left <= 0:
                return b"\n"
            if await self._wake.wait(left):
                await trio.sleep(PAUSE)
        raise StopAsyncIteration

    async def _news(self) -> Sequence[ClusterEvent]:
        await self._feed.refresh()
        found = self._feed.since(self._seen)
        if found is None:  # it is behind those that are kept in memory
            read = partial(event_history.after, key=self._seen, most=_AT_ONCE)
            found = await self._store.query(read)
        some = found[:_AT_ONCE]
        self._seen = some[-1].id if some else max(self._seen, self._feed.last)
        return [event for event in some if self._wanted.selects(event)]

    def _lines(self, events: Sequence[ClusterEvent]) -> bytes:
        return b"".join(
            b'{"type":%d,"data":%b}\n\n' % (WatchEvent.CREATED, dumps(self._shown(event))) for event in events
        )

    def __repr__(self) -> str:
        return f"<ClusterEventStream after event {self._seen}>"
