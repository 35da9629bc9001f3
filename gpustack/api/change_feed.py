"""The changes of the cluster as the console reads them: each commit is looked at once, whoever watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs

from gpustack.domain.instance import ModelInstance, claims_of, place_of
from gpustack.domain.record import Change, ChangeKind
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import RevisionExpired
from gpustack.store.store import Store

from .brief import KIND_OF_TABLE, BriefDocuments, BriefKind
from .watch import WatchEvent

_KEPT = 4096
_KEPT_BYTES = 8 << 20
"""Bounds on what is kept of the latest changes, for readers that are behind."""

Item = tuple[BriefKind, int]
"""A kind and an id."""


@attrs.frozen
class ChangedItem:
    """One record of a batch, with its brief document."""

    kind: BriefKind
    event: WatchEvent
    id: int
    text: bytes
    """As it stands in the event: ``["models",2,{…}]``."""


@attrs.define(eq=False)
class ChangeBatch:
    """What changed between two looks: mostly one commit."""

    revision: int
    items: Sequence[ChangedItem]
    size: int
    _events: dict[frozenset[BriefKind], bytes] = attrs.field(factory=dict)

    def event(self, kinds: frozenset[BriefKind]) -> bytes:
        """The event for watchers of these kinds, made once for all of them; empty where nothing concerns them."""
        known = self._events.get(kinds)
        if known is None:
            texts = [item.text for item in self.items if item.kind in kinds]
            known = self._events[kinds] = change_event(texts, self.revision) if texts else b""
        return known


def change_event(texts: Iterable[bytes], revision: int | None) -> bytes:
    """An event of changes; without a revision where more of the same follow."""
    number = b"" if revision is None else b"id: %d\n" % revision
    return b"event: change\n%bdata: [%b]\n\n" % (number, b",".join(texts))


def changed_text(kind: BriefKind, event: WatchEvent, key: int, document: bytes | None) -> bytes:
    """One record as it stands in an event of changes."""
    shown = b'{"id":%d}' % key if document is None else document
    return b'["%b",%d,%b]' % (kind.value.encode(), event, shown)


@attrs.define(eq=False, repr=False)
class ChangeFeed:
    """Owns the latest changes as brief documents.

    It is asked by its watchers when the store wakes them: the first that asks after a commit does the work for all, and
    without a watcher nothing is done. Everything runs in the Trio thread.
    """

    _store: Store
    documents: BriefDocuments
    watchers: int = 0
    revision: int = 0
    """Changes up to it are in the batches."""
    _floor: int = 0
    """All changes after it are in the batches."""
    _batches: deque[ChangeBatch] = attrs.field(factory=deque)
    _size: int = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, changes are followed."""
        self.watchers += 1
        if self.watchers == 1:
            self._restart()
        try:
            yield
        finally:
            self.watchers -= 1

    def since(self, revision: int) -> Sequence[ChangeBatch] | None:
        """All batches after that revision, oldest first; ``None`` where some are not kept any more."""
        self._catch_up()
        if revision < self._floor:
            return None
        found: list[ChangeBatch] = []
        for batch in reversed(self._batches):
            if batch.revision <= revision:
                break
            found.append(batch)
        return found[::-1]

    def changed_since(self, revision: int) -> Mapping[Item, WatchEvent] | None:
        """What has changed since a revision, each record once; ``None`` where that is not known any more."""
        self._catch_up()
        try:
            changes = self._store.changes_since(revision)
        except RevisionExpired:
            return None
        return _items(changes, self._store.snapshot)

    def _restart(self) -> None:
        """Begin anew at the present revision, and forget the batches before it."""
        snapshot = self._store.snapshot
        self._batches.clear()
        self._size = 0
        self.revision = self._floor = snapshot.revision
        self.documents.tally.restart(snapshot.instances.values())
        self.documents.keep_only(snapshot)

    def _catch_up(self) -> None:
        snapshot = self._store.snapshot
        if snapshot.revision == self.revision:
            return
        try:
            changes = self._store.changes_since(self.revision)
        except RevisionExpired:  # a commit so large, or records that were read anew
            self._restart()
            return
        tally = self.documents.tally
        counted = {
            change.record.model_id
            for change in changes
            if isinstance(change.record, ModelInstance) and tally.follow(change)
        }
        found = _items(changes, snapshot, counted)
        items: list[ChangedItem] = []
        for (kind, key), event in found.items():
            document = None
            if event is WatchEvent.DELETED:
                self.documents.forget(kind, key)
            else:
                document = self.documents.text(kind, key, snapshot)
            if document is not None or event is WatchEvent.DELETED:
                items.append(ChangedItem(kind, event, key, changed_text(kind, event, key, document)))
        self.revision = snapshot.revision
        if items:
            self._keep(ChangeBatch(self.revision, items, sum(len(item.text) for item in items)))

    def _keep(self, batch: ChangeBatch) -> None:
        self._batches.append(batch)
        self._size += batch.size
        while len(self._batches) > 1 and (len(self._batches) > _KEPT or self._size > _KEPT_BYTES):
            oldest = self._batches.popleft()
            self._size -= oldest.size
            self._floor = oldest.revision

    def __repr__(self) -> str:
        return f"<ChangeFeed at revision {self.revision}: {self.watchers} watchers, {len(self._batches)} batches kept>"


