"""The listening sockets of the daemon: opened before the tree or inherited, and passed on at a hand-over."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from functools import partial

import attrs
import trio

from gpustack.cli.local import is_local
from gpustack.config.loader import Configuration
from gpustack.http1.listen import ListenError, listens_at, open_listeners
from gpustack.http1.server import HttpServer

LOOPBACK = "127.0.0.1"
_HEARD_WITHIN = 0.5
"""Seconds for which new connections are given time to send their first request, at a hand-over."""


@attrs.frozen(kw_only=True)
class ListenerSpec:
    """One port: where it is opened, and the options that say so."""

    name: str
    host: str
    port: int
    option: str
    host_option: str


def listener_specs(loaded: Configuration) -> tuple[ListenerSpec, ...]:
    """The ports that a daemon of this role opens."""
    options = loaded.options
    inside = LOOPBACK if worker_is_private(loaded) else "0.0.0.0"
    server = partial(ListenerSpec, host=options.host, host_option="--host")
    worker = partial(ListenerSpec, host=options.worker_ip or inside, host_option="--worker-ip")
    found: list[ListenerSpec] = []
    if loaded.role != "worker":
        found.append(server(name="front", port=options.port, option="--port"))
        if not options.disable_metrics:
            found.append(server(name="server-metrics", port=options.metrics_port, option="--metrics-port"))
    if loaded.role != "server":
        found.append(worker(name="worker", port=options.worker_port, option="--worker-port"))
        if not options.disable_worker_metrics:
            port = options.worker_metrics_port
            found.append(worker(name="worker-metrics", port=port, option="--worker-metrics-port"))
    return tuple(found)


def worker_is_private(loaded: Configuration) -> bool:
    """Whether the worker listens on the loopback alone, if no address is given for it: beside its own server it does,
    unless other servers may share the database, for they must reach it too."""
    options = loaded.options
    return loaded.role == "server+worker" and (
        options.database_url.startswith("sqlite") or is_local(options.host)
    )


@attrs.define(eq=False)
class Listeners:
    """The listening sockets by name, and the HTTP servers that accept on them."""

    _sockets: Mapping[str, list[socket.socket]]
    _servers: list[HttpServer] = attrs.field(factory=list)

    @classmethod
    def open(cls, loaded: Configuration, inherited: Mapping[str, Sequence[int]]) -> Listeners:
        """Open what is not inherited. Raises ``ListenError``; then none is left open."""
        opened: dict[str, list[socket.socket]] = {}
        left = {name: _sockets(descriptors) for name, descriptors in inherited.items()}
        try:
            for spec in listener_specs(loaded):
                kept = left.pop(spec.name, [])
                if kept and _is_same(spec, kept):
                    opened[spec.name] = kept
                    continue
                before = {one.getsockname()[1]: str(one.getsockname()[0]) for one in kept}
                _close(kept)  # the configuration means another place now
                opened[spec.name] = _open(spec, before)
        except BaseException:
            for sockets in opened.values():
                _close(sockets)
            raise
        finally:
            for sockets in left.values():
                _close(sockets)
        return cls(opened)

    def at(self, name: str) -> list[socket.socket]:
        """The sockets of this name; none where this daemon does not listen there."""
        return self._sockets.get(name, [])

    def port(self, name: str) -> int | None:
        """The port that is listened on, also where ``0`` was asked for."""
        sockets = self.at(name)
        return int(sockets[0].getsockname()[1]) if sockets else None

    def descriptors(self) -> dict[str, list[int]]:
        """The file descriptors of all sockets, for the next daemon to inherit."""
        return {name: [one.fileno() for one in sockets] for name, sockets in self._sockets.items()}

    def serve(self, server: HttpServer) -> HttpServer:
        """Note a server that accepts on one of the sockets; returns it, for the caller to start."""
        self._servers.append(server)
        return server

    async def leave(self) -> None:
        """Stop accepting: new connections wait in the queues of the sockets for the next daemon.

        Connections that were accepted just now are given a moment for their first request: to close them would
        refuse it.
        """
        for server in self._servers:
            server.stop_accepting(keep_listening=True)
        with trio.move_on_after(_HEARD_WITHIN):
            for server in self._servers:
                await server.newcomers_heard()
        for server in self._servers:
            server.close_idle()

    def close(self) -> None:
        """Close our descriptors; the next daemon has its own of the same sockets."""
        for sockets in self._sockets.values():
            _close(sockets)


def _is_same(spec: ListenerSpec, kept: Sequence[socket.socket]) -> bool:
    """Whether inherited sockets are where the configuration wants them."""
    same_port = all(spec.port in (0, one.getsockname()[1]) for one in kept)
    return same_port and listens_at(kept, spec.host, host_option=spec.host_option)


def _open(spec: ListenerSpec, before: Mapping[int, str]) -> list[socket.socket]:
    """New sockets; ``before`` are the addresses, by port, at which the daemon that hands over still listens."""
    try:
        return open_listeners(spec.host, spec.port, option=spec.option, host_option=spec.host_option)
    except ListenError as error:
        if spec.port not in before:
            raise
        raise ListenError(
            f"{spec.host_option} was changed from {before[spec.port]} to {spec.host}: the port {spec.port} is in use "
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
