"""Message heads as values: what a request or a response says before its body."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import attrs

from gpustack.http1.fields import (
    HEAD_LIMIT,
    NEED_MORE,
    TOKEN,
    Framing,
    HeadError,
    Headers,
    NeedMore,
    end_of_head,
    parse_length,
    split_head,
    start_of_head,
    tokens,
)

__all__ = [
    "NEED_MORE",
    "Framing",
    "HeadError",
    "NeedMore",
    "RequestHead",
    "ResponseHead",
    "parse_request_head",
    "parse_response_head",
]

_TARGET: Final = re.compile(rb"/[!\"$-~]*")
_ABSOLUTE: Final = re.compile(
    rb"(?i:https?)://([a-z0-9._~%!$&'()*+,;=:\[\]-]+)((?:[/?][!\"$-~]*)?)", re.ASCII | re.I
)
"""Authority, and path with query; a user's name in the authority is no part of HTTP's (RFC 9110 4.2.4)."""
_HOST: Final = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_CONTROL: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"host", b"expect"})
_VERSIONS: Final = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_TLS_HANDSHAKE: Final = 0x16
_SHORT: Final = 256
"""Bytes of a start line that is remembered."""

ControlFields = dict[bytes, list[bytes]]


@attrs.frozen(slots=True)
class RequestHead:
    """A request head. ``path`` and ``query`` are the target's text as sent, not percent-decoded.

    ``size`` is the number of bytes it took, its blank line included.
    """

    method: str
    target: bytes
    path: str
    query: str
    version: str
    headers: Headers
    framing: Framing
    content_length: int | None
    keep_alive: bool
    expects_continue: bool
    size: int

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header; ``name`` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of a header, in order; ``name`` in lower case."""
        return [value for key, value in self.headers if key == name]

    def names(self) -> list[bytes]:
        """The names of all headers, in lower case."""
        return [name for name, _ in self.headers]

    @property
    def upgrades_to_websocket(self) -> bool:
        return (
            self.method == "GET"
            and self.version == "1.1"
            and (self.get(b"upgrade") or b"").lower() == b"websocket"
            and b"upgrade" in tokens(b",".join(self.get_all(b"connection")))
        )


@attrs.frozen(slots=True)
class ResponseHead:
    """A response head; ``framing`` takes the request's method into account."""

    status: int
    version: str
    headers: Headers
    framing: Framing
    content_length: int | None
    keep_alive: bool
    size: int


def parse_request_head(data: bytes, limit: int = HEAD_LIMIT) -> RequestHead | NeedMore:
    """The head at the beginning of ``data``. Raises HeadError; its ``status`` is the answer's."""
    start = start_of_head(data)
    if len(data) == start or data[start:] == b"\r":
        return NEED_MORE
    if data[start] not in TOKEN:
        raise HeadError(
            400,
            "The client speaks TLS, but this port serves plain HTTP."
            if data[start] == _TLS_HANDSHAKE
            else "The request line is malformed.",
        )
    end = end_of_head(data, start, limit)
    if end < 0:
        return NEED_MORE
    first, headers = split_head(data[start:end])
    method, target, path, query, version, authority = (
        _known_request_line(first) if len(first) <= _SHORT else _request_line(first)
    )
    control = _control_fields(headers)
    _check_host(control, version)
    if authority is not None:  # then it is the host, whatever the header says (RFC 9112 3.2.2)
        headers = [(b"host", authority), *[field for field in headers if field[0] != b"host"]]
    framing, length = _framing(control, absent=Framing.NONE)
    if framing is Framing.CHUNKED and version == "1.0":
        raise HeadError(400, "An HTTP/1.0 request cannot be chunked.")
    return RequestHead(
        method=method,
        target=target,
        path=path,
        query=query,
        version=version,
        headers=headers,
        framing=framing,
        content_length=length,
        keep_alive=_keep_alive(control, version),
        expects_continue=_expects_continue(control, version) and framing is not Framing.NONE,
        size=end + 4,
    )


