"""Requests of the server to a worker's own port: logs, headers of files on its disk, what its engines tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import orjson

from gpustack.domain.artifact import ModelSource
from gpustack.domain.document import decode, encode
from gpustack.domain.facts import ModelFacts
from gpustack.domain.launch import LaunchRecord
from gpustack.domain.route import TARGET_PORT
from gpustack.domain.worker import Worker
from gpustack.errors import BadRequest, GpustackError, NotFound, Unavailable
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream import UpstreamAddress, UpstreamError, UpstreamResponse
from gpustack.http1.upstream_exchange import UpstreamExchange

_ANSWER_LIMIT = 1 << 20
_BEGINS_WITHIN = 15.0
_READS_WITHIN = 60.0
"""A header has some megabytes, and the worker's disk may be slow."""
_THERE_WITHIN = 2.0
_SILENCE = 3600.0
"""A followed log may be quiet for long; it ends when the client leaves."""


@attrs.frozen
class WorkerClient:
    """Requests to workers, each with the key by which that worker recognises the server."""

    _pool: ConnectionPool
    _forward_key: Callable[[str], str]

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
        """The log of an instance's engine, in chunks. ``tail`` is a number of lines; below zero it is all of it.

        Raises ``NotFound`` when there is no such log, ``Unavailable`` when the worker does not answer.
        """
        asked = f"tail={tail}&follow={str(follow).lower()}&previous={str(previous).lower()}&member={member}"
        target = f"/serveLogs/{instance_id}?{asked}".encode()
        call = self._pool.request(
            _address(worker),
            "GET",
            target,
            self._headers(worker),
            first_byte_timeout=_BEGINS_WITHIN,
            idle_timeout=_SILENCE if follow else _READS_WITHIN,
        )
        async with _answered(call, worker) as response:
            yield response.chunks()

    async def launch(self, worker: Worker, instance_id: int, member: int = 0) -> LaunchRecord:
        """With what an instance's engine was started last.

        Raises ``NotFound`` where that is not on record, ``Unavailable`` when the worker does not answer.
        """
        call = self._pool.request(
            _address(worker),
            "GET",
            f"/engineLaunch/{instance_id}?member={member}".encode(),
            self._headers(worker),
            first_byte_timeout=_BEGINS_WITHIN,
            idle_timeout=_BEGINS_WITHIN,
        )
        async with _answered(call, worker) as response:
            return decode(await response.read(_ANSWER_LIMIT), LaunchRecord)

    async def facts(self, worker: Worker, source: ModelSource) -> ModelFacts:
        """What the header of a model file says, read by the worker.

        Raises the worker's own error by its sentence, and ``Unavailable`` when it does not answer.
        """
        call = self._pool.request(
            _address(worker),
            "POST",
            b"/modelFacts",
            self._headers(worker),
            encode(source),
            first_byte_timeout=_READS_WITHIN,
            idle_timeout=_BEGINS_WITHIN,
        )
        async with _answered(call, worker) as response:
            return decode(await response.read(_ANSWER_LIMIT), ModelFacts)

    async def engine_model(self, worker: Worker, port: int) -> Mapping[str, Any]:
        """The first entry of ``/v1/models`` of the engine on a port of the worker.

        Raises ``Unavailable`` when it does not answer, or not with a list of models.
        """
        call = self._pool.request(
            _address(worker),
            "GET",
            b"/proxy/v1/models",
            [*self._headers(worker), (TARGET_PORT, b"%d" % port)],
            first_byte_timeout=_BEGINS_WITHIN,
            idle_timeout=_BEGINS_WITHIN,
        )
        async with _answered(call, worker) as response:
            body = await response.read(_ANSWER_LIMIT)
        try:
            entry = orjson.loads(body)["data"][0]
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
            raise Unavailable(f"The engine on port {port} of worker {worker.name} lists no model") from error
        if not isinstance(entry, dict):
            raise Unavailable(f"The engine on port {port} of worker {worker.name} lists no model")
        return entry

    async def run_of(self, worker: Worker) -> str | None:
        """The id of the run of the daemon that answers at the worker's address; ``None`` where none answers."""
        call = self._pool.request(
            _address(worker),
            "GET",
            b"/run",
            self._headers(worker),
            connect_timeout=_THERE_WITHIN,
            first_byte_timeout=_THERE_WITHIN,
            idle_timeout=_THERE_WITHIN,
            fresh=True,  # a kept connection may lead to a daemon that has handed over
        )
        try:
            async with _answered(call, worker) as response:
                return str(orjson.loads(await response.read(_ANSWER_LIMIT))["run"])
        except (GpustackError, orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def _headers(self, worker: Worker) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", b"Bearer " + self._forward_key(worker.worker_uuid).encode())]


def _address(worker: Worker) -> UpstreamAddress:
    if not worker.ip:
        raise Unavailable(f"Worker {worker.name} has not told its address yet")
    return UpstreamAddress(worker.ip, worker.port)


@asynccontextmanager
async def _answered(call: UpstreamExchange, worker: Worker) -> AsyncIterator[UpstreamResponse]:
    """A response with status 200. Any other, and faults of the connection, are errors that name the worker."""
    try:
        async with call as response:
            if response.status != 200:
                raise await _fault(response, worker)
            yield response
    except UpstreamError as error:
        raise Unavailable(f"Worker {worker.name} does not answer: {error}") from error


async def _fault(response: UpstreamResponse, worker: Worker) -> GpustackError:
    body = await response.read(_ANSWER_LIMIT)
    try:
        message = str(orjson.loads(body)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = f"status {response.status}"
    match response.status:
        case 404:
            return NotFound(message)
        case 400 | 422:
            return BadRequest(message)
        case _:
            return Unavailable(f"Worker {worker.name} answered: {message}")
