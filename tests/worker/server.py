"""A server of the worker protocol made small: keeps what it is told, and takes only moves that the lifecycle allows."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import orjson
import trio

from gpustack.domain.artifact import ModelFile, ModelSource
from gpustack.domain.assignment import AssignmentEvent, AssignmentLine, AssignmentState, lines_between
from gpustack.domain.document import decode, encode
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party, allowed
from gpustack.domain.model import Model
from gpustack.domain.report import (
    FileHolder,
    FileReport,
    InstanceReport,
    JoinRequest,
    StatusReport,
    members_after,
)
from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.server import HttpServer
from gpustack.nursery.wake import AsyncValue

TOKEN = "cluster-token"
FORWARD_KEY = "0123456789abcdef"
LIMIT = 1 << 20
PATIENCE = 30.0
"""Seconds a test waits for what must come: a bound, never a measure."""


@attrs.define(eq=False)
class FakeServer:
    """What tests look at is public. ``change`` is how a user, a scheduler or another daemon would alter records."""

    port: int = 0
    heartbeat_interval: float = 5.0
    worker_id: int = 1
    generation: int = 0
    """Grows with each joining: a former credential is void."""
    joins: list[JoinRequest] = attrs.field(factory=list)
    joined_by: list[str] = attrs.field(factory=list)
    wants_credential: bool = False
    """It knows this worker: the token alone does not let it in."""
    hands_out: bool = False
    """A heartbeat is answered with another credential; the former is void when that one is shown."""
    beats: int = 0
    statuses: list[StatusReport] = attrs.field(factory=list)
    said_as: set[int] = attrs.field(factory=set)
    """Generations that put a status."""
    reports: list[tuple[int, InstanceReport]] = attrs.field(factory=list)
    refused: list[tuple[int, InstanceReport]] = attrs.field(factory=list)
    file_reports: list[tuple[int, FileReport]] = attrs.field(factory=list)
    holders: list[FileHolder] = attrs.field(factory=list)
    """Other workers that have whatever files are asked for."""
    asked_for_holders: int = 0
    answers: dict[str, int] = attrs.field(factory=dict)
    """Path ending → status it answers instead; 0 is never."""
    news: AsyncValue[AssignmentState] = attrs.field(factory=lambda: AsyncValue(AssignmentState()))
    _scope: trio.CancelScope | None = None
    _gone: trio.Event | None = None

    # --- running

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, nursery: trio.Nursery) -> None:
        """Listen; on the same port as before after ``stop``."""
        listeners = open_listeners("127.0.0.1", self.port)
        self.port = listeners[0].getsockname()[1]
        server = HttpServer("fake", listeners, handler=self.answer)
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        scope, gone = self._scope, self._gone

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                async with trio.open_nursery() as inner:
                    await inner.start(server.run)
                    task_status.started()
            gone.set()

        await nursery.start(run)

    async def stop(self) -> None:
        """Be away: connections are cut, new ones refused."""
        assert self._scope is not None and self._gone is not None
        self._scope.cancel()
        await self._gone.wait()

    # --- records

    @property
    def assigned(self) -> AssignmentState:
        return self.news.value

    def instance(self, key: int = 1) -> ModelInstance:
        return self.assigned.instances[key]

    def file(self, key: int = 1) -> ModelFile:
        return self.assigned.files[key]

    def put(self, record: ModelInstance | Model | ModelFile) -> None:
        """Take in or replace a record; its version grows."""
        kind = {ModelInstance: "instances", Model: "models", ModelFile: "files"}[type(record)]
        table = dict(getattr(self.assigned, kind))
        before = table.get(record.id)
        table[record.id] = attrs.evolve(record, version=1 if before is None else before.version + 1)
        self.news.set(attrs.evolve(self.assigned, **{kind: table}))

    def drop(self, kind: str, key: int) -> None:
        table = dict(getattr(self.assigned, kind))
        table.pop(key, None)
        self.news.set(attrs.evolve(self.assigned, **{kind: table}))

    def change(self, key: int = 1, **fields: Any) -> None:
        """Alter an instance."""
        self.put(attrs.evolve(self.instance(key), **fields))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of what this server knows."""
        with trio.fail_after(PATIENCE):
            revision = self.news.revision
            while not holds():
                revision, _ = await self.news.changed(revision)

    async def until_state(self, state: InstanceState, key: int = 1) -> ModelInstance:
        await self.until(
            lambda: key in self.assigned.instances and self.assigned.instances[key].state is state
        )
        return self.instance(key)

    def states(self, key: int = 1) -> list[InstanceState]:
        """The states told of an instance in order, each row of equal ones once."""
        told = [report.state for said, report in self.reports if said == key and report.state is not None]
        return [state for at, state in enumerate(told) if at == 0 or told[at - 1] is not state]

    # --- answering

    async def answer(self, exchange: Exchange) -> None:
        path = exchange.head.path
        self._tell_waiters()
        for ending, status in self.answers.items():
            if path.endswith(ending):
                await self._misbehave(exchange, status)
                return
        if path == "/v1/workers":
            await self._join(exchange)
            return
        if exchange.head.get(b"authorization") != self._credential().encode():
            await _fail(exchange, 401, "Unauthorized", "Invalid authentication credentials")
            return
        for pattern, handler in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found:
                await handler(self, exchange, int(found[1]))
                self._tell_waiters()
                return
        await _fail(exchange, 404, "NotFound", path)

    def _tell_waiters(self) -> None:
        self.news.set(self.assigned)

    def _credential(self) -> str:
        return f"Bearer gpustack_worker_{self.worker_id}_{self.generation}"

    async def _misbehave(self, exchange: Exchange, status: int) -> None:
        if status == 0:
            await trio.sleep_forever()
        await _fail(exchange, status, "AsTold", f"told to answer {status}")

    async def _join(self, exchange: Exchange) -> None:
        good = {f"Bearer {TOKEN}"} | ({self._credential()} if self.generation else set())
        given = (exchange.head.get(b"authorization") or b"").decode()
        self.joined_by.append("token" if given == f"Bearer {TOKEN}" else "credential")
        if given not in good or (self.wants_credential and given == f"Bearer {TOKEN}"):
            await _fail(exchange, 401, "Unauthorized", "Invalid authentication credentials")
            return
        asked = decode(await exchange.read_body(LIMIT), JoinRequest)
        self.joins.append(asked)
        self.generation += 1
        answer = {
            "id": self.worker_id,
            "name": asked.name,
            "credential": self._credential().removeprefix("Bearer "),
            "forward_key": FORWARD_KEY,
            "heartbeat_interval": self.heartbeat_interval,
        }
        await exchange.respond(200, (), orjson.dumps(answer))
        self._tell_waiters()

    async def _heartbeat(self, exchange: Exchange, worker_id: int) -> None:
        self.beats += 1
        answer: dict[str, Any] = {"interval": self.heartbeat_interval, "revision": 1}
        if self.hands_out:
            self.hands_out = False
            self.generation += 1
            answer["credential"] = self._credential().removeprefix("Bearer ")
        await exchange.respond(200, (), orjson.dumps(answer))

    async def _status(self, exchange: Exchange, worker_id: int) -> None:
        self.said_as.add(self.generation)
        self.statuses.append(decode(await exchange.read_body(LIMIT), StatusReport))
        await exchange.respond(200, (), b"null")

    async def _assignments(self, exchange: Exchange, worker_id: int) -> None:
        await exchange.start_response(200)
        told, synced = AssignmentState(), False
        while True:
            seen, now = self.news.revision, self.assigned
            lines = lines_between(told, now)
            if not synced:
                lines.append(AssignmentLine(word=AssignmentEvent.SYNCED))
                synced = True
            if lines:
                await exchange.send(b"".join(encode(line) + b"\n" for line in lines))
            told = now
            await self.news.changed(seen)

    async def _report(self, exchange: Exchange, key: int) -> None:
        report = decode(await exchange.read_body(LIMIT), InstanceReport)
        record = self.assigned.instances.get(key)
        if record is None:
            await _fail(exchange, 404, "NotFound", f"Model instance {key} does not exist")
            return
        if (
            report.state is not None
            and not report.member
            and not allowed(record.state, report.state, Party.WORKER)
        ):
            self.refused.append((key, report))
            await _fail(exchange, 409, "Conflict", f"{record.state} may not become {report.state}")
            return
        if report.member and report.attempt != record.attempt and not report.gone:
            self.refused.append((key, report))
            await _fail(exchange, 409, "Conflict", f"attempt {report.attempt} is over")
            return
        self.reports.append((key, report))
        if report.gone:
            ended = tuple(sorted({*record.ended, report.member}))
            members = 1 if record.placement is None else 1 + len(record.placement.subordinates)
            if record.deleted_at is not None and len(ended) < members:
                self.put(attrs.evolve(record, ended=ended))
            elif record.deleted_at is not None:
                self.drop("instances", key)
        elif report.member:
            self.put(attrs.evolve(record, members=members_after(record, report)))
        else:
            self.put(attrs.evolve(record, **_said(report)))
        await exchange.respond(200, (), b"null")

    async def _ensure_file(self, exchange: Exchange, worker_id: int) -> None:
        asked = orjson.loads(await exchange.read_body(LIMIT))
        source = decode(orjson.dumps(asked["source"]), ModelSource)
        known = [f for f in self.assigned.files.values() if f.source == source]
        if not known:
            made = ModelFile(
                id=len(self.assigned.files) + 1,
                worker_id=worker_id,
                source=source,
                source_index=source.index,
                local_dir=asked["local_dir"],
            )
            self.put(made)
            known = [made]
        self.asked_for_holders += asked["holders"]
        holders = [attrs.asdict(one) for one in self.holders] if asked["holders"] else []
        await exchange.respond(200, (), orjson.dumps({"id": known[0].id, "holders": holders}))

    async def _file_report(self, exchange: Exchange, key: int) -> None:
        report = decode(await exchange.read_body(LIMIT), FileReport)
        self.file_reports.append((key, report))
        if report.gone or report.evicted:
            self.drop("files", key)
        elif key in self.assigned.files:
            self.put(attrs.evolve(self.assigned.files[key], **_said(report)))
        await exchange.respond(200, (), b"null")


_ROUTES: tuple[tuple[str, Callable[[FakeServer, Exchange, int], Awaitable[None]]], ...] = (
    (r"/v1/workers/(\d+)/heartbeat", FakeServer._heartbeat),
    (r"/v1/workers/(\d+)/status", FakeServer._status),
    (r"/v1/workers/(\d+)/assignments", FakeServer._assignments),
    (r"/v1/workers/(\d+)/files", FakeServer._ensure_file),
    (r"/v1/model-instances/(\d+)/report", FakeServer._report),
    (r"/v1/model-files/(\d+)/report", FakeServer._file_report),
)


def _said(report: InstanceReport | FileReport) -> dict[str, Any]:
    fields = {field.name: getattr(report, field.name) for field in attrs.fields(type(report))}
    return {
        name: value
        for name, value in fields.items()
        if value is not None and name not in ("gone", "member", "outgrown")
    }


async def _fail(exchange: Exchange, status: int, reason: str, message: str) -> None:
    body = orjson.dumps({"code": status, "reason": reason, "message": message})
    await exchange.respond(status, [(b"content-type", b"application/json")], body)
