"""The store for the loops of the leader: its writes are refused once another server leads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import attrs
import trio

from gpustack.domain.snapshot import Snapshot
from gpustack.nursery.wake import Wake

from .lease import LeaseLost, LeaseTerm
from .store import Store
from .transaction import Tx

T = TypeVar("T")


class RecordStore(Protocol):
    """What a control loop needs of a store."""

    @property
    def snapshot(self) -> Snapshot: ...

    async def write(self, work: Callable[[Tx], T]) -> T: ...

    def watch(self, tables: Iterable[str] | None = None) -> AbstractContextManager[Wake]: ...


@attrs.frozen
class FencedStore:
    """A store all of whose writes carry a term (a fencing token). The first one that is refused calls ``_lease_lost``,
    which has to cancel the caller: the write itself does not return."""

    _store: Store
    _term: LeaseTerm | None
    """``None`` where there is only one server."""
    _lease_lost: Callable[[], None]

    @property
    def snapshot(self) -> Snapshot:
        """As that of the store."""
        return self._store.snapshot

    async def write(self, work: Callable[[Tx], T]) -> T:
        """As that of the store."""
        try:
            return await self._store.write(work, term=self._term)
        except LeaseLost:
            self._lease_lost()
            await trio.sleep_forever()

    def watch(self, tables: Iterable[str] | None = None) -> AbstractContextManager[Wake]:
        """As that of the store."""
        return self._store.watch(tables)
