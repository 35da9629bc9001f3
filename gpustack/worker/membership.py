"""This worker's place in the cluster: joins with the token, and again whenever the server does not know it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from gpustack.domain.report import JoinRequest
from gpustack.domain.worker import SystemReserved
from gpustack.errors import AlreadyExists, Forbidden, GpustackError, NotFound, Unauthorized
from gpustack.remote.server_client import ServerClient
from gpustack.worker.name import WorkerName, remember_name

log = logging.getLogger(__name__)

_FIRST_TRY_AGAIN = 0.1
_LAST_TRY_AGAIN = 10.0


@attrs.frozen(kw_only=True)
class Member:
    """What joining gave: the id, the key the server shows on our port, and how often it wants to hear us."""

    worker_id: int
    name: str
    forward_key: str = attrs.field(repr=False)
    heartbeat_interval: float


@attrs.frozen(kw_only=True)
class Identity:
    """What does not change while the daemon runs."""

    name: WorkerName
    worker_uuid: str
    hostname: str
    address: Callable[[], str]
    port: int
    metrics_port: int | None
    labels: dict[str, str]
    system_reserved: SystemReserved
    version: str
    data_dir: Path


@attrs.define(eq=False, repr=False)
class Membership:
    """Owns the credential. Others ask for ``joined()`` and use ``client``; a void credential is renewed by joining."""

    client: ServerClient
    _identity: Identity
    _token: str
    _rng: random.Random
    _member: Member | None = None
    _news: trio.Event = attrs.field(factory=trio.Event)
    _wanted: trio.Event = attrs.field(factory=trio.Event)
    name: str = "membership"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            await self._join()
            await self._wanted.wait()

    async def joined(self) -> Member:
        """The membership, as soon as there is one."""
        while self._member is None:
            await self._news.wait()
        return self._member

    @property
    def member(self) -> Member | None:
        """The membership now, if any."""
        return self._member

    def void(self) -> None:
        """The server does not know us (any more): join again."""
        self._member = None
        self._wanted.set()

    async def _join(self) -> None:
        delay = _FIRST_TRY_AGAIN
        self._wanted = trio.Event()
        while True:
            try:
                joined = await self.client.join(self._document(), token=self._token)
            except (Unauthorized, Forbidden):
                log.error(
                    "The server refused this worker's token; set --token to the one in its data directory"
                )
                delay = _LAST_TRY_AGAIN
            except (AlreadyExists, NotFound) as error:
                log.error("Could not join: reason=%s", error)
                delay = _LAST_TRY_AGAIN
            except GpustackError as error:
                log.info("The server cannot be reached yet: reason=%s", error)
            else:
                break
            await trio.sleep(delay * (0.5 + self._rng.random()))
            delay = min(delay * 2, _LAST_TRY_AGAIN)
        await trio.to_thread.run_sync(remember_name, self._identity.data_dir, joined.name)
        self._member = Member(
            worker_id=joined.id,
            name=joined.name,
            forward_key=joined.forward_key,
            heartbeat_interval=joined.heartbeat_interval,
        )
        log.info("Joined: worker=%s id=%d", joined.name, joined.id)
        self._news.set()
        self._news = trio.Event()

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
        )

    def __repr__(self) -> str:
        return f"<Membership: {'joining' if self._member is None else f'worker {self._member.worker_id}'}>"
