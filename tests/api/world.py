"""The API over a real store, with people and machines in it, as tests talk to it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import httpx
import trio
from quart_trio import QuartTrio

from gpustack.api.app import create_app
from gpustack.api.context import ApiContext
from gpustack.domain.access import ApiKey, User
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.launch import LaunchRecord
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.load import load_of
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, Memory, Worker, WorkerState, WorkerStatus
from gpustack.errors import NotFound, Unavailable
from gpustack.http1.handoff import OWNER
from gpustack.identity.keys import make_api_key, worker_key
from gpustack.identity.passwords import hash_password
from gpustack.store import Store

AWAY = "10.0.0.9"
"""Where callers come from unless a test says otherwise: not this machine."""
DAEMON = 1000
"""The user that the server runs as, whose programs on its machine need no key."""
TOKEN = "the-token-of-this-cluster"
PASSWORD = "Right_2_come"
PARTS = ("access", "sign_on", "workers", "models", "usage", "server", "transport")
"""Of the context."""


@attrs.define
class Clock:
    """A wall clock and a monotonic one that a test turns together."""

    now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    since_boot: float = 1000.0

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.since_boot

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.since_boot += seconds


@attrs.define
class FakeLogSource:
    """Stands for the connections to workers: has the logs that a test gave it."""

    logs_of: dict[int, list[bytes]] = attrs.field(factory=dict)
    asked: list[dict[str, Any]] = attrs.field(factory=list)
    let_go: int = 0
    goes_on: bool = False
    """The logs have no end."""
    launched: dict[tuple[int, int], LaunchRecord] = attrs.field(factory=dict)
    """By instance and member."""

    async def launch(self, worker: Worker, instance_id: int, member: int = 0) -> LaunchRecord:
        if (instance_id, member) not in self.launched:
            raise NotFound("Its engine has not been started here, or by a former version")
        return self.launched[instance_id, member]

    @asynccontextmanager
    async def logs(
        self,
        worker: Worker,
        instance_id: int,
        *,
        tail: int,
        follow: bool,
        previous: bool,
        member: int = 0,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        asked = {"worker": worker.name, "tail": tail, "follow": follow, "previous": previous}
        self.asked.append({**asked, "member": member} if member else asked)
        if instance_id not in self.logs_of:
            raise Unavailable(f"Worker {worker.name} does not answer")

        async def pieces() -> AsyncIterator[bytes]:
            for piece in self.logs_of[instance_id]:
                yield piece
            if self.goes_on:
                await trio.sleep_forever()

        source = pieces()
        try:
            yield source
        finally:
            self.let_go += 1
            await source.aclose()  # type: ignore[attr-defined]  # it is a generator


@attrs.define
class World:
    store: Store
    context: ApiContext
    app: QuartTrio
    clock: Clock
    link: FakeLogSource
    admin: User
    keys: dict[int, str] = attrs.field(factory=dict)

    def rebuilt(self, **changes: Any) -> World:
        """The same world with other fields of the context, or of one of its parts."""
        context = self.context
        for name, value in changes.items():
            if hasattr(context, name):
                context = attrs.evolve(context, **{name: value})
                continue
            (part,) = (one for one in PARTS if hasattr(getattr(context, one), name))
            changed = attrs.evolve(getattr(context, part), **{name: value})
            context = attrs.evolve(context, **{part: changed})
        return attrs.evolve(self, context=context, app=create_app(context))

    def client(
        self,
        who: User | str | None = None,
        *,
        peer: str = AWAY,
        host: str = "gpustack.example",
        owner: int | None = DAEMON,
        headers: Mapping[str, str] = {},
    ) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """A client that sends the API key of a user, or the bearer given, or nothing.

        ``owner`` is whose program the kernel says it is, where it runs on the server's machine.
        """
        bearer = self.keys[who.id] if isinstance(who, User) else who
        authorization = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(
                app=_sent_by(self.app, owner), client=(peer, 40000), raise_app_exceptions=False
            ),
            base_url=f"http://{host}",
            headers={**authorization, **headers},
        )

    async def ask(self, method: str, path: str, who: User | str | None = None, **more: Any) -> httpx.Response:
        async with self.client(who) as client:
            return await client.request(method, path, **more)

    async def get(self, path: str, who: User | str | None = None, **more: Any) -> Any:
        """The JSON of a good answer, as the administrator unless somebody else is named."""
        answer = await self.ask("GET", path, who or self.admin, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def user(self, name: str, *, password: str | None = None, **more: Any) -> User:
        """A new account with an API key."""
        hashed = "" if password is None else await hash_password(password)
        user = await self.store.write(
            lambda tx: tx.insert(User(username=name, hashed_password=hashed, **more))
        )
        return await self.with_key(user)

    async def with_key(self, user: User) -> User:
        access, secret, text = make_api_key(random.Random(user.id))
        key = ApiKey(
            name="first",
            user_id=user.id,
            access_key=access,
            secret_hash=self.context.keys.api_hash(secret),
        )
        await self.store.write(lambda tx: tx.insert(key))
        self.keys[user.id] = text
        return user

    async def worker(self, name: str, **more: Any) -> tuple[Worker, str]:
        """A ready worker with one card that has reported, and its credential."""
        secret = f"secret0of0{name.replace('-', '')}"
        fields: dict[str, Any] = {
            "worker_uuid": f"uuid-{name}",
            "ip": "10.0.1.1",
            "status": STATUS,
            "condition": Condition(state=WorkerState.READY),
            "credential_hash": self.context.keys.worker_hash(secret),
            "credential_since": self.clock.now,
            **more,
        }
        worker = await self.store.write(lambda tx: tx.insert(Worker(name=name, **fields)))
        self.context.workers.live.reported(worker.id, load_of(worker.status))
        return worker, worker_key(worker.id, secret)

    async def model(self, name: str, **more: Any) -> Model:
        return await self.store.write(lambda tx: tx.insert(Model(name=name, source=SOURCE, **more)))

    async def instance(self, model: Model, name: str, worker: Worker | None = None) -> ModelInstance:
        """A replica, waiting or placed on the worker's first card."""

        def work(tx: Any) -> ModelInstance:
            made: ModelInstance = tx.insert(
                ModelInstance(name=name, model_id=model.id, model_name=model.name, source=model.source)
            )
            if worker is None:
                return made
            placement = Placement(
                worker_id=worker.id, gpu_indexes=(0,), claim=Claim(ram=GIB, vram={0: 5 * GIB})
            )
            moved: ModelInstance = tx.move(
                made, InstanceState.SCHEDULED, by=Party.SCHEDULER, placement=placement
            )
            return moved

        return await self.store.write(work)


def _sent_by(app: QuartTrio, owner: int | None) -> Any:
    """The app behind a transport that knows whose program asks."""

    async def known() -> int | None:
        return owner

    async def asked(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, "state": {OWNER: known}}, receive, send)  # type: ignore[arg-type]

    return asked


SOURCE = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/tiny.gguf")
CARD = Device(index=0, name="NVIDIA H200", vendor="NVIDIA", type="cuda", memory=DeviceMemory(total=141 * GIB))
STATUS = WorkerStatus(memory=Memory(total=64 * GIB, used=GIB), gpu_devices=(CARD,))
