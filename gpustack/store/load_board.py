"""A row for each server that shares the database, in which it writes the loads of its workers for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


@attrs.frozen
class LoadBoard:
    """The loads that others wrote since the last look, and when each row was written, for the next one."""

    loads: tuple[SharedLoad, ...] = ()
    seen: Mapping[str, int] = attrs.field(factory=dict)


def exchange(
    conn: sa.Connection,
    dialect: Dialect,
    server_uuid: str,
    own: Sequence[SharedLoad],
    seen: Mapping[str, int],
) -> LoadBoard:
    """Write the loads of one server, and read those rows of others that are not as they were ``seen``. Makes and reads
    JSON of all workers: it is for a thread."""
    if own:
        upsert = dialect.upsert(worker_loads, key=("server_uuid",), adding=(), replacing=("written", "loads"))
        conn.execute(
            upsert.values(
                server_uuid=server_uuid,
                written=sa.literal_column(dialect.clock),
                loads=encode(tuple(own)).decode(),
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
    found: list[SharedLoad] = []
    for row in conn.execute(sa.select(worker_loads).where(worker_loads.c.server_uuid.in_(news))):
        late = max(now - row.written, 0) / 1000
        found += [attrs.evolve(one, ago=one.ago + late) for one in _read(row.loads)]
    return LoadBoard(tuple(found), there)


def _read(text: str) -> tuple[SharedLoad, ...]:
    """The loads in a row; none in one that a server of another version wrote in another form."""
    try:
        return decode(text.encode(), tuple[SharedLoad, ...])
    except Invalid:
        return ()
