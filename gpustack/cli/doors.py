"""The ports of the daemon: opened before the tree, or taken over from the daemon before, and left to the one after."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

import attrs
import trio

from gpustack.cli.address import is_local
from gpustack.config.loader import Configuration
from gpustack.http1.listen import ListenError, listens_at, open_listeners
from gpustack.http1.server import HttpServer

LOOPBACK = "127.0.0.1"
_HEARD_WITHIN = 0.5
"""Seconds in which a new connection's first request comes, if it comes; nobody is let in meanwhile."""


@attrs.frozen(kw_only=True)
class ListenerSpec:
    """One port: where it is opened, and the options that say so."""

    name: str
    host: str
    port: int
    option: str
    host_option: str


def doors_of(loaded: Configuration) -> tuple[ListenerSpec, ...]:
    """The ports that a daemon of this role opens."""
    options = loaded.options
    inside = LOOPBACK if worker_is_private(loaded) else "0.0.0.0"
    server = {"host": options.host, "host_option": "--host"}
    worker = {"host": options.worker_ip or inside, "host_option": "--worker-ip"}
    found: list[ListenerSpec] = []
    if loaded.role != "worker":
        found.append(ListenerSpec(name="front", port=options.port, option="--port", **server))
        if not options.disable_metrics:
            found.append(
                ListenerSpec(
                    name="server-metrics", port=options.metrics_port, option="--metrics-port", **server
                )
            )
    if loaded.role != "server":
        found.append(ListenerSpec(name="worker", port=options.worker_port, option="--worker-port", **worker))
        if not options.disable_worker_metrics:
            port = options.worker_metrics_port
            found.append(
                ListenerSpec(name="worker-metrics", port=port, option="--worker-metrics-port", **worker)
            )
    return tuple(found)


def worker_is_private(loaded: Configuration) -> bool:
    """Whether a worker beside its own server is reached over the loopback alone, unless an address is given for it.

    Where other servers may be on the same database, they must reach it too.
    """
    options = loaded.options
    return loaded.role == "server+worker" and (
        options.database_url.startswith("sqlite") or is_local(options.host)
    )


@attrs.define(eq=False)
class Listeners:
    """Owns the listening sockets by name, and knows which servers stand in them."""

    _sockets: Mapping[str, list[socket.socket]]
    _servers: list[HttpServer] = attrs.field(factory=list)

    @classmethod
    def open(cls, loaded: Configuration, inherited: Mapping[str, Sequence[int]]) -> Listeners:
        """Open what is not inherited. Raises ``ListenError``; then none is left open."""
        opened: dict[str, list[socket.socket]] = {}
        left = {name: _sockets(descriptors) for name, descriptors in inherited.items()}
        try:
            for door in doors_of(loaded):
                kept = left.pop(door.name, [])
                if kept and _is_same(door, kept):
                    opened[door.name] = kept
                    continue
                before = _names(kept)
                _close(kept)  # the configuration means another place now
                opened[door.name] = _open(door, before)
        except BaseException:
            for sockets in opened.values():
                _close(sockets)
            raise
        finally:
            for sockets in left.values():
                _close(sockets)
        return cls(opened)

    def at(self, name: str) -> list[socket.socket]:
        """The sockets of a door; none where this daemon has no such door."""
        return self._sockets.get(name, [])

    def port(self, name: str) -> int | None:
        """The port of a door, as it really is."""
        sockets = self.at(name)
        return int(sockets[0].getsockname()[1]) if sockets else None

    def descriptors(self) -> dict[str, list[int]]:
        """What the next daemon inherits."""
        return {name: [one.fileno() for one in sockets] for name, sockets in self._sockets.items()}

    def serve(self, server: HttpServer) -> HttpServer:
        """Note who stands in a door; the server itself, for the caller to start."""
        self._servers.append(server)
        return server

    async def leave(self) -> None:
        """Take no new connection anywhere: they wait in the queues of the sockets for the next daemon.

        Who has just come in is still heard, for a moment: closing now would be a refusal.
        """
        for server in self._servers:
            server.stop_accepting(keep_listening=True)
        with trio.move_on_after(_HEARD_WITHIN):
            for server in self._servers:
                await server.newcomers_heard()
        for server in self._servers:
            server.close_idle()

    def close(self) -> None:
        """Leave the sockets to the next daemon alone, for whom they stay open."""
        for sockets in self._sockets.values():
            _close(sockets)


def _is_same(door: ListenerSpec, kept: Sequence[socket.socket]) -> bool:
    """Whether inherited sockets are where the configuration wants the door."""
    same_port = all(door.port in (0, one.getsockname()[1]) for one in kept)
    return same_port and listens_at(kept, door.host, host_option=door.host_option)


def _names(sockets: Sequence[socket.socket]) -> dict[int, str]:
    """Addresses by port."""
    return {one.getsockname()[1]: str(one.getsockname()[0]) for one in sockets}


def _open(door: ListenerSpec, before: Mapping[int, str]) -> list[socket.socket]:
    """``before`` is where the daemon that hands over to us still listens."""
    try:
        return open_listeners(door.host, door.port, option=door.option, host_option=door.host_option)
    except ListenError as error:
        if door.port not in before:
            raise
        raise ListenError(
            f"{door.host_option} was changed from {before[door.port]} to {door.host}: the port {door.port} is in use "
            "until the running daemon has ended, so a reload cannot do it; restart it"
        ) from error


def _sockets(descriptors: Sequence[int]) -> list[socket.socket]:
    found = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for one in found:
        one.set_inheritable(False)
        one.setblocking(False)
    return found


def _close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()
