"""What is settled of a daemon before its tree opens."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import attrs

from gpustack.cli.daemon.handover import PredecessorLink
from gpustack.cli.daemon.listener import Listeners
from gpustack.cli.local import ANYWHERE
from gpustack.config.datadir import DataLock
from gpustack.config.loader import Configuration
from gpustack.http1.certificate import Certificate
from gpustack.nursery.restart import RestartPolicy
from gpustack.worker.shutdown import ShutdownMode

CONTROL_RESTART = RestartPolicy(first=1.0, factor=2.0, ceiling=30.0, budget=5, window=300.0)
"""How a control loop that failed is restarted, before the daemon gives up."""


def utc_now() -> datetime:
    """Now, as an aware instant: the wall clock that is handed to all who need one."""
    return datetime.now(UTC)


@attrs.frozen(kw_only=True)
class DaemonContext:
    """The configuration and the open resources of a daemon; the roles are built from it."""

    loaded: Configuration
    lock: DataLock
    listeners: Listeners
    certificate: Certificate | None
    began: float
    """``time.monotonic`` when the program started."""
    argv: tuple[str, ...] = ()
    """What follows ``gpustack start``, for the daemon after this one."""
    predecessor: PredecessorLink | None = None
    """The daemon that this one takes over from, if any."""
    rng: random.Random = attrs.field(factory=random.SystemRandom)
    shutdown_mode: ShutdownMode = attrs.field(factory=ShutdownMode)

    @property
    def is_open_to_all(self) -> bool:
        """Whether the server is reached at every address of this machine."""
        sockets = self.listeners.at("front")
        return bool(sockets) and sockets[0].getsockname()[0] in ANYWHERE

    @property
    def url(self) -> str:
        """Where the server of this daemon is reached from this machine; its ``--server-url`` if it has none."""
        sockets = self.listeners.at("front")
        if not sockets:
            return self.loaded.options.server_url or ""
        host, port = sockets[0].getsockname()[:2]
        if host in ANYWHERE:
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return url_at(host, port, tls=self.certificate is not None)


def url_at(host: str, port: int, *, tls: bool) -> str:
    """The URL of a server at an address, with the brackets that an IPv6 address needs."""
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
