"""The last changes in memory, from which a watcher resumes after a lost connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from gpustack.domain.record import Change
from gpustack.errors import RevisionExpired

SIZE = 4096
BYTES = 64 << 20
"""Bound on the memory of all records in it, because their sizes differ by a factor of thousands."""


@attrs.define(eq=False, repr=False)
class ChangeBuffer:
    """The newest changes with growing revisions, complete since ``floor``. The oldest are dropped."""

    floor: int
    """All changes after this revision are in the buffer."""
    newest: int
    _size: int = SIZE
    _bytes: int = BYTES
    _changes: deque[Change] = attrs.field(factory=deque)
    _held: int = 0

    def extend(self, changes: Iterable[Change], newest: int | None = None) -> None:
        """Add the changes of a commit, which are newer than all in the buffer.

        ``newest`` is the revision reached; it is later than the last change where later ones are of unknown tables.
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
        """Drop all changes: those up to ``newest`` were missed."""
        self._changes.clear()
        self._held = 0
        self.floor = self.newest = newest

    def since(self, revision: int) -> list[Change]:
        """All changes after ``revision``, oldest first. Raises ``RevisionExpired`` when some are no longer known.

        Raises it also for a revision that was not assigned yet, as after a restore from a backup.
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
        return f"<ChangeBuffer: {len(self._changes)} changes, {self.floor} to {self.newest}>"
