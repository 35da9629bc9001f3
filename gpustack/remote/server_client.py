"""The client of our own API for a worker: typed calls, each with a deadline."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import attrs
import orjson
import trio

from gpustack.domain.artifact import ModelSource
from gpustack.domain.assignment import AssignmentEvent, AssignmentLine
from gpustack.domain.document import decode, encode
from gpustack.domain.report import FileRecord, FileReport, InstanceReport, JoinRequest, StatusReport
from gpustack.domain.worker import WorkerStatus
from gpustack.errors import Invalid, Unavailable
from gpustack.remote.failover_client import FailoverClient
from gpustack.remote.pooled_client import PooledClient
from gpustack.remote.server_error import fault_of, raise_for_status

_LINE_LIMIT = 4 << 20
_FAULT_LIMIT = 64 << 10
_ANSWER_WITHIN = 15.0


@attrs.frozen(kw_only=True)
class JoinedDocument:
    """The answer to joining the cluster."""

    id: int
    name: str
    credential: str = attrs.field(repr=False)
    forward_key: str = attrs.field(repr=False)
    heartbeat_interval: float = 15.0


@attrs.frozen(kw_only=True)
class HeartbeatAnswer:
    """The answer to a heartbeat: seconds to the next one, and the URLs of the servers of the cluster."""

    interval: float = 15.0
    servers: tuple[str, ...] = ()
    credential: str | None = attrs.field(default=None, repr=False)
    """A new credential to use from now on; ``None`` most of the time."""


@attrs.frozen(kw_only=True)
class _FileRequest:
    source: ModelSource
    local_dir: str
    holders: bool


@attrs.frozen(kw_only=True)
class _LineHead:
    """The part of an assignment line that every version has."""

    word: AssignmentEvent
    kind: str
    id: int


@attrs.define(eq=False, repr=False)
class ServerClient:
    """Calls of one worker to the server. ``join`` sets the credential that later calls carry.

    All raise the GpustackError that the server's answer stands for, RemoteError when there is none, and Invalid when
    the answer cannot be read. All are cancellable; whether the call took effect is then not known.
    """

    _client: PooledClient | FailoverClient
    _credential: str = ""

    def use(self, credential: str) -> None:
        """Use this credential from now on."""
        self._credential = credential

    async def join(self, request: JoinRequest, *, token: str) -> JoinedDocument:
        """Join the cluster, or join again. ``token`` is that of the cluster, or this worker's former credential."""
        joined: JoinedDocument = await self._call(
            "POST", "/v1/workers", encode(request), JoinedDocument, bearer=token
        )
        self._credential = joined.credential
        return joined

    async def heartbeat(self, worker_id: int, *, within: float = _ANSWER_WITHIN) -> HeartbeatAnswer:
        """Send a heartbeat; the answer must come ``within`` that many seconds."""
        beat: HeartbeatAnswer = await self._call(
            "POST", f"/v1/workers/{worker_id}/heartbeat", b"{}", HeartbeatAnswer, within=within
        )
        return beat

    def learn(self, servers: Sequence[str]) -> Sequence[str] | None:
        """Use these servers too when the server does not answer. Returns those accepted, if that changed anything."""
        if isinstance(self._client, FailoverClient) and self._client.learn(servers):
            return self._client.others
        return None

    async def turned(self) -> None:
        """Return once another server answers than the one that ``assignments`` come from. Cancellable."""
        if isinstance(self._client, FailoverClient):
            await self._client.turned()
        else:
            await trio.sleep_forever()

    async def drain(self, worker_id: int) -> None:
        """Tell the server that this worker stops as soon as its instances run elsewhere."""
        await self._call("POST", f"/v1/workers/{worker_id}/drain", b"{}", None)

    async def leave(self, worker_id: int) -> None:
        """Tell the server that this worker stops now."""
        await self._call("POST", f"/v1/workers/{worker_id}/leave", b"{}", None)

    async def put_status(self, worker_id: int, status: WorkerStatus, *, ip: str | None) -> None:
        """Replace the worker's status."""
        report = StatusReport(status=status, ip=ip)
        await self._call("PUT", f"/v1/workers/{worker_id}/status", encode(report), None)

    async def report_instance(self, instance_id: int, report: InstanceReport) -> None:
        """Report the state of an instance."""
        await self._call("PUT", f"/v1/model-instances/{instance_id}/report", encode(report), None)

    async def report_file(self, file_id: int, report: FileReport) -> None:
        """Report the state of a file."""
        await self._call("PUT", f"/v1/model-files/{file_id}/report", encode(report), None)

    async def ensure_file(
        self, worker_id: int, source: ModelSource, local_dir: str, *, holders: bool = False
    ) -> FileRecord:
        """The record of this source's files on this worker, created if there is none; with ``holders`` who else has
        them."""
        asked = _FileRequest(source=source, local_dir=local_dir, holders=holders)
        record: FileRecord = await self._call(
            "POST", f"/v1/workers/{worker_id}/files", encode(asked), FileRecord
        )
        return record

    async def metrics_config(self) -> object:
        """The mapping of engines' metric families to our names, as JSON."""
        reply = await self._client.request(
            "GET", "/v1/metrics/config", headers=self._headers(None), deadline=_ANSWER_WITHIN
        )
        raise_for_status(reply)
        try:
            return orjson.loads(reply.body)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"The server's mapping of metrics is not JSON: {error}") from error

    async def assignments(self, worker_id: int, *, quiet_for: float) -> AsyncGenerator[AssignmentLine]:
        """The lines of the assignment stream as they arrive, until the server ends it. Use ``aclosing``.

        A line with a record that this version cannot read comes without the record. Raises RemoteTimeout when nothing
        arrived for ``quiet_for`` seconds.
        """
        path = f"/v1/workers/{worker_id}/assignments"
        headers = self._headers(None)
        async with self._client.stream("GET", path, headers=headers, timeout=quiet_for) as answer:
            if answer.status != 200:
                raise fault_of(answer.status, await answer.read(_FAULT_LIMIT))
            rest = b""
            async for piece in answer.pieces():
                *lines, rest = (rest + piece).split(b"\n")
                if len(rest) > _LINE_LIMIT:
                    raise Unavailable("The server sent a line that is too long")
                for line in lines:
                    if line:
                        yield _line_of(line)

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes,
        cls: Any,
        *,
        bearer: str | None = None,
        within: float = _ANSWER_WITHIN,
    ) -> Any:
        headers = {"content-type": "application/json", **self._headers(bearer)}
        reply = await self._client.request(method, path, body=body, headers=headers, deadline=within)
        raise_for_status(reply)
        return None if cls is None else decode(reply.body, cls)

    def _headers(self, bearer: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {bearer or self._credential}"}

    def __repr__(self) -> str:
        return f"<ServerClient of {self._client!r}>"


def _line_of(raw: bytes) -> AssignmentLine:
    """A line, or its head alone: one record of a newer server must not keep all others from us. Raises ``Invalid``."""
    try:
        return decode(raw, AssignmentLine)
    except Invalid:
        head = decode(raw, _LineHead)
        if head.word is not AssignmentEvent.PUT:
            raise
        return AssignmentLine(word=head.word, kind=head.kind, id=head.id)
