"""This worker's place in the cluster: joins with the token, and again whenever the server does not know it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import attrs
import trio

from gpustack.domain.report import JoinRequest
from gpustack.errors import Forbidden, GpustackError, Unauthorized
from gpustack.nursery.limiter import threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.wake import AsyncValue
from gpustack.remote.http import RemoteError
from gpustack.remote.server_client import JoinedDocument, ServerClient
from gpustack.worker.identity import (
    WorkerIdentity,
    load_credential,
    save_credential,
    save_name,
    save_servers,
)

log = logging.getLogger(__name__)

_FIRST_TRY_AGAIN = 0.1
_LAST_TRY_AGAIN = 10.0
_GOODBYE_WITHIN = 2.0
_threads = threads("worker identity", 1)


@attrs.frozen(kw_only=True, eq=False)
class Member:
    """What joining gave. The server shows ``forward_key`` on our port; it wants a heartbeat each interval (seconds)."""

    worker_id: int
    name: str
    forward_key: str = attrs.field(repr=False)
    heartbeat_interval: float


@attrs.define(eq=False, repr=False)
class Membership:
    """A service that owns the credential. Others wait for ``joined()`` and use ``client``; whoever of them hears that
    the server does not know this worker calls ``void``, and it joins again."""

    client: ServerClient
    _identity: WorkerIdentity
    _token: Callable[[], str]
    """May block: it is called in a thread."""
    _rng: random.Random
    _latest: AsyncValue[Member | None] = attrs.field(factory=lambda: AsyncValue(None))
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("membership"))
    _stopping: bool = False
    name: str = "membership"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            member = await self._join()
            self._latest.set(member)
            if self._stopping:  # the goodbye came while this request to join was under way
                await self.say_goodbye()
            await self.left(member)

    async def joined(self) -> Member:
        """Wait for the membership; return at once while there is one."""
        revision = self._latest.revision
        while (member := self._latest.value) is None:
            revision, _ = await self._latest.changed(revision)
        return member

    async def left(self, member: Member) -> None:
        """Return once ``member`` is not our membership any more."""
        revision = self._latest.revision
        while self._latest.value is member:
            revision, _ = await self._latest.changed(revision)

    @property
    def member(self) -> Member | None:
        """The membership now, if any."""
        return self._latest.value

    @property
    def run_id(self) -> str:
        """Tells this daemon apart from another one with the same data directory, or a copy of it."""
        return self._identity.run

    async def request_drain(self) -> bool:
        """Ask the server to start elsewhere what runs here; false when it refuses, or does not answer within 2 s."""
        member = self.member
        if member is None:
            return False
        with trio.move_on_after(_GOODBYE_WITHIN):
            try:
                await self.client.drain(member.worker_id)
                return True
            except GpustackError as error:
                log.warning("The server does not empty this worker: reason=%s", error)
                return False
        log.warning("The server does not empty this worker: it did not answer in time")
        return False

    async def say_goodbye(self) -> None:
        """Tell the server that this worker stops, for 2 s at most; it would notice later by itself.

        From then on this worker does not join any more.
        """
        self._stopping = True
        member = self.member
        if member is None:
            return
        with trio.move_on_after(_GOODBYE_WITHIN):
            try:
                await self.client.leave(member.worker_id)
            except GpustackError as error:
                log.info("The server was not told that this worker stops: reason=%s", error)

    async def learn(self, servers: Sequence[str]) -> None:
        """Keep the addresses of the cluster's servers: any of them is asked when ours does not answer."""
        known = self.client.learn(servers)
        if known is None:
            return
        log.info("The other servers of the cluster: %s", ", ".join(known) or "none")
        try:
            await _threads.run(save_servers, self._identity.data_dir, known)
        except OSError as error:
            log.warning("The servers of the cluster cannot be kept: reason=%s", error)

    async def renew(self, credential: str | None) -> None:
        """Use the new credential that the server told, if it told one; only once it is kept in the data directory."""
        if credential is None:
            return
        try:
            await _threads.run(save_credential, self._identity.data_dir, credential)
        except OSError as error:
            log.warning("A new credential cannot be kept, so the former is used on: reason=%s", error)
            return
        self.client.use(credential)

    def void(self, member: Member) -> None:
        """The server does not know ``member`` any more: join again, unless that has been done since."""
        if self._latest.value is member:
            log.warning(
                "The server does not know this worker any more, joining again: id=%d", member.worker_id
            )
            self._latest.set(None)

    async def _join(self) -> Member:
        """Ask until the server lets this worker in, with growing pauses of 10 s at most."""
        delay, logged = _FIRST_TRY_AGAIN, set[str]()  # one cause may be told in several ways by turns
        while True:
            if self._stopping:
                await trio.sleep_forever()
            with self._faults.row("joining") as attempt:
                try:
                    joined = await self._request_join(await _threads.run(self._document))
                    break
                except Unauthorized:
                    log.error("The server refused this worker's token; set --token to the one of the server")
                    delay = _LAST_TRY_AGAIN
                except Forbidden as error:
                    log.error(
                        "The server does not let this worker in; set --token to the one of the server, unless the "
                        "reason is another: %s",
                        error,
                    )
                    delay = _LAST_TRY_AGAIN
                except RemoteError as error:
                    level = logging.DEBUG if str(error) in logged else logging.INFO
                    log.log(
                        level,
                        "The server cannot be reached yet, look at --server-url if this stays: reason=%s",
                        error,
                    )
                    logged.add(str(error))
                except GpustackError as error:
                    log.log(
                        logging.DEBUG if str(error) in logged else logging.ERROR,
                        "The server did not take this worker in, look at --server-url if it is no GPUStack server; the "
                        "data directory of this worker is %s: reason=%s",
                        self._identity.data_dir,
                        error,
                    )
                    logged.add(str(error))
            if attempt.fault is not None:
                delay = _LAST_TRY_AGAIN
            await trio.sleep(delay * (0.5 + self._rng.random()))
            delay = min(delay * 2, _LAST_TRY_AGAIN)
        return await self._member_of(joined)

    async def _member_of(self, joined: JoinedDocument) -> Member:
        """Keep name and credential for the next start; a failure in that is only logged."""
        with self._faults.row("the name"):
            try:
                await _threads.run(save_name, self._identity.data_dir, joined.name)
            except OSError as error:
                log.error(
                    "The name this worker was given cannot be kept: name=%s reason=%s", joined.name, error
                )
        with self._faults.row("the credential"):
            try:
                await _threads.run(save_credential, self._identity.data_dir, joined.credential)
            except OSError as error:
                log.error("This worker's credential cannot be kept for its next start: reason=%s", error)
        log.info("Joined: worker=%s id=%d", joined.name, joined.id)
        return Member(
            worker_id=joined.id,
            name=joined.name,
            forward_key=joined.forward_key,
            heartbeat_interval=joined.heartbeat_interval,
        )

    async def _request_join(self, document: JoinRequest) -> JoinedDocument:
        """Join with the kept credential, else with the token: the token alone does not let anybody take our place."""
        own = await _threads.run(load_credential, self._identity.data_dir)
        if own:
            try:
                return await self.client.join(document, token=own)
            except (Unauthorized, Forbidden):
                log.info("This worker's own credential is not good any more; joining with the token")
        return await self.client.join(document, token=await _threads.run(self._token))

    def _document(self) -> JoinRequest:
        own = self._identity
        return JoinRequest(
            name=own.name.name,
            explicit_name=own.name.explicit,
            worker_uuid=own.worker_uuid,
            hostname=own.hostname,
            ip=own.address(),
            port=own.port,
            metrics_port=own.metrics_port,
            labels=own.labels,
            system_reserved=own.system_reserved,
            version=own.version,
            run=own.run,
            keeps_credential=True,
        )

    def __repr__(self) -> str:
        member = self._latest.value
        return f"<Membership: {'joining' if member is None else f'worker {member.worker_id}'}>"