_ORDER = {kind: number for number, kind in enumerate(BriefKind)}
_EVENTS = {
    ChangeKind.CREATED: WatchEvent.CREATED,
    ChangeKind.UPDATED: WatchEvent.UPDATED,
    ChangeKind.DELETED: WatchEvent.DELETED,
}


def _items(
    changes: Iterable[Change], snapshot: Snapshot, counted: Collection[int] | None = None
) -> dict[Item, WatchEvent]:
    """The records whose brief documents the changes may have changed, each once: those that were written, the models of
    instances that are in another state, and the workers on which claims are others than before.

    ``counted``: the models of which instances are in another state; without it those of all instances that changed.
    """
    found: dict[Item, WatchEvent] = {}
    models: set[int] = set() if counted is None else {*counted}
    workers: set[int] = set()
    for change in changes:
        kind = KIND_OF_TABLE.get(change.table)
        if kind is None:
            continue
        item, event = (kind, change.record.id), _EVENTS[change.kind]
        if event is WatchEvent.UPDATED:
            found.setdefault(item, event)
        elif event is WatchEvent.DELETED and found.get(item) is WatchEvent.CREATED:
            del found[item]  # nobody has seen it
        else:
            found[item] = event
        if isinstance(change.record, ModelInstance):
            if counted is None:
                models.add(change.record.model_id)
            workers.update(_reclaimed(change, snapshot))
    for model_id in models & snapshot.models.keys():
        found.setdefault((BriefKind.MODELS, model_id), WatchEvent.UPDATED)
    for worker_id in workers & snapshot.workers.keys():
        found.setdefault((BriefKind.WORKERS, worker_id), WatchEvent.UPDATED)
    return dict(sorted(found.items(), key=lambda one: _ORDER[one[0][0]]))


def _reclaimed(change: Change, snapshot: Snapshot) -> Iterable[int]:
    """The workers on which the change of an instance has changed claims."""
    assert isinstance(change.record, ModelInstance)
    if change.kind is ChangeKind.UPDATED and change.before is None:
        return snapshot.workers  # from before this server started: where it was then is not known
    before, after = change.before, None if change.kind is ChangeKind.DELETED else change.record
    was = None if not isinstance(before, ModelInstance) else place_of(before)
    now = None if after is None else place_of(after)
    if was is now:
        return ()
    if change.kind is ChangeKind.DELETED and was is None:
        was = place_of(change.record)
    return {worker_id for place in (was, now) if place is not None for worker_id, _ in claims_of(place)}
