"""A gateway on a real socket over a real store, with engines behind it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from random import Random
from typing import Any

import attrs
import trio

from gpustack.domain.access import ApiKey, User
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.route import Endpoint
from gpustack.domain.usage import ModelUsage
from gpustack.domain.worker import Condition, Worker, WorkerState
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.gate import Gate
from gpustack.gateway.limiter import Limiter
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream_exchange import UpstreamExchange
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.keys import make_api_key
from gpustack.metrics.traffic import Traffic
from gpustack.server.token_budget import TokenBudgets
from gpustack.server.usage_ledger import UsageLedger
from gpustack.store import Store
from gpustack.store.usage_history import rows
from gpustack.worker.engine_key import EngineKeys
from tests.http1.wire import Answer, Client, Served

LOCAL = "uuid-of-this-machine"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
KEYS = DerivedKeys.of("a secret for tests")
CHAT = "/v1/chat/completions"
SOURCE = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/tiny.gguf")
SAY = [{"role": "user", "content": "one two three"}]


class FakeUpstreamExchange(UpstreamExchange):
    """A request to an engine of which something came last at a given instant."""

    __slots__ = ("aborted", "at")

    def __init__(self, at: float = 0.0) -> None:
        self.at = at
        self.aborted = False

    @property
    def heard(self) -> float:
        return self.at

    def abort(self) -> None:
        self.aborted = True


def busy(endpoints: Endpoints, endpoint: Endpoint) -> AbstractContextManager[None]:
    """One more request is in flight on the endpoint."""
    return endpoints.under_way(endpoint, FakeUpstreamExchange())


class Clock:
    """The clock on the wall, for tests to set."""

    now = NOW

    def __call__(self) -> datetime:
        return self.now


@attrs.define(eq=False)
class World:
    store: Store
    endpoints: Endpoints
    gate: Gate
    pool: ConnectionPool
    ledger: UsageLedger
    served: Served
    key: str
    nursery: trio.Nursery
    budgets: TokenBudgets
    limiter: Limiter
    clock: Clock
    traffic: Traffic
    rng: Random
    keys: EngineKeys

    # --- what is deployed

    async def worker(
        self, uuid: str = LOCAL, *, state: WorkerState = WorkerState.READY, **more: Any
    ) -> Worker:
        found = self.store.snapshot.find(Worker, worker_uuid=uuid)
        if found is not None:
            return found
        made = Worker(name=uuid, worker_uuid=uuid, condition=Condition(state=state), **more)
        return await self.store.write(lambda tx: tx.insert(made))

    async def deploy(self, name: str, *ports: int, worker: Worker | None = None, **more: Any) -> Model:
        """A model with a running replica on each engine port; returns when the gateway knows."""
        on = worker or await self.worker()

        def work(tx: Any) -> Model:
            model: Model = tx.insert(Model(name=name, source=SOURCE, replicas=len(ports), **more))
            for number, port in enumerate(ports):
                made = tx.insert(
                    ModelInstance(name=f"{name}-{number}", model_id=model.id, model_name=name, source=SOURCE)
                )
                at = Placement(worker_id=on.id)
                placed = tx.move(made, InstanceState.SCHEDULED, by=Party.SCHEDULER, placement=at)
                tx.move(placed, InstanceState.RUNNING, by=Party.WORKER, port=port)
            return model

        model = await self.store.write(work)
        await self.routed(name, len(ports))
        return model

    async def routed(self, name: str, count: int) -> None:
        """Wait until the gateway knows that many replicas."""
        with trio.fail_after(10):
            while True:
                route = self.endpoints.route(name)
                if route is not None and len(route.endpoints) == count:
                    return
                await trio.lowlevel.checkpoint()

    async def noticed(self) -> None:
        """Wait until the gateway knows for whom each model is now."""
        with trio.fail_after(10):
            for model in self.store.snapshot.models.values():
                while (route := self.endpoints.route(model.name)) is None or route.access is not model.access:
                    await trio.lowlevel.checkpoint()

    # --- asking

    async def connect(self) -> Client:
        return await self.served.connect()

    def request(
        self, body: bytes, path: str = CHAT, *fields: str, method: str = "POST", key: str | None = None
    ) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            "host: gateway",
            *([] if key == "" else [f"authorization: Bearer {self.key if key is None else key}"]),
            "content-type: application/json",
            f"content-length: {len(body)}",
            *fields,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def send(self, body: bytes, path: str = CHAT, *fields: str, **more: Any) -> Answer:
        """One request over a connection of its own."""
        client = await self.connect()
        try:
            return await client.ask(self.request(body, path, *fields, **more))
        finally:
            await client.close()

    async def ask(self, model: str, path: str = CHAT, **more: Any) -> Answer:
        return await self.send(chat(model, **more), path)

    # --- what was counted

    async def usage(self) -> Sequence[ModelUsage]:
        """All rows, after everything has been brought to the store."""
        await self.ledger.flush()
        found: Sequence[ModelUsage] = await self.store.query(
            functools.partial(rows, start=date(2026, 1, 1), end=date(2026, 12, 31))
        )
        return found

    async def sums(self) -> tuple[int, int, int, int]:
        """Requests, failed ones, prompt and completion tokens."""
        found = await self.usage()
        return (
            sum(row.request_count for row in found),
            sum(row.failed_count for row in found),
            sum(row.prompt_token_count for row in found),
            sum(row.completion_token_count for row in found),
        )


def chat(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": SAY, **more}).encode()


def events(body: bytes) -> list[Any]:
    """The payloads of a stream."""
    texts = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [text.decode() if text == b"[DONE]" else json.loads(text) for text in texts]


def error_of(answer: Answer) -> Mapping[str, Any]:
    """The error in OpenAI's form, and nothing else beside it."""
    document = json.loads(answer.body)
    assert document.keys() == {"error"}, document
    error: dict[str, Any] = document["error"]
    assert error.keys() == {"message", "code", "type"}
    assert error["code"] == answer.status
    return error


async def with_key(store: Store, rng: Random, name: str = "ada") -> str:
    """A user and her API key."""
    user = await store.write(lambda tx: tx.insert(User(username=name)))
    return await key_of(store, rng, user)


async def key_of(store: Store, rng: Random, user: User, **more: Any) -> str:
    """Another API key of a user."""
    access, secret, text = make_api_key(rng)
    key = ApiKey(name=access, user_id=user.id, access_key=access, secret_hash=KEYS.api_hash(secret), **more)
    await store.write(lambda tx: tx.insert(key))
    return text