def parse_response_head(data: bytes, method: str, limit: int = HEAD_LIMIT) -> ResponseHead | NeedMore:
    """The head at the beginning of ``data``, an answer to ``method``. Raises HeadError 502."""
    try:
        end = end_of_head(data, 0, limit)
        if end < 0:
            return NEED_MORE
        first, headers = split_head(data[:end])
        version, status = _known_status_line(first) if len(first) <= _SHORT else _status_line(first)
        control = _control_fields(headers)
        framing, length = _framing(control, absent=Framing.UNTIL_CLOSE)
        if framing is Framing.CHUNKED and version == "1.0":
            raise HeadError(502, "An HTTP/1.0 answer cannot be chunked.")
        if status < 200 or status in (204, 304) or method == "HEAD":
            framing = Framing.NONE
    except HeadError as error:
        raise HeadError(502, error.sentence) from error
    return ResponseHead(
        status=status,
        version=version,
        headers=headers,
        framing=framing,
        content_length=length,
        keep_alive=_keep_alive(control, version) and framing is not Framing.UNTIL_CLOSE,
        size=end + 4,
    )


def _request_line(line: bytes) -> tuple[str, bytes, str, str, str, bytes | None]:
    """Method, target, path, query, version, and the authority of a target in absolute form. Raises HeadError."""
    parts = line.split(b" ")
    if len(parts) != 3 or not _VERSION.fullmatch(parts[2]):
        raise HeadError(400, "The request line is malformed.")
    method, target, version = parts
    if version not in _VERSIONS:
        raise HeadError(505, "Only HTTP/1.1 and HTTP/1.0 are served here.")
    if not method or len(method) > 32 or method.translate(None, TOKEN):
        raise HeadError(400, "The request method is malformed.")
    authority = None
    if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        authority, target = absolute.groups()
        target = target if target.startswith(b"/") else b"/" + target
    if not _TARGET.fullmatch(target) and not (target == b"*" and method == b"OPTIONS"):
        raise HeadError(400, "The request target must be a path that begins with '/'.")
    path, _, query = target.decode("ascii").partition("?")
    return method.decode("ascii"), target, path, query, _VERSIONS[version], authority


def _status_line(line: bytes) -> tuple[str, int]:
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if version not in _VERSIONS or len(code) != 3 or not code.isdigit() or rest[3:4] not in (b"", b" "):
        raise HeadError(502, "The status line is malformed.")
    status = int(code)
    if not 100 <= status <= 599:
        raise HeadError(502, "The status code is out of range.")
    return _VERSIONS[version], status


_known_request_line: Final = lru_cache(maxsize=128)(_request_line)
_known_status_line: Final = lru_cache(maxsize=32)(_status_line)


def _control_fields(headers: Headers) -> ControlFields:
    """The values of the headers that control the connection, by name."""
    control: ControlFields = {}
    for name, value in [field for field in headers if field[0] in _CONTROL]:
        if name in control:
            control[name].append(value)
        else:
            control[name] = [value]
    return control


def _check_host(control: ControlFields, version: str) -> None:
    hosts = control.get(b"host")
    if hosts is None:
        if version == "1.1":
            raise HeadError(400, "The request has no Host header.")
    elif len(hosts) > 1 or not _HOST.fullmatch(hosts[0]):
        raise HeadError(400, "The Host header is malformed or given twice.")


def _framing(control: ControlFields, *, absent: Framing) -> tuple[Framing, int | None]:
    """How the body ends, and the Content-Length; ``absent`` when neither header is given."""
    codings = control.get(b"transfer-encoding")
    lengths = control.get(b"content-length")
    if codings and lengths:
        raise HeadError(400, "The message has both Content-Length and Transfer-Encoding.")
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise HeadError(400, "The only transfer coding known here is 'chunked', once.")
        return Framing.CHUNKED, None
    if lengths is None:
        return absent, None
    if len(lengths) > 1:
        raise HeadError(400, "The message has more than one Content-Length.")
    length = parse_length(lengths[0])
    return (Framing.LENGTH if length else Framing.NONE), length


def _keep_alive(control: ControlFields, version: str) -> bool:
    values = control.get(b"connection")
    if values is None:
        return version == "1.1"
    connection = tokens(b",".join(values))
    return b"close" not in connection and (version == "1.1" or b"keep-alive" in connection)


def _expects_continue(control: ControlFields, version: str) -> bool:
    expectations = control.get(b"expect")
    if expectations is None or version == "1.0":
        return False
    if len(expectations) > 1 or expectations[0].lower() != b"100-continue":
        raise HeadError(417, "The only expectation known here is '100-continue'.")
    return True
