"""Watch streams: the present records, then every change, one JSON document a line."""

from __future__ import annotations

import logging
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from enum import IntEnum
from functools import partial
from types import TracebackType
from typing import Any

import attrs
import trio

from gpustack.domain.record import Change, ChangeKind
from gpustack.errors import RevisionExpired
from gpustack.nursery.quarantine import Quarantine, RowAttempt
from gpustack.nursery.wake import Wake
from gpustack.server.live_status import LiveStatus
from gpustack.store.store import Store

from .listing import Predicate
from .view import Doc, RenderContext, dumps

log = logging.getLogger(__name__)

SILENCE = 15.0
"""Seconds without an event after which a stream sends what says nothing, so that the client knows it is alive."""
LOADS_EVERY = 15.0
"""Seconds between two times that a stream tells the loads of workers that have changed since."""
_AT_ONCE = 64
_PIECE = 256 << 10
"""Bytes from which a piece is sent without adding to it: while a slow client does not read, it is kept in memory."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_REMEMBERED = 4096
_REMEMBERED_BYTES = 32 << 20


class WatchEvent(IntEnum):
    """The types of events, by the numbers of the wire (4 was never used, 5 was a heartbeat: now a blank line)."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3
    SYNCED = 6
    """The replay is complete. Sent only where the query has ``sync=1``."""


def ascii_json(document: bytes) -> bytes:
    """The same JSON in ASCII, so that a client can decode each piece of a stream by itself."""
    return document if document.isascii() else _NOT_ASCII.sub(_escape, document.decode()).encode("ascii")


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")  # characters beyond 16 bits are two escapes
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


@attrs.define(eq=False, repr=False)
class ChangeDocumentCache:
    """The JSON of changed records, made once for all watchers. Keeps the newest, bounded in number and bytes."""

    faults: Quarantine = attrs.field(factory=lambda: Quarantine("watch streams"))
    """Of lists and watchers: a record of which no document can be made is left out, and logged once."""
    _documents: OrderedDict[tuple[int, str, Any], bytes] = attrs.field(factory=OrderedDict)
    size: int = 0
    """Bytes of all documents kept."""

    def of(self, key: tuple[int, str, Any], make: Callable[[], Doc]) -> bytes:
        """The document for ``key`` (revision, kind, item), made by ``make`` if it is not kept."""
        known = self._documents.get(key)
        if known is None:
            known = self._documents[key] = ascii_json(dumps(make()))
            self.size += len(known)
            while len(self._documents) > _REMEMBERED or self.size > _REMEMBERED_BYTES:
                self.size -= len(self._documents.popitem(last=False)[1])
        return known

    def __len__(self) -> int:
        return len(self._documents)

    def __repr__(self) -> str:
        return f"<ChangeDocumentCache: {len(self)} documents of changes>"


@attrs.frozen(kw_only=True)
class WatchSubject:
    """What a stream shows: the items of each record of ``table``, and their documents."""

    kind: str
    table: str
    items: Callable[[Any], Sequence[Any]]
    key: Callable[[Any], Any]
    document: Callable[[Any, RenderContext], Doc]
    predicate: Predicate
    visible: Predicate = lambda item: True
    """What the watcher may see, whatever its query selects."""
    live: LiveStatus | None = None
    """For items of workers: their documents show the loads too, which no record has."""

    def shown(self, record: Any) -> dict[Any, Any]:
        """The items of a record that the watcher may see and has selected, by key."""
        if record is None:
            return {}
        return {self.key(item): item for item in self.items(record) if self.predicate(item)}


