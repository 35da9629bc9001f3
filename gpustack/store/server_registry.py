"""The servers that share a database: which are live, their common secrets, and when they last heard each worker."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import sqlalchemy as sa

from gpustack.errors import Invalid

from . import journal, lease
from .dialect import Dialect
from .table import cluster_secrets, heartbeats, leases, servers

LIVE_FOR = 10.0
"""Seconds since its last heartbeat for which a server counts as live; it sends one every two seconds."""
_LAST_HEARD_WITHIN = 60.0
"""Heartbeats of workers older than these seconds are not returned. A server that becomes leader waits longer before it
calls a worker silent."""
_KEPT_FOR = 24 * 3600.0


@attrs.frozen(kw_only=True)
class ServerIdentity:
    """One run of one server. ``uuid`` belongs to its data directory, ``run`` to this process."""

    uuid: str
    run: str
    url: str
    """The URL that workers use."""
    version: str

    @property
    def holder(self) -> str:
        """Its name as the holder of a lease. It differs for a copy of the data directory elsewhere."""
        return f"{self.uuid}/{self.run}"


@attrs.frozen(kw_only=True)
class RegisteredServer:
    """A server as the others see it. ``silent`` are the seconds since its last heartbeat."""

    uuid: str
    url: str
    version: str
    silent: float
    leads: bool = False

    @property
    def lives(self) -> bool:
        return self.silent < LIVE_FOR


@attrs.frozen(kw_only=True)
class RegistryView:
    """The registry at one moment: servers sorted by uuid, and the seconds since each worker was last heard."""

    servers: tuple[RegisteredServer, ...] = ()
    heard: Mapping[int, float] = attrs.field(factory=dict)
    term: int | None = None
    """The term of the present leader, if there is one."""
    agreed: bool = True
    """Whether the secrets in the database are still those of this server."""
    other_copy: str | None = None
    """URL of another daemon with the uuid of this server: one of the two runs on a copy of the data directory."""


@attrs.frozen(kw_only=True)
class SecretProposal:
    """The value that one server has for a secret. ``knob`` is the option that set it, or ``None`` if no option did."""

    value: str = attrs.field(repr=False)
    knob: str | None = None


def register(
    conn: sa.Connection, dialect: Dialect, me: ServerIdentity, proposals: Mapping[str, SecretProposal]
) -> Mapping[str, str]:
    """Register this server and agree with the others on each secret; returns the secrets that hold now.

    Those of the first server become the secrets of all. One that an option sets here is refused with ``Invalid`` when
    another live server has a different one, and replaces the stored one when no other server is live.
    """
    journal.lock_head(conn)  # servers that start at once take turns
    refuse_other_secrets(conn, dialect, me.uuid, proposals)
    stored = _stored_secrets(conn)
    for name, proposal in proposals.items():
        if name not in stored:
            conn.execute(sa.insert(cluster_secrets).values(name=name, value=proposal.value))
        elif proposal.knob is not None and stored[name] != proposal.value:
            mine = cluster_secrets.c.name == name
            conn.execute(sa.update(cluster_secrets).where(mine).values(value=proposal.value))
        else:
            continue
        stored[name] = proposal.value
    _write_heartbeat(conn, dialect, me)
    return {name: stored[name] for name in proposals}


def refuse_other_secrets(
    conn: sa.Connection, dialect: Dialect, uuid: str, proposals: Mapping[str, SecretProposal]
) -> None:
    """Raise ``Invalid`` when an option sets a secret here and another live server than ``uuid`` has a different one.

    Reads only, and only columns of the first release with these tables, so that it can be called before a migration.
    """
    stored = _stored_secrets(conn)
    since = _now(conn, dialect) - round(LIVE_FOR * 1000)
    others = sa.select(servers.c.url).where(servers.c.seen > since, servers.c.server_uuid != uuid)
    other = conn.execute(others.order_by(servers.c.server_uuid)).scalar()
    for name, proposal in proposals.items():
        if (
            proposal.knob is not None
            and stored.get(name, proposal.value) != proposal.value
            and other is not None
        ):
            raise Invalid(
                f"{proposal.knob} differs from that of the other servers on this database, of which"
                f" {other} runs: leave it out here, or stop the others to replace it"
            )


def heartbeat(
    conn: sa.Connection,
    dialect: Dialect,
    me: ServerIdentity,
    heard: Mapping[int, float],
    settled: Mapping[str, str],
) -> RegistryView:
    """Store the heartbeat of this server and when it last heard workers (seconds ago, by id); returns the registry.

    ``settled`` are the secrets of this server.
    """
    own = conn.execute(sa.select(servers).where(servers.c.server_uuid == me.uuid)).one_or_none()
    _write_heartbeat(conn, dialect, me)
    now = _now(conn, dialect)
    if heard:
        rows = [{"worker_id": key, "heard": now - round(heard[key] * 1000)} for key in sorted(heard)]
        conn.execute(dialect.upsert(heartbeats, key=("worker_id",), adding=(), replacing=("heard",)), rows)
    lately = sa.select(heartbeats).where(heartbeats.c.heard > now - round(_LAST_HEARD_WITHIN * 1000))
    ages = {row.worker_id: max(now - row.heard, 0) / 1000 for row in conn.execute(lately)}
    found = _all_servers(conn, dialect)
    leading = any(server.leads for server in found)
    term = sa.select(leases.c.term).where(leases.c.name == lease.LEADER)
    return RegistryView(
        servers=tuple(found),
        heard=ages,
        term=conn.execute(term).scalar() if leading else None,
        agreed=_stored_secrets(conn).items() >= settled.items(),
        # The row has been ours since the registration, unless another daemon has written it.
        other_copy=None if own is None or own.run == me.run else own.url,
    )


def deregister(conn: sa.Connection, dialect: Dialect, me: ServerIdentity) -> None:
    """Remove this server, if the row is of this run, and delete rows that are older than a day."""
    conn.execute(sa.delete(servers).where(servers.c.server_uuid == me.uuid, servers.c.run == me.run))
    long_ago = _now(conn, dialect) - round(_KEPT_FOR * 1000)
    conn.execute(sa.delete(servers).where(servers.c.seen < long_ago))
    conn.execute(sa.delete(heartbeats).where(heartbeats.c.heard < long_ago))


def live_servers(conn: sa.Connection, dialect: Dialect) -> list[RegisteredServer]:
    """The servers that are live now."""
    return [server for server in _all_servers(conn, dialect) if server.lives]


def _stored_secrets(conn: sa.Connection) -> dict[str, str]:
    return {row.name: row.value for row in conn.execute(sa.select(cluster_secrets))}


def _write_heartbeat(conn: sa.Connection, dialect: Dialect, me: ServerIdentity) -> None:
    columns = ("run", "url", "version_running", "seen")
    conn.execute(
        dialect.upsert(servers, key=("server_uuid",), adding=(), replacing=columns).values(
            server_uuid=me.uuid,
            run=me.run,
            url=me.url,
            version_running=me.version,
            seen=sa.literal_column(dialect.clock),
        )
    )


def _now(conn: sa.Connection, dialect: Dialect) -> int:
    return int(conn.exec_driver_sql(f"SELECT {dialect.clock}").scalar() or 0)


def _all_servers(conn: sa.Connection, dialect: Dialect) -> list[RegisteredServer]:
    now = _now(conn, dialect)
    leading = sa.select(leases.c.holder).where(leases.c.name == lease.LEADER, leases.c.expires > now)
    leader = conn.execute(leading).scalar()
    rows = conn.execute(sa.select(servers).order_by(servers.c.server_uuid))
    return [
        RegisteredServer(
            uuid=row.server_uuid,
            url=row.url,
            version=row.version_running,
            silent=max(now - row.seen, 0) / 1000,
            leads=f"{row.server_uuid}/{row.run}" == leader,
        )
        for row in rows
    ]
