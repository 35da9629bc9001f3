"""The last changes in memory, from which a watcher that was away resumes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from gpustack.domain.record import Change
from gpustack.errors import RevisionExpired

SIZE = 4096
BYTES = 64 << 20
"""Of all records in it: some are thousands of times as large as others."""


@attrs.define(eq=False, repr=False)
class ChangeBuffer:
    """Changes with growing revisions, without gaps since ``floor``; the oldest make room."""

    floor: int
    """Everything after this revision is here."""
    newest: int
    _size: int = SIZE
    _bytes: int = BYTES
    _changes: deque[Change] = attrs.field(factory=deque)
    _held: int = 0

    def extend(self, changes: Iterable[Change], newest: int | None = None) -> None:
        """Take in the changes of a commit, newer than all that are here.

        ``newest`` is the revision reached, where the last changes of all are of no table that we know.
        """
        for change in changes:
            self._changes.append(change)
            self._held += change.size
            self.newest = change.revision
        if newest is not None:
            self.newest = newest
        while len(self._changes) > self._size or self._held > self._bytes:
            oldest = self._changes.popleft()
            self._held -= oldest.size
            self.floor = oldest.revision

    def restart(self, newest: int) -> None:
        """Changes up to ``newest`` were missed: nothing before it is known any more."""
        self._changes.clear()
        self._held = 0
        self.floor = self.newest = newest

    def since(self, revision: int) -> list[Change]:
        """All changes after ``revision``, oldest first. Raises ``RevisionExpired`` when some are no longer known.

        A revision that was never given (the database was restored from a backup) is ``RevisionExpired`` as well.
        """
        if revision > self.newest:
            raise RevisionExpired(
                f"Revision {revision} is newer than the present one ({self.newest}): list again"
            )
        if revision < self.floor:
            raise RevisionExpired(
                f"Revision {revision} is too old, changes are known since {self.floor}: list again"
            )
        found: list[Change] = []
        for change in reversed(self._changes):
            if change.revision <= revision:
                break
            found.append(change)
        found.reverse()
        return found

    def __repr__(self) -> str:
        return f"<Ring: {len(self._changes)} changes, {self.floor} to {self.newest}>"
