"""The servers that share a database: who is there, what all of them must know alike, and whom they heard."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import sqlalchemy as sa

from gpustack.errors import Invalid

from . import journal, lease
from .dialect import Dialect
from .table import cluster_secrets, heartbeats, leases, servers

LIVES_FOR = 10.0
"""Seconds after its last word for which a server is taken to be there; it speaks every two."""
_HEARD_FOR = 60.0
"""Seconds for which it matters that a worker was heard: a server that begins to judge gives everybody more."""
_KEPT_FOR = 24 * 3600.0


@attrs.frozen(kw_only=True)
class ServerIdentity:
    """One run of one server. ``uuid`` stays with its data directory, ``run`` is this process alone."""

    uuid: str
    run: str
    url: str
    """Where workers reach it."""
    version: str

    @property
    def holder(self) -> str:
        """What it is called in a lease: a copy of the data directory elsewhere is another holder."""
        return f"{self.uuid}/{self.run}"


@attrs.frozen(kw_only=True)
class RegisteredServer:
    """A server as the others see it. ``silent`` are seconds since its last word."""

    uuid: str
    url: str
    version: str
    silent: float
    leads: bool = False

    @property
    def lives(self) -> bool:
        return self.silent < LIVES_FOR


@attrs.frozen(kw_only=True)
class RegistryView:
    """What is to be known of the others now: servers by their uuid, and seconds since each worker was heard."""

    servers: tuple[RegisteredServer, ...] = ()
    heard: Mapping[int, float] = attrs.field(factory=dict)
    term: int | None = None
    """The term of whoever leads now, if anybody does."""
    agreed: bool = True
    """The secrets are still those that this server settled on."""
    twin: str | None = None
    """Where another daemon is that says to be this server: it has a copy of the data directory, or we have."""


@attrs.frozen(kw_only=True)
class SecretProposal:
    """A secret as one server has it. ``knob`` is what set it, if somebody did and means it."""

    value: str = attrs.field(repr=False)
    knob: str | None = None


def settle(
    conn: sa.Connection, dialect: Dialect, me: ServerIdentity, offers: Mapping[str, SecretProposal]
) -> Mapping[str, str]:
    """Take this server on the roster, and agree with the others on each secret; returns what holds now.

    The first server's become those of all. One that somebody set here is refused with ``Invalid`` when another
    server lives with a different one, and replaces it when none does.
    """
    journal.hold(conn)  # of servers that start at once, one after the other
    contradict(conn, dialect, me.uuid, offers)
    held = _held(conn)
    for name, offer in offers.items():
        if name not in held:
            conn.execute(sa.insert(cluster_secrets).values(name=name, value=offer.value))
        elif offer.knob is not None and held[name] != offer.value:
            mine = cluster_secrets.c.name == name
            conn.execute(sa.update(cluster_secrets).where(mine).values(value=offer.value))
        else:
            continue
        held[name] = offer.value
    _speak(conn, dialect, me)
    return {name: held[name] for name in offers}


def contradict(
    conn: sa.Connection, dialect: Dialect, uuid: str, offers: Mapping[str, SecretProposal]
) -> None:
    """Raise ``Invalid`` when somebody set a secret here and another server than ``uuid`` lives with a different one.

    It reads only, and no more than older programs have, so that it may be asked before a migration.
    """
    held = _held(conn)
    since = _now(conn, dialect) - round(LIVES_FOR * 1000)
    others = sa.select(servers.c.url).where(servers.c.seen > since, servers.c.server_uuid != uuid)
    other = conn.execute(others.order_by(servers.c.server_uuid)).scalar()
    for name, offer in offers.items():
        if offer.knob is not None and held.get(name, offer.value) != offer.value and other is not None:
            raise Invalid(
                f"{offer.knob} differs from that of the other servers on this database, of which"
                f" {other} runs: leave it out here, or stop the others to replace it"
            )


def attend(
    conn: sa.Connection,
    dialect: Dialect,
    me: ServerIdentity,
    heard: Mapping[int, float],
    settled: Mapping[str, str],
) -> RegistryView:
    """Say that this server is there and whom it heard (seconds ago, by worker); learn the same of the others.

    ``settled`` are the secrets that this server goes by.
    """
    own = conn.execute(sa.select(servers).where(servers.c.server_uuid == me.uuid)).one_or_none()
    _speak(conn, dialect, me)
    now = _now(conn, dialect)
    if heard:
        rows = [{"worker_id": key, "heard": now - round(heard[key] * 1000)} for key in sorted(heard)]
        conn.execute(dialect.upsert(heartbeats, key=("worker_id",), adding=(), replacing=("heard",)), rows)
    lately = sa.select(heartbeats).where(heartbeats.c.heard > now - round(_HEARD_FOR * 1000))
    ages = {row.worker_id: max(now - row.heard, 0) / 1000 for row in conn.execute(lately)}
    found = _listed(conn, dialect)
    leading = any(server.leads for server in found)
    term = sa.select(leases.c.term).where(leases.c.name == lease.LEADER)
    return RegistryView(
        servers=tuple(found),
        heard=ages,
        term=conn.execute(term).scalar() if leading else None,
        agreed=_held(conn).items() >= settled.items(),
        # Since we settled the row is ours, unless somebody else has written it.
        twin=None if own is None or own.run == me.run else own.url,
    )


def depart(conn: sa.Connection, dialect: Dialect, me: ServerIdentity) -> None:
    """Leave the roster, if this run is on it still, and drop what is too old to be of use."""
    conn.execute(sa.delete(servers).where(servers.c.server_uuid == me.uuid, servers.c.run == me.run))
    long_ago = _now(conn, dialect) - round(_KEPT_FOR * 1000)
    conn.execute(sa.delete(servers).where(servers.c.seen < long_ago))
    conn.execute(sa.delete(heartbeats).where(heartbeats.c.heard < long_ago))


def living(conn: sa.Connection, dialect: Dialect) -> list[RegisteredServer]:
    """The servers that are there now."""
    return [server for server in _listed(conn, dialect) if server.lives]


def _held(conn: sa.Connection) -> dict[str, str]:
    return {row.name: row.value for row in conn.execute(sa.select(cluster_secrets))}


def _speak(conn: sa.Connection, dialect: Dialect, me: ServerIdentity) -> None:
    said = ("run", "url", "version_running", "seen")
    conn.execute(
        dialect.upsert(servers, key=("server_uuid",), adding=(), replacing=said).values(
            server_uuid=me.uuid,
            run=me.run,
            url=me.url,
            version_running=me.version,
            seen=sa.literal_column(dialect.clock),
        )
    )


def _now(conn: sa.Connection, dialect: Dialect) -> int:
    return int(conn.exec_driver_sql(f"SELECT {dialect.clock}").scalar() or 0)


def _listed(conn: sa.Connection, dialect: Dialect) -> list[RegisteredServer]:
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
