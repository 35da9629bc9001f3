"""The worker's own port: passes the server's requests on to engines, and answers with logs and model facts."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs

import attrs
import orjson
import trio

from gpustack import __commit__, __version__
from gpustack.domain.artifact import ModelSource
from gpustack.domain.document import decode, encode
from gpustack.domain.facts import ModelFacts
from gpustack.domain.route import RUNS, RUNS_LEFT, TARGET_PORT, WORKER_FAULT
from gpustack.errors import (
    BadRequest,
    GpustackError,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
    Unavailable,
)
from gpustack.http1.exchange import BodyError, BodyTimeout, Exchange
from gpustack.http1.fields import HOP_BY_HOP, Framing, end_to_end
from gpustack.http1.head import RequestHead
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.upstream import UpstreamAddress, UpstreamError
from gpustack.http1.upstream_exchange import RequestBody
from gpustack.identity.file_ticket import reader_of
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import previous, tail
from gpustack.worker.engine_key import EngineKeys, KeyFilter
from gpustack.worker.file_server import PREFIX, FileServer
from gpustack.worker.launch_record import read_record
from gpustack.worker.membership import Membership
from gpustack.worker.ports import PortLeases

log = logging.getLogger(__name__)

_RECORDS = threads("launch records", 1)
_JSON = [(b"content-type", b"application/json")]
_TEXT = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
_NOT_FOR_ENGINES = HOP_BY_HOP | {b"authorization", b"x-api-key", TARGET_PORT, RUNS_LEFT, b"host", b"cookie"}
_NOT_FROM_ENGINES = HOP_BY_HOP | {b"date", b"server", WORKER_FAULT, RUNS}
_DOCUMENT_LIMIT = 1 << 20
_WHOLE_BODY = 256 << 10
"""Bytes up to which a body is read before it is sent on: kept connections are used only for such whole bodies."""
_MAX_TAIL = 100_000
_NOT_JOINED = "It has not joined its server yet"
"""Until then nobody can prove to be the server: a key may be good, and is asked for again."""
_LONGEST_NUMBER = 18
"""Digits that a port or id may have."""
_MOST_MEMBERS = 10_000
_PATIENCE = 24 * 3600.0
"""Seconds. The gateway decides how long an engine may take: it closes its request when that time is over."""


class EngineProxyError(Unavailable):
    """An engine did not answer. ``begun``: a part of the request was sent to it, so it may have begun to work."""

    def __init__(self, message: str, *, begun: bool) -> None:
        self.begun = begun
        super().__init__(message)


@attrs.frozen
class ForwardHandler:
    """The handler of the worker's port. Everything except health and version needs the forward key, and model files a
    ticket that the server gives to other workers."""

    _membership: Membership
    _ports: PortLeases
    _keys: EngineKeys
    _pool: ConnectionPool
    _log_file: Callable[[int, int], Path]
    """Where the process of an instance's member writes."""
    _read_facts: Callable[[ModelSource], Awaitable[ModelFacts]]
    _files: FileServer
    _now: Callable[[], datetime]

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        try:
            await self._answer(exchange)
        except (BodyError, BodyTimeout, PayloadTooLarge):
            raise  # the transport answers these, and knows what is left of the connection
        except Unauthorized as error:
            await _refuse(exchange, 401, "Unauthorized", str(error))
        except NotFound as error:
            await _refuse(exchange, 404, "NotFound", str(error))
        except BadRequest as error:
            await _refuse(exchange, 400, "BadRequest", str(error))
        except Unavailable as error:
            begun = isinstance(error, EngineProxyError) and error.begun
            await _refuse(
                exchange, 503, "ServiceUnavailable", str(error), fault=b"broke" if begun else b"refused"
            )
        except GpustackError as error:
            await _refuse(exchange, 422, "Invalid", str(error))

    async def _answer(self, exchange: Exchange) -> None:
        path = exchange.head.path
        if path in ("/healthz", "/readyz"):
            await exchange.respond(200, _JSON, b'"ok"')
        elif path == "/version":
            about = {"version": __version__, "git_commit": __commit__}
            await exchange.respond(200, _JSON, json.dumps(about).encode())
        elif path.startswith(PREFIX):
            self._check_ticket(exchange.head)
            await self._files.serve(exchange)
        else:
            self._check_key(exchange.head)
            if path.startswith("/proxy/"):
                await self._proxy(exchange)
            elif path.startswith("/serveLogs/"):
                await self._logs(exchange)
            elif path.startswith("/engineLaunch/"):
                await self._launch(exchange)
            elif path == "/run":
                await exchange.respond(200, _JSON, json.dumps({"run": self._membership.run_id}).encode())
            elif path == "/modelFacts":
                source = decode(await exchange.read_body(_DOCUMENT_LIMIT), ModelSource)
                await exchange.respond(200, _JSON, encode(await self._read_facts(source)))
            else:
                raise NotFound(f"There is nothing at {path}")

    def _check_key(self, head: RequestHead) -> None:
        member = self._membership.member
        given = head.get(b"authorization") or b""
        if member is None and given:
            raise Unavailable(_NOT_JOINED)
        if member is None or not hmac.compare_digest(given, b"Bearer " + member.forward_key.encode()):
            raise Unauthorized

    def _check_ticket(self, head: RequestHead) -> None:
        """Raise Unauthorized unless the caller has a ticket of the server for this worker's files."""
        member = self._membership.member
        given = (head.get(b"authorization") or b"").decode("latin-1").removeprefix("Bearer ")
        if member is None and given:
            raise Unavailable(_NOT_JOINED)
        if member is None or reader_of(given, member.forward_key, self._now().timestamp()) is None:
            raise Unauthorized

    async def _proxy(self, exchange: Exchange) -> None:
        head = exchange.head
        given = head.get(TARGET_PORT)
        if given is None or not given.isdigit() or len(given) > _LONGEST_NUMBER:
            raise BadRequest("The header X-Target-Port must name the engine's port")
        port = int(given)
        if port not in self._ports.held:
            raise Unavailable(f"No engine here holds port {port}")
        target = head.target[len(b"/proxy") :]
        headers = end_to_end(head.headers, _NOT_FOR_ENGINES)
        headers += [(b"host", b"127.0.0.1:%d" % port), *self._keys.fields(port)]
        body: RequestBody = None
        if head.content_length is not None and head.content_length <= _WHOLE_BODY:
            body = await exchange.read_body(_WHOLE_BODY)
        elif head.framing is not Framing.NONE:
            body = exchange.body_chunks()
        call = self._pool.request(
            UpstreamAddress("127.0.0.1", port),
            head.method,
            target,
            headers,
            body,
            content_length=None if isinstance(body, bytes) else head.content_length,
            first_byte_timeout=_PATIENCE,
            idle_timeout=_PATIENCE,
            redial=head.get(RUNS_LEFT) != b"1",
        )
        try:
            async with call as response:
                # An engine must not set the headers by which a worker tells the gateway something.
                passed = end_to_end(response.headers, _NOT_FROM_ENGINES)
                await exchange.relay(response, [*passed, (RUNS, b"%d" % call.runs)])
        except UpstreamError as error:
            if exchange.response_started:
                # Left unfinished, so that the other side sees it was cut.
                log.info("An engine broke off inside its answer: port=%d reason=%s", port, error)
                return
            exchange.extra = [*exchange.extra, (RUNS, b"%d" % call.runs)]
            raise EngineProxyError(
                f"The engine on port {port} did not answer: {error}", begun=bool(call.runs)
            ) from error

    def _log_of(self, name: str, asked: dict[str, list[str]]) -> Path:
        """Where the member of an instance writes that a request names."""
        if not name.isdigit() or len(name) > _LONGEST_NUMBER:
            raise NotFound("Log file not found")
        member = _number(asked, "member") or 0
        return self._log_file(int(name), min(max(member, 0), _MOST_MEMBERS))

    async def _launch(self, exchange: Exchange) -> None:
        """With what the process of a member was started last."""
        name = exchange.head.path.removeprefix("/engineLaunch/")
        log_file = self._log_of(name, parse_qs(exchange.head.query))
        record = await _RECORDS.run(read_record, log_file)
        if record is None:
            raise NotFound("Its engine has not been started here, or by a former version")
        await exchange.respond(200, _JSON, encode(record))

    async def _logs(self, exchange: Exchange) -> None:
        asked = parse_qs(exchange.head.query)
        path = self._log_of(exchange.head.path.removeprefix("/serveLogs/"), asked)
        if _flag(asked, "previous"):
            path = previous(path, 1)
        if not await trio.Path(path).exists():
            raise NotFound("Log file not found")
        lines = _number(asked, "tail")
        await exchange.start_response(200, _TEXT)
        wanted = None if lines is None or lines < 0 else min(lines, _MAX_TAIL)
        without_keys = KeyFilter()
        async with aclosing(tail(path, lines=wanted, follow=_flag(asked, "follow"))) as pieces:
            async for piece in pieces:
                await exchange.send(without_keys.feed(piece))
        await exchange.send(without_keys.rest())
        await exchange.finish()


def _flag(asked: dict[str, list[str]], name: str) -> bool:
    return asked.get(name, ["false"])[-1].lower() in ("true", "1", "yes")


def _number(asked: dict[str, list[str]], name: str) -> int | None:
    text = asked.get(name, [""])[-1]
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"{name} must be a number of lines, not {text!r}") from None


async def _refuse(
    exchange: Exchange, status: int, reason: str, message: str, *, fault: bytes = b"refused"
) -> None:
    """An error answer of the worker itself, marked so that the gateway does not take it for an engine's."""
    body = orjson.dumps({"code": status, "reason": reason, "message": message})
    await exchange.respond(status, [*_JSON, (WORKER_FAULT, fault)], body)
