"""This server among those that share its database: it announces itself, and knows which others live."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs
import trio

from gpustack.errors import GpustackError, Unavailable
from gpustack.nursery.limiter import threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.join import COPIED_FILES
from gpustack.store import server_registry
from gpustack.store.server_registry import RegisteredServer, RegistryView, SecretProposal, ServerIdentity
from gpustack.store.store import Store

log = logging.getLogger(__name__)

SPEAK_EVERY = 2.0
_DEPART_WITHIN = 1.0
_threads = threads("server address", 1)


class SecretsReplaced(GpustackError):
    """The secrets of the cluster were replaced in the database: this server must start again."""


async def settle(
    store: Store, me: ServerIdentity, proposals: Mapping[str, SecretProposal]
) -> Mapping[str, str]:
    """Agree with the other servers on the secrets of the cluster; returns them. As ``server_registry.register``."""
    return await store.beside(partial(server_registry.register, me=me, proposals=proposals))


@attrs.define(eq=False, repr=False)
class ServerPresence:
    """Announces this server every ``SPEAK_EVERY`` seconds, and exchanges with the others which workers were heard."""

    _store: Store
    _heartbeats: HeartbeatTimes
    _me: ServerIdentity
    _secrets: Mapping[str, str] = attrs.field(repr=False)
    """Those that the servers agreed on."""
    _url: Callable[[], str]
    """The URL at which workers reach this server now. May block: it is called in a thread."""
    _view: RegistryView = RegistryView()
    _alone: bool = True
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("presence", passing=(Unavailable,)))
    _copies: set[str] = attrs.field(factory=set)
    """Addresses of servers with this server's identity (a copied data directory), each logged once."""
    name: str = "presence"

    @property
    def servers(self) -> Sequence[RegisteredServer]:
        """All servers of the last while, as of the last look; this one is among them."""
        return self._view.servers

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of the servers that live."""
        return tuple(server.url for server in self._view.servers if server.lives)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self._look()
            task_status.started()
            while True:
                await trio.sleep(SPEAK_EVERY)
                await self._look()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _DEPART_WITHIN):
                await self._depart()

    async def _look(self) -> None:
        """Announce and look once. Raises ``SecretsReplaced``; a database that is away is survived."""
        # Deleted workers are forgotten; the silence of new ones begins now.
        self._heartbeats.of(self._store.snapshot.workers)
        heard = {} if self._alone else self._heartbeats.take_untold()
        me = attrs.evolve(self._me, url=await _threads.run(self._url, abandon=True))

        async def attend(some: Mapping[int, float]) -> RegistryView:
            ours = partial(server_registry.heartbeat, me=me, heard=some, settled=self._secrets)
            return await self._store.beside(ours)

        try:
            told = [view for _, view in await self._faults.together(heard, attend)]
            # With no worker heard, or none that could be told, the server announces itself alone.
            view = told[-1] if told else await attend({})
        except Unavailable as error:
            self._heartbeats.put_back(heard)
            log.debug("The other servers cannot be heard: reason=%s", error)
            return
        if not view.agreed:
            raise SecretsReplaced(
                "The token or the jwt_secret_key of the cluster was replaced in the database: start this server again"
            )
        for worker_id, ago in view.heard.items():
            with self._faults.row(("heard", worker_id)):
                self._heartbeats.heard_elsewhere(worker_id, ago)
        with self._faults.row("the log"):
            self._tell(view)
        self._view = view
        self._alone = not any(server.lives and server.uuid != self._me.uuid for server in view.servers)

    def _tell(self, view: RegistryView) -> None:
        """Log servers that came, went or took the lead."""
        if view.other_copy is not None and view.other_copy not in self._copies:
            self._copies.add(view.other_copy)
            log.error(
                "The server at %s says to be this one: the data directory of one of them is a copy. On the machine "
                "that is the copy stop gpustack, delete server_uuid in its data directory (and what makes it a worker: "
                "%s) and start it again",
                view.other_copy,
                COPIED_FILES,
            )
        before = {server.uuid: server for server in self._view.servers if server.lives}
        now = {server.uuid: server for server in view.servers if server.lives}
        for server in now.values():
            if server.uuid not in before and server.uuid != self._me.uuid:
                log.info("Another server is there: url=%s version=%s", server.url, server.version)
            if server.leads and server.uuid != self._me.uuid and view.term != self._view.term:
                log.info("Another server leads: url=%s term=%d", server.url, view.term or 0)
        for gone in before.keys() - now.keys():
            log.warning("Another server is gone: url=%s", before[gone].url)

    async def _depart(self) -> None:
        try:
            await self._store.beside(partial(server_registry.deregister, me=self._me))
        except Unavailable as error:
            log.debug("The other servers were not told that this one stops: reason=%s", error)

    def __repr__(self) -> str:
        return f"<ServerPresence: {len(self.urls)} servers>"
