"""Writes of rows: many in one transaction, once and within a time; what cannot be stored is left in a folder."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import attrs
import trio

from gpustack import durable_file
from gpustack.domain.document import decode, encode
from gpustack.domain.record import Record
from gpustack.errors import Invalid, NotFound, Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.store.fenced_store import RecordStore
from gpustack.store.table import noun
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")
R = TypeVar("R", bound=Record)


def existing(tx: Tx, cls: type[R], key: int) -> R:
    """The record with that id. Raises ``NotFound``."""
    record = tx.get(cls, key)
    if record is None:
        raise NotFound(f"{noun(cls).capitalize()} {key} does not exist")
    return record


async def write_rows(
    store: RecordStore, rows: Mapping[K, Callable[[Tx], T]], faults: Quarantine
) -> dict[K, T]:
    """What each row returns: all of them in one transaction, or each in its own where that fails.

    A row that cannot be written is set aside in ``faults`` and is not in the answer. Raises what ``faults`` lets pass
    (``Unavailable``). Cancellable, but a write that has begun is still made.
    """

    async def act(some: Mapping[K, Callable[[Tx], T]]) -> dict[K, T]:
        return await store.write(lambda tx: {key: row(tx) for key, row in some.items()})

    return {key: made for _, some in await faults.together(rows, act) for key, made in some.items()}


@attrs.define(eq=False)
class WithdrawableWrite:
    """A work of the store that its caller can withdraw until it begins.

    A write that is given up while it waits for its turn could otherwise be made later, after its rows were put back.
    """

    _work: Callable[[Tx], None]
    _begun: threading.Lock = attrs.field(factory=threading.Lock)

    def __call__(self, tx: Tx) -> None:
        if self._begun.acquire(blocking=False):
            self._work(tx)

    def withdraw(self) -> bool:
        """Keep it from being made; false when it has begun."""
        return self._begun.acquire(blocking=False)


@attrs.frozen(kw_only=True)
class FlushResult(Generic[K, V]):
    """What a flush came to."""

    left: Mapping[K, V]
    """Rows that are not stored and will not be by this flush: to be put back."""
    under_way: Mapping[K, V]
    """Rows whose write had begun when the time was over: they count as stored."""
    error: Unavailable | None
    """Why the database took none of the rows that are left."""
    timed_out: bool


async def flush_rows(
    store: RecordStore,
    rows: Mapping[K, V],
    work: Callable[[Tx, Mapping[K, V]], None],
    faults: Quarantine,
    *,
    deadline: float,
) -> FlushResult[K, V]:
    """Store rows by ``work``, each once. Ends by ``deadline`` (Trio's clock) and is not cancellable until then.

    Rows that cannot be stored for what they hold are left, and set aside in ``faults``, which must let ``Unavailable``
    pass.
    """
    left = dict(rows)
    under_way: tuple[WithdrawableWrite, Mapping[K, V]] | None = None
    error: Unavailable | None = None

    async def act(some: Mapping[K, V]) -> None:
        nonlocal under_way
        write = WithdrawableWrite(lambda tx: work(tx, some))
        under_way = (write, some)
        await store.write(write)
        under_way = None
        for key in some:
            del left[key]

    with trio.CancelScope(shield=True, deadline=deadline) as patience:
        try:
            await faults.together(rows, act)
        except Unavailable as unavailable:
            error = unavailable
    begun: Mapping[K, V] = {}
    if patience.cancelled_caught and under_way is not None and not under_way[0].withdraw():
        begun = under_way[1]
        for key in begun:
            del left[key]
    return FlushResult(left=left, under_way=begun, error=error, timed_out=patience.cancelled_caught)


def write_spool(folder: Path, values: Sequence[object]) -> None:
    """Leave values in a file of the folder for the next daemon, on disk before this returns. Raises OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    durable_file.write(folder / f"{os.getpid()}.json", encode(list(values)))
    log.info(
        "Left for the next daemon what the database did not take: folder=%s count=%d", folder, len(values)
    )


def read_spool(folder: Path, cls: type[T]) -> Iterator[T]:
    """All values of that class that daemons before this one left in the folder; their files are removed.

    A file is renamed before it is read: a daemon that is killed in between loses its values, but none is taken twice.
    One that cannot be read stays there under its other name.
    """
    for path in sorted(folder.glob("*.json")):
        taken = path.with_suffix(".taken")
        try:
            path.rename(taken)
            values = decode(taken.read_bytes(), tuple[cls, ...])  # type: ignore[valid-type]
            taken.unlink()
        except (OSError, Invalid) as error:
            log.warning("What another daemon left cannot be read: file=%s reason=%s", path, error)
            continue
        yield from values