@attrs.define(eq=False, kw_only=True, repr=False)
class WatchStream:
    """A stream of events: a replay of the present items, then the changes.

    It reads changes from the store's bounded buffer as fast as the client takes them, so its memory does not grow. A
    client too slow for the buffer is dropped, and has to list again. No change is missed: the replay is the snapshot of
    one revision, and what follows is every change after it.

    Loads of workers are no changes of records: those that are others than before are told every ``LOADS_EVERY``
    seconds, as updates of their items, at the revision of the last change.
    """

    _store: Store
    _documents: ChangeDocumentCache
    _subject: WatchSubject
    _rendering: Callable[[], RenderContext]
    _allowed: Callable[[], bool]
    """Whether the caller still may watch: asked before each piece, and when a table of ``guards`` changes."""
    _guards: frozenset[str] = frozenset()
    """Tables in which a change may end the right to watch."""
    _numbered: bool = False
    """Events carry their revision, and the end of the replay is marked."""
    _since: int | None = None
    _revision: int = 0
    _replay: list[Any] | None = None
    _wake: Wake = attrs.field(factory=Wake)
    _open: ExitStack = attrs.field(factory=ExitStack)
    _at_start: RenderContext | None = None
    _loads_told: int = 0
    """The number of the newest load when loads were told last."""
    _loads_at: float = math.inf
    """When they are told again."""
    _loads_waiting: list[tuple[int, int]] = attrs.field(factory=list)
    """Ids of workers whose loads are still to be told, each with the load's number."""

    def check(self) -> None:
        """Raises ``RevisionExpired`` if the changes since the revision asked for are no longer kept."""
        if self._since is not None:
            self._store.changes_since(self._since)

    async def __aenter__(self) -> WatchStream:
        tables = {self._subject.table, *self._guards}
        self._wake = self._open.enter_context(self._store.watch(tables))
        live = self._subject.live
        if live is not None:
            self._loads_at = trio.current_time() + LOADS_EVERY
            self._loads_told = 0 if self._since is not None else live.number
        if self._since is not None:
            self._revision = self._since
        else:
            context = self._at_start = self._rendering()
            self._revision = context.snapshot.revision
            found: list[Any] = []
            for record in context.snapshot.tables.get(self._subject.table, {}).values():
                with self._row(record.id):
                    found.extend(self._subject.shown(record).values())
            self._replay = found[::-1]  # taken from the end
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __aiter__(self) -> WatchStream:
        return self

    async def __anext__(self) -> bytes:
        quiet_until = trio.current_time() + SILENCE
        while self._allowed():
            if self._replay is not None:
                await trio.lowlevel.checkpoint()
                return self._replayed(self._replay)
            lines = self._news()
            if lines is None:
                break
            lines = lines or self._load_news()
            if lines:
                return lines
            # Changes that this caller is not shown wake it too: they do not count as events.
            woken = await self._wake.wait(max(0.0, min(quiet_until, self._loads_at) - trio.current_time()))
            if not woken and self._allowed() and trio.current_time() >= quiet_until:
                return b"\n"
        raise StopAsyncIteration

    def _replayed(self, waiting: list[Any]) -> bytes:
        """The next part of the replay; the last one ends with the mark if it was asked for. At least a blank line, so
        that the client of an empty list gets the head of its answer at once."""
        assert self._at_start is not None
        lines: list[bytes] = []
        size = 0
        while waiting and len(lines) < _AT_ONCE and size < _PIECE:
            item = waiting.pop()
            with self._row(getattr(item, "id", None)):
                document = ascii_json(dumps(self._subject.document(item, self._at_start)))
                lines.append(self._line(WatchEvent.CREATED, document))
                size += len(document)
        if not waiting:
            self._replay = self._at_start = None
            if self._numbered:
                lines.append(self._line(WatchEvent.SYNCED, b"null"))
        return b"".join(lines) or b"\n"

    def _news(self) -> bytes | None:
        """The lines of the changes since the last piece; ``None`` when the stream has to end."""
        try:
            changes = self._store.changes_since(self._revision)
        except RevisionExpired:
            log.info("Dropped a watcher that was too slow: kind=%s", self._subject.kind)
            return None
        lines: list[bytes] = []
        size = 0
        for change in changes:
            if size >= _PIECE and change.revision > self._revision:
                break  # the rest follows when the client has taken this piece
            self._revision = change.revision
            if change.table == self._subject.table:
                with self._row(change.record.id):
                    found = list(self._lines(change))
                    lines += found
                    size += sum(map(len, found))
        return b"".join(lines)

    def _load_news(self) -> bytes:
        """The next part of the loads that are to be told now. Called when all changes have been, so that the items are
        those of the revision told last."""
        live, now = self._subject.live, trio.current_time()
        if live is not None and now >= self._loads_at:
            self._loads_at = now + LOADS_EVERY
            self._loads_waiting = list(live.changed_since(self._loads_told).items())
            self._loads_told = live.number
        if not self._loads_waiting:
            return b""
        context = self._rendering()
        records = context.snapshot.tables.get(self._subject.table, {})
        lines: list[bytes] = []
        size = 0
        while self._loads_waiting and size < _PIECE:
            worker_id, number = self._loads_waiting.pop()
            with self._row(worker_id):
                for key, item in self._subject.shown(records.get(worker_id)).items():
                    name = (self._revision, f"{self._subject.kind} load {number}", key)
                    text = self._documents.of(name, partial(self._subject.document, item, context))
                    lines.append(self._line(WatchEvent.UPDATED, text))
                    size += len(text)
        return b"".join(lines)

    def _row(self, key: object) -> RowAttempt:
        return self._documents.faults.row((self._subject.kind, key))

    def _lines(self, change: Change) -> Iterable[bytes]:
        subject = self._subject
        after = {} if change.kind is ChangeKind.DELETED else subject.shown(change.record)
        if change.kind is ChangeKind.CREATED:
            before = {}
        elif change.before is not None or change.kind is ChangeKind.DELETED:
            before = subject.shown(change.before or change.record)
        else:  # from before this server started: the former record is not known, so the watcher may have seen it
            before = {subject.key(item): None for item in subject.items(change.record)}
        for key, item in {**before, **after}.items():
            kind = WatchEvent.UPDATED if key in before else WatchEvent.CREATED
            yield self._line(kind if key in after else WatchEvent.DELETED, self._text(change, key, item))

    def _text(self, change: Change, key: Any, item: Any) -> bytes:
        """The document of an item after a change. An item that left the selection is shown as it is now, so that the
        watcher sees why; of one that the watcher may not see, or perhaps never saw, only the id is shown."""
        now = {self._subject.key(one): one for one in self._subject.items(change.record)}
        shown = now.get(key, item)
        if item is None or not self._subject.visible(shown):
            return dumps({"id": key})
        name = (change.revision, self._subject.kind, key)
        return self._documents.of(name, lambda: self._subject.document(shown, self._rendering()))

    def _line(self, kind: WatchEvent, document: bytes) -> bytes:
        if self._numbered:
            return b'{"type":%d,"data":%b,"revision":%d}\n\n' % (kind, document, self._revision)
        return b'{"type":%d,"data":%b}\n\n' % (kind, document)

    def __repr__(self) -> str:
        waiting = "" if self._replay is None else f", {len(self._replay)} to replay"
        return f"<WatchStream of {self._subject.kind} at revision {self._revision}{waiting}>"
