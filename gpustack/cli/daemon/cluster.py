"""What the servers on one database share: their secrets, the list of them all, and which of them leads."""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence

import attrs
import sqlalchemy as sa

from gpustack import __version__
from gpustack.cli.daemon.context import CONTROL_RESTART, DaemonContext, url_at
from gpustack.cli.local import ANYWHERE
from gpustack.config.options import Options
from gpustack.config.secret import (
    BYTES,
    SHORTEST,
    keep_jwt_secret_key,
    keep_server_uuid,
    keep_token,
    read_secret,
    replace_secret,
)
from gpustack.hardware.address import find_address
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.nursery.limiter import threads
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.leadership import Leadership, ServicesOfTerm, StoreLease
from gpustack.server.live_status import LiveStatus
from gpustack.server.load_exchange import LoadExchange
from gpustack.server.model_rates import ModelRates
from gpustack.server.presence import ServerPresence, settle
from gpustack.store.database import open_shared
from gpustack.store.server_registry import (
    RegisteredServer,
    SecretProposal,
    ServerIdentity,
    refuse_other_secrets,
)
from gpustack.store.store import Store, StoreSettings
from gpustack.store.table import cluster_secrets, servers

log = logging.getLogger(__name__)

_SECRETS = {"token": "--token", "jwt_secret_key": "jwt_secret_key"}
"""The secrets of a cluster: the name of file and option, and what users call the option."""
_threads = threads("cluster secrets", 1)


@attrs.frozen(kw_only=True)
class ClusterIdentity:
    """The secrets that hold in this cluster, and how this server is named among its servers."""

    secrets: Mapping[str, str] = attrs.field(repr=False)
    me: ServerIdentity

    @property
    def token(self) -> str:
        return self.secrets["token"]

    @property
    def keys(self) -> DerivedKeys:
        """The keys that are derived from the secrets. Raises ``Invalid`` for a secret that is none."""
        return DerivedKeys.of(self.secrets["jwt_secret_key"])


async def agree_on_secrets(daemon: DaemonContext, store: Store) -> ClusterIdentity:
    """The secrets of the data directory, or on a shared database those that its servers have agreed on.

    The files of the data directory are brought in line with the database, so that a backup holds the right ones.
    Raises ``Invalid`` when an option contradicts servers that run, ``DataDirError`` and ``Unavailable``.
    """
    identity = await _agree(daemon, store)
    # A token that was given has been warned of with the options.
    if len(identity.token) < SHORTEST["token"] and daemon.loaded.options.token is None:
        log.warning(
            "The cluster token in %s has fewer than %d characters, and is sooner guessed than a new one: remove the "
            "file, restart, and give the new one to workers that join",
            daemon.loaded.options.data_dir / "token", SHORTEST["token"],
        )  # fmt: skip
    return identity


async def _agree(daemon: DaemonContext, store: Store) -> ClusterIdentity:
    options = daemon.loaded.options
    me = ServerIdentity(
        uuid=await _threads.run(keep_server_uuid, options.data_dir, lambda: str(uuid.uuid4())),
        run=secrets.token_hex(8),
        url=await _threads.run(address_of(daemon)),
        version=__version__,
    )
    if not store.shared:
        return ClusterIdentity(secrets=await _threads.run(_alone, options), me=me)
    proposals = await _threads.run(_proposals, options)
    settled = await settle(store, me, proposals)
    for name, proposal in proposals.items():
        path = options.data_dir / name
        if proposal.knob is None and await _threads.run(replace_secret, path, settled[name]):
            log.warning(
                "The servers on this database have another %s than %s had: theirs is taken, the former is in %s."
                " To replace it for all, stop them and set %s on the first that starts again",
                name, path, path.with_name(f"{name}.replaced"), _SECRETS[name],
            )  # fmt: skip
    return ClusterIdentity(secrets=settled, me=me)


