"""A row for each server that shares the database, in which it writes what changes all the time for the others: the
loads of its workers, and the rates of models."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import sqlalchemy as sa

from gpustack.domain.document import decode, encode
from gpustack.domain.load import WorkerLoad
from gpustack.errors import Invalid

from .dialect import Dialect
from .table import worker_loads

_READ_FOR = 60.0
_KEPT_FOR = 24 * 3600.0
"""Seconds for which a row is read by others, and for which it is kept."""


@attrs.frozen(kw_only=True)
class SharedLoad:
    """The load of a worker, and how many seconds ago it was reported."""

    worker_id: int
    ago: float
    load: WorkerLoad


@attrs.frozen(kw_only=True)
class SharedRate:
    """Tokens a second that one server counted of a model: of answers and of prompts."""

    model_id: int
    written: float
    read: float
    used_ago: float | None
    """Seconds."""


@attrs.frozen
class LoadBoardRow:
    """What one server tells the others."""

    loads: tuple[SharedLoad, ...] = ()
    rates: tuple[SharedRate, ...] = ()


@attrs.frozen(kw_only=True)
class ToldRates:
    """The rates that another server wrote, some seconds ago."""

    server_uuid: str
    ago: float
    rates: tuple[SharedRate, ...]


@attrs.frozen
class LoadBoard:
    """What others wrote since the last look, and when each row was written, for the next one."""

    loads: tuple[SharedLoad, ...] = ()
    rates: tuple[ToldRates, ...] = ()
    seen: Mapping[str, int] = attrs.field(factory=dict)


def exchange(
    conn: sa.Connection,
    dialect: Dialect,
    server_uuid: str,
    own: LoadBoardRow,
    seen: Mapping[str, int],
) -> LoadBoard:
    """Write what one server tells, and read those rows of others that are not as they were ``seen``. Makes and reads
    JSON of all workers: it is for a thread."""
    if own.loads or own.rates:
        upsert = dialect.upsert(worker_loads, key=("server_uuid",), adding=(), replacing=("written", "loads"))
        conn.execute(
            upsert.values(
                server_uuid=server_uuid,
                written=sa.literal_column(dialect.clock),
                loads=encode(own).decode(),
            )
        )
    now = int(conn.exec_driver_sql(f"SELECT {dialect.clock}").scalar() or 0)
    conn.execute(sa.delete(worker_loads).where(worker_loads.c.written < now - round(_KEPT_FOR * 1000)))
    lately = worker_loads.c.written > now - round(_READ_FOR * 1000)
    rows = sa.select(worker_loads.c.server_uuid, worker_loads.c.written)
    there = {
        row.server_uuid: row.written
        for row in conn.execute(rows.where(lately, worker_loads.c.server_uuid != server_uuid))
    }
    news = [uuid for uuid, written in there.items() if seen.get(uuid) != written]
    found, rates = list[SharedLoad](), list[ToldRates]()
    for row in conn.execute(sa.select(worker_loads).where(worker_loads.c.server_uuid.in_(news))):
        late = max(now - row.written, 0) / 1000
        told = _read(row.loads)
        found += [attrs.evolve(one, ago=one.ago + late) for one in told.loads]
        rates.append(ToldRates(server_uuid=row.server_uuid, ago=late, rates=told.rates))
    return LoadBoard(tuple(found), tuple(rates), there)


def _read(text: str) -> LoadBoardRow:
    """What stands in a row; nothing in one that a server of another version wrote in another form."""
    try:
        return decode(text.encode(), LoadBoardRow)
    except Invalid:
        return LoadBoardRow()
