"""One stream of events for a console: the present as brief documents, then every change of what the caller may see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

import attrs
import trio

from gpustack.domain.access import Principal
from gpustack.domain.model import Model
from gpustack.domain.record import table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.nursery.wake import Wake
from gpustack.policy.access import may_see
from gpustack.server.live_status import LiveStatus
from gpustack.server.model_rates import ModelRates
from gpustack.store.store import Store

from .brief import CLASSES, BriefKind, brief_load, brief_rate
from .change_feed import ChangeBatch, ChangeFeed, Item, change_event, changed_text
from .view import dumps
from .watch import LOADS_EVERY, SILENCE, WatchEvent

PAUSE = 0.08
"""Seconds between two events: what is committed meanwhile is told together."""
AT_ONCE = 256
_PIECE = 128 << 10
"""Bytes from which a piece is sent without adding to it."""
_BEGIN = b"retry: 2000\n\n"
_RESET = b"event: reset\ndata: null\n\n"


class Audience(Protocol):
    """What a caller sees of the changes."""

    @property
    def tables(self) -> frozenset[str]:
        """Those in which a change may concern it."""
        ...

    def present(self, snapshot: Snapshot) -> Iterable[Item]:
        """All that it sees now."""
        ...

    def changed_since(self, revision: int) -> Mapping[Item, WatchEvent] | None:
        """What has changed for it since a revision; ``None`` where what it saw then is not known."""
        ...

    def text(self, item: Item, snapshot: Snapshot) -> bytes | None:
        """The document of an item; ``None`` where there is none for it."""
        ...

    def event(self, batch: ChangeBatch, snapshot: Snapshot) -> bytes:
        """The event that tells it of a batch; empty where nothing concerns it."""
        ...


@attrs.frozen
class WholeCluster:
    """Administrators see all records of the kinds that they ask for."""

    _feed: ChangeFeed
    _kinds: frozenset[BriefKind]

    @property
    def tables(self) -> frozenset[str]:
        written = {table_of(CLASSES[kind]) for kind in self._kinds}
        # Models and workers show what instances do, and claim.
        derived = self._kinds & {BriefKind.MODELS, BriefKind.WORKERS}
        return frozenset(written | ({table_of(CLASSES[BriefKind.INSTANCES])} if derived else set()))

    def present(self, snapshot: Snapshot) -> Iterable[Item]:
        for kind in BriefKind:
            if kind in self._kinds:
                yield from ((kind, key) for key in sorted(snapshot.all(CLASSES[kind])))

    def changed_since(self, revision: int) -> Mapping[Item, WatchEvent] | None:
        changed = self._feed.changed_since(revision)
        if changed is None:
            return None
        return {item: event for item, event in changed.items() if item[0] in self._kinds}

    def text(self, item: Item, snapshot: Snapshot) -> bytes | None:
        return self._feed.documents.text(*item, snapshot)

    def event(self, batch: ChangeBatch, snapshot: Snapshot) -> bytes:
        return batch.event(self._kinds)


@attrs.define(eq=False)
class OwnModels:
    """People see the models that they may use, as in their list of models."""

    _principal: Principal
    _document: Callable[[Model], object]
    _seen: set[int] = attrs.field(factory=set)

    @property
    def tables(self) -> frozenset[str]:
        return frozenset({table_of(Model)})

    def present(self, snapshot: Snapshot) -> Iterable[Item]:
        models = snapshot.models
        return [(BriefKind.MODELS, key) for key in sorted(models) if may_see(self._principal, models[key])]

    def changed_since(self, revision: int) -> Mapping[Item, WatchEvent] | None:
        """What they may see is in no revision."""
        return None

    def text(self, item: Item, snapshot: Snapshot) -> bytes | None:
        model = snapshot.models.get(item[1])
        if model is None or not may_see(self._principal, model):
            return None
        self._seen.add(model.id)
        return dumps(self._document(model))

    def event(self, batch: ChangeBatch, snapshot: Snapshot) -> bytes:
        texts = []
        for item in batch.items:
            if item.kind is BriefKind.MODELS:
                known = item.id in self._seen
                document = self.text((item.kind, item.id), snapshot)
                if document is not None:
                    event = WatchEvent.UPDATED if known else WatchEvent.CREATED
                    texts.append(changed_text(item.kind, event, item.id, document))
                elif known:
                    self._seen.discard(item.id)
                    texts.append(changed_text(item.kind, WatchEvent.DELETED, item.id, None))
        return change_event(texts, batch.revision) if texts else b""


@attrs.define(eq=False, repr=False)
class LoadNews:
    """Tells the loads of some workers, and the rates of some models, when they have changed."""

    _live: LiveStatus
    _workers: frozenset[int]
    _rates: ModelRates | None = None
    _models: frozenset[int] = frozenset()
    next_at: float = math.inf
    _told: int = 0
    """The number of the newest load when loads were told last."""
    _told_rates: dict[int, bytes] = attrs.field(factory=dict)

    def begin(self) -> None:
        """From now on. What the client knows of loads is not known, so all are told first."""
        if self._workers or self._models:
            self.next_at = trio.current_time()

    def news(self, snapshot: Snapshot) -> bytes:
        """The events of what has changed, where it is time for them; else empty."""
        now = trio.current_time()
        if now < self.next_at:
            return b""
        self.next_at = now + LOADS_EVERY
        changed = self._live.changed_since(self._told).keys() & self._workers
        self._told = self._live.number
        texts = []
        for key in sorted(changed):
            worker, load = snapshot.workers.get(key), self._live.of(key)
            if worker is not None and load is not None:
                texts.append(dumps([key, brief_load(worker, load)]))
        loads = b"event: loads\ndata: [%b]\n\n" % b",".join(texts) if texts else b""
        return loads + self._rate_news(snapshot)

    def _rate_news(self, snapshot: Snapshot) -> bytes:
        if self._rates is None:
            return b""
        texts = []
        for key in sorted(self._models & snapshot.models.keys()):
            text = dumps(brief_rate(self._rates.of(key)))
            if self._told_rates.get(key, b"{}") != text:
                self._told_rates[key] = text
                texts.append(b"[%d,%b]" % (key, text))
        return b"event: rates\ndata: [%b]\n\n" % b",".join(texts) if texts else b""


@attrs.define(eq=False, kw_only=True, repr=False)
class ChangeStream:
    """Events for one client, in the order of commits; its memory does not grow while the client does not read.

    A client that is behind is told of each record once, as it is now; one that is too far behind begins anew.
    """

    _store: Store
    _feed: ChangeFeed
    _audience: Audience
    _loads: LoadNews
    _allowed: Callable[[], bool]
    """Whether the caller still may watch: asked before each piece, and when a table of ``guards`` changes."""
    _guards: frozenset[str]
    _since: int | None = None
    _revision: int = 0
    _waiting: list[tuple[Item, WatchEvent]] | None = None
    """Of a replay, or of what has changed while the client was away; the next one at the end."""
    _event: str = ""
    """What those are told as."""
    _head: bytes = b""
    """What comes before the next piece."""
    _next_at: float = -math.inf
    _due: bool = True
    """There may be news."""
    _wake: Wake = attrs.field(factory=Wake)
    _open: ExitStack = attrs.field(factory=ExitStack)

    async def __aenter__(self) -> ChangeStream:
        self._wake = self._open.enter_context(self._store.watch(self._audience.tables | self._guards))
        self._open.enter_context(self._feed.watching())
        self._head = _BEGIN
        if self._since is None:
            self._replay()
        else:
            self._catch_up(self._since)
        self._loads.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __aiter__(self) -> ChangeStream:
        return self

    async def __anext__(self) -> bytes:
        quiet_until = trio.current_time() + SILENCE
        await trio.lowlevel.checkpoint()  # inference shares this thread
        # Asked again after each wait: the right may be gone meanwhile.
        while self._allowed():
            if self._waiting is not None:
                return self._taken_head() + self._told(self._waiting)
            if self._due:
                if trio.current_time() < self._next_at:
                    await trio.sleep_until(self._next_at)
                    continue
                piece = self._news()
                if piece:
                    self._next_at = trio.current_time() + PAUSE
                    return piece
                continue
            wanted = min(quiet_until, self._loads.next_at)
            self._due = await self._wake.wait(max(0.0, wanted - trio.current_time()))
            now = trio.current_time()
            self._due = self._due or now >= self._loads.next_at
            if not self._due and now >= quiet_until and self._allowed():
                return b":\n\n"
        raise StopAsyncIteration

    def _replay(self) -> None:
        """Tell everything from the start."""
        snapshot = self._store.snapshot
        self._revision, self._event = snapshot.revision, "state"
        items = [(item, WatchEvent.CREATED) for item in self._audience.present(snapshot)]
        self._waiting = items[::-1]

    def _catch_up(self, revision: int) -> None:
        """Tell what has changed since a revision, each record as it is now; everything where that is not known."""
        changed = self._audience.changed_since(revision)
        if changed is None:
            self._head += _RESET
            self._replay()
            return
        self._revision, self._event = self._store.snapshot.revision, "change"
        self._waiting = [*changed.items()][::-1]

    def _taken_head(self) -> bytes:
        head, self._head = self._head, b""
        return head

    def _told(self, waiting: list[tuple[Item, WatchEvent]]) -> bytes:
        """The next part of what waits, as one event; after the last part the mark that all is told."""
        snapshot, texts, size = self._store.snapshot, list[bytes](), 0
        while waiting and len(texts) < AT_ONCE and size < _PIECE:
            item, event = waiting.pop()
            document = None if event is WatchEvent.DELETED else self._audience.text(item, snapshot)
            if document is None and event is not WatchEvent.DELETED:
                continue  # deleted since: the next change says so
            text = self._line(item, event, document)
            texts.append(text)
            size += len(text)
        piece = b""
        if texts:
            piece = (
                change_event(texts, None)
                if self._event == "change"
                else b"event: state\ndata: [%b]\n\n" % b",".join(texts)
            )
        if not waiting:
            self._waiting, self._due = None, True
            piece += b"event: synced\nid: %d\ndata: null\n\n" % self._revision
        return piece

    def _line(self, item: Item, event: WatchEvent, document: bytes | None) -> bytes:
        if self._event == "change" or document is None:
            return changed_text(item[0], event, item[1], document)
        return b'["%b",%b]' % (item[0].value.encode(), document)

    def _news(self) -> bytes:
        """The events of what was committed since the last ones, then of loads; empty where there is nothing, or where
        the client is so far behind that it is told what waits instead."""
        batches = self._feed.since(self._revision)
        if batches is None:
            self._catch_up(self._revision)
            return b""
        snapshot, pieces, size = self._store.snapshot, list[bytes](), 0
        for batch in batches:
            if size >= _PIECE:
                break  # the rest follows when the client has taken this piece
            self._revision = batch.revision
            text = self._audience.event(batch, snapshot)
            pieces.append(text)
            size += len(text)
        self._due = size >= _PIECE
        if not self._due:
            self._revision = max(self._revision, self._feed.revision)
            pieces.append(self._loads.news(snapshot))
        return b"".join(pieces)

    def __repr__(self) -> str:
        waiting = "" if self._waiting is None else f", {len(self._waiting)} to tell"
        return f"<ChangeStream at revision {self._revision}{waiting}>"
