"""What is settled of a daemon before its tree opens."""

from __future__ import annotations

import random

import attrs

from gpustack.cli.doors import Listeners
from gpustack.cli.handover import PredecessorLink
from gpustack.config.datadir import DataLock
from gpustack.config.loader import Configuration
from gpustack.http1.certificate import Certificate
from gpustack.nursery.restart import RestartPolicy
from gpustack.worker.shutdown import ShutdownMode

CONTROL_RESTART = RestartPolicy(first=1.0, factor=2.0, ceiling=30.0, budget=5, window=300.0)
"""How often and when a loop that failed is run again, before the daemon gives up."""


_ANYWHERE = ("0.0.0.0", "::")


@attrs.frozen(kw_only=True)
class DaemonContext:
    """What is settled before the tree opens."""

    loaded: Configuration
    lock: DataLock
    doors: Listeners
    certificate: Certificate | None
    began: float
    argv: tuple[str, ...] = ()
    """What follows ``gpustack start``, for the daemon after this one."""
    successor: PredecessorLink | None = None
    """Set in a daemon that takes over from another."""
    rng: random.Random = attrs.field(factory=random.SystemRandom)
    intent: ShutdownMode = attrs.field(factory=ShutdownMode)

    @property
    def is_open_to_all(self) -> bool:
        """Whether the server is reached at every address of this machine."""
        sockets = self.doors.at("front")
        return bool(sockets) and sockets[0].getsockname()[0] in _ANYWHERE

    @property
    def url(self) -> str:
        """Where this daemon's own server is reached from this machine."""
        sockets = self.doors.at("front")
        if not sockets:
            return self.loaded.options.server_url or ""
        host, port = sockets[0].getsockname()[:2]
        if host in _ANYWHERE:
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