def check_shared_database(options: Options, settings: StoreSettings) -> None:
    """Raise what would keep this server from starting on a shared database: ``Invalid``, ``DataDirError``,
    ``Unavailable``.

    It blocks and writes nothing to the database, so it can be asked while the daemon before this one serves.
    """
    database = open_shared(settings.database_url, settings.pool)
    if database is None:
        return
    try:
        database.look()
        with database.read.connect() as conn:
            there = sa.inspect(conn).get_table_names()
            uuid = read_secret(options.data_dir / "server_uuid")
            if uuid is not None and {servers.name, cluster_secrets.name} <= set(there):
                refuse_other_secrets(conn, database.dialect, uuid, _proposals(options))
    except sa.exc.DBAPIError as error:
        raise database.fault(error) from error
    finally:
        database.close()


def _alone(options: Options) -> dict[str, str]:
    return {
        "token": options.token or keep_token(options.data_dir, secrets.token_hex),
        "jwt_secret_key": options.jwt_secret_key or keep_jwt_secret_key(options.data_dir, secrets.token_hex),
    }


def _proposals(options: Options) -> dict[str, SecretProposal]:
    """The secrets that hold if this server is the first of its cluster. Nothing is written yet."""
    proposals = {}
    for name, knob in _SECRETS.items():
        given: str | None = getattr(options, name)
        own = given or read_secret(options.data_dir / name) or secrets.token_hex(BYTES[name])
        proposals[name] = SecretProposal(value=own, knob=knob if given else None)
    return proposals


@attrs.frozen
class ClusterMembership:
    """The place of this server among those on its database. On a database of its own it is alone, and leads."""

    leadership: Leadership
    presence: ServerPresence | None
    exchange: LoadExchange | None
    _me: ServerIdentity

    @classmethod
    def of(
        cls,
        daemon: DaemonContext,
        store: Store,
        identity: ClusterIdentity,
        heartbeats: HeartbeatTimes,
        live: LiveStatus,
        rates: ModelRates,
        make_services: ServicesOfTerm,
    ) -> ClusterMembership:
        """Built, not started; ``make_services`` makes the loops that run while this server leads."""
        if not store.shared:
            return cls(Leadership(None, make_services, CONTROL_RESTART), None, None, identity.me)
        lease = StoreLease(store, identity.me.holder)
        presence = ServerPresence(store, heartbeats, identity.me, identity.secrets, address_of(daemon))
        return cls(
            Leadership(lease, make_services, CONTROL_RESTART),
            presence,
            LoadExchange(store, live, rates, identity.me.uuid, lambda: len(presence.urls) < 2),
            identity.me,
        )

    def servers(self) -> Sequence[RegisteredServer]:
        """All servers of the cluster, including those that were killed lately."""
        # Of ourselves: the database is some seconds behind.
        me, leads = self._me, self.leadership.leads
        if self.presence is None:
            return (RegisteredServer(uuid=me.uuid, url=me.url, version=me.version, silent=0.0, leads=leads),)
        return [
            attrs.evolve(server, leads=leads) if server.uuid == me.uuid else server
            for server in self.presence.servers
        ]

    def share(self) -> tuple[int, int]:
        """How many servers accept requests, and which of them this is, counted from 0."""
        living = [server.uuid for server in self.servers() if server.lives]
        me = self._me.uuid
        return (len(living), living.index(me)) if me in living else (len(living) + 1, len(living))

    def urls(self) -> Sequence[str]:
        """The URLs that workers may turn to; empty where there is one server, whose URL they have."""
        return () if self.presence is None else self.presence.urls


def address_of(daemon: DaemonContext) -> Callable[[], str]:
    """A function that finds the URL at which workers reach this server; it may block."""
    options = daemon.loaded.options
    port = daemon.listeners.port("front") or 0

    def look() -> str:
        if options.advertise_url is not None:
            return options.advertise_url
        host = (find_address() or "127.0.0.1") if options.host in ANYWHERE else options.host
        return url_at(host, port, tls=daemon.certificate is not None)

    return look
