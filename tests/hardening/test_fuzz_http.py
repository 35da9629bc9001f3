"""Whatever we take for a message, another reader of HTTP takes for the same one; the rest is refused by name."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpustack.errors import BadRequest
from gpustack.gateway.header import for_engine
from gpustack.http1.chunked import ChunkDecoder, ChunkError
from gpustack.http1.fields import end_to_end, field_lines
from gpustack.http1.head import (
    Framing,
    HeadError,
    NeedMore,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
)
from gpustack.http1.pool import request_head
from gpustack.http1.upstream import UpstreamAddress

from .fuzzing import fuzz

pytestmark = pytest.mark.attack("smuggling")

NEXT = b"hello5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: y\r\n\r\n"
NAMES = st.sampled_from(
    [b"host", b"Host", b"content-length", b"Content-Length", b"transfer-encoding", b"Transfer-Encoding", b"connection",
     b"expect", b"upgrade", b"x", b"content_length", b"transfer_encoding", b"te", b"x!#$%&'*+-.^_`|~9",
     b"x-target-port", b"authorization", b"Keep-Alive", b"proxy-connection"]
)  # fmt: skip
VALUES = st.sampled_from(
    [b"x", b"localhost:80", b"5", b"0", b"05", b"chunked", b"Chunked", b" chunked ", b"identity", b"close",
     b"keep-alive", b"100-continue", b"websocket", b"upgrade", b"", b"a,b", b"\xff\xe9", b"\t", b"a\tb", b"[::1]",
     b"5,5", b"+5", b"999999999999999999", b"5\xa0", b"chunked\x85", b"\x7f", b"a\x01", b"'\"();<>", b"content-length",
     b"host"]
)  # fmt: skip
FIRST = st.sampled_from(
    [b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"GET / HTTP/1.0", b"OPTIONS * HTTP/1.1", b"POST / HTTP/1.1",
     b"M-X|~ /%00\"<>|{} HTTP/1.1", b"POST /v1/x?a=\\&b=^ HTTP/1.1"]
)  # fmt: skip
STATUS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 X", b"HTTP/1.1 200",
     b"HTTP/1.1 200 ",      b"HTTP/1.1 100 Continue", b"HTTP/1.1 500 \xff\xe9", b"HTTP/1.1 599 x\tz"]
)  # fmt: skip
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\t", b"\0\r\n"])
COLONS = st.sampled_from([b": "] * 5 + [b":", b" :", b":\t", b":  "])
LINES = st.lists(st.tuples(NAMES, COLONS, VALUES, ENDS).map(b"".join), max_size=4).map(b"".join)


@st.composite
def messages(draw: st.DrawFn, first: st.SearchStrategy[bytes], host: bytes) -> bytes:
    """A head that is nearly right, perhaps with a byte or two that are wrong."""
    made = draw(first) + draw(ENDS) + draw(st.sampled_from([host, host, host, b""])) + draw(LINES)
    made += draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r"]))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(made) - 1))
        made = made[:at] + bytes([draw(st.integers(0, 255))]) + made[at + 1 :]
    return made


REQUESTS = messages(FIRST, b"host: x\r\n")
RESPONSES = messages(STATUS, b"")


def without_case(headers: Any) -> list[tuple[bytes, bytes]]:
    """Names of codings have none, and h11 writes them small."""
    return [
        (name, value.lower() if name == b"transfer-encoding" else bytes(value)) for name, value in headers
    ]


def framed(headers: list[tuple[bytes, bytes]]) -> tuple[Framing, int]:
    """How a body ends that has these headers, as RFC 9112 says."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        return Framing.CHUNKED, 0
    length = next((int(value) for name, value in headers if name == b"content-length"), 0)
    return (Framing.LENGTH, length) if length else (Framing.NONE, 0)


@fuzz(400)
@given(REQUESTS)
def test_a_request_is_the_one_that_another_reader_sees(data: bytes) -> None:
    try:
        head = parse_request_head(data + NEXT)
    except HeadError as error:
        assert 400 <= error.status < 600
        return
    if isinstance(head, NeedMore):
        return
    other = h11.Connection(h11.SERVER)
    # Empty lines before a request are allowed, h11 has none.
    other.receive_data((data + NEXT).lstrip(b"\r\n"))
    seen = other.next_event()
    assert isinstance(seen, h11.Request)
    assert (seen.method, seen.target, seen.http_version) == (
        head.method.encode(),
        head.target,
        head.version.encode(),
    )
    assert without_case(seen.headers) == without_case(head.headers)
    assert framed(list(seen.headers)) == (head.framing, head.content_length or 0)


@fuzz(400)
@given(REQUESTS)
def test_an_engine_reads_of_a_request_what_the_gateway_has_read_and_nothing_that_steers(data: bytes) -> None:
    """Whatever a client writes, what goes on is one request with one length that is ours."""
    try:
        head = parse_request_head(data + NEXT)
    except HeadError:
        return
    assume(isinstance(head, RequestHead))
    assert isinstance(head, RequestHead)
    try:
        headers = for_engine(head)
    except BadRequest:
        return
    body = b'{"model": "x"}'
    wire = request_head(UpstreamAddress("127.0.0.1", 8080), "POST", b"/v1/completions", headers, body) + body
    engine = h11.Connection(h11.SERVER)
    engine.receive_data(wire)
    seen = engine.next_event()
    assert isinstance(seen, h11.Request)
    names = [name for name, _ in seen.headers]
    assert names.count(b"content-length") == 1 and names.count(b"host") == 1
    steering = {
        b"transfer-encoding",
        b"connection",
        b"upgrade",
        b"expect",
        b"te",
        b"x-target-port",
        b"authorization",
    }
    assert not steering & {name.replace(b"_", b"-") for name in names}
    assert b"content_length" not in names
    got = b""
    while isinstance(event := engine.next_event(), h11.Data):
        got += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage) and got == body
    assert engine.trailing_data[0] == b""


@pytest.mark.attack("engine")
@fuzz(400)
@given(RESPONSES)
def test_an_answer_is_the_one_that_another_reader_sees(data: bytes) -> None:
    try:
        head = parse_response_head(data + NEXT, "GET")
    except HeadError as error:
        assert error.status == 502
        return
    if isinstance(head, NeedMore):
        return
    other = h11.Connection(h11.CLIENT)
    other.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    other.send(h11.EndOfMessage())
    other.receive_data(data + NEXT)
    seen = other.next_event()
    assert isinstance(seen, h11.Response | h11.InformationalResponse)
    assert (seen.status_code, seen.http_version) == (head.status, head.version.encode())
    assert without_case(seen.headers) == without_case(head.headers)
    if head.framing is Framing.LENGTH and isinstance(seen, h11.Response):
        assert framed(list(seen.headers)) == (Framing.LENGTH, head.content_length)


@pytest.mark.attack("engine")
@fuzz(300)
@given(RESPONSES)
def test_a_client_reads_of_an_answer_what_we_have_read(data: bytes) -> None:
    """Whatever an engine writes, what goes on has our framing alone and is one answer."""
    try:
        head = parse_response_head(data + NEXT, "POST")
    except HeadError:
        return
    assume(isinstance(head, ResponseHead) and head.status >= 200)
    assert isinstance(head, ResponseHead)
    lines = field_lines(end_to_end(head.headers))
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: 2\r\n\r\nok")
    seen = client.next_event()
    assert isinstance(seen, h11.Response)
    event = client.next_event()
    assert isinstance(event, h11.Data) and bytes(event.data) == b"ok"
    assert isinstance(client.next_event(), h11.EndOfMessage)


CHUNKS = st.lists(
    st.sampled_from(
        [b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"a;b", b"1\r\nx\r\n", b"0;x=y\r\n", b"00\r\n", b'5;"\r\n"', b"x: y\r\n",
         b" ", b"\t", b"\n", b"\r", b"A\r\n0123456789\r\n", b"0005\r\nhello\r\n", b"5;x \r\nhello\r\n",
         b"5;\xff\r\nhello\r\n", b"5;\r\nhello\r\n", b"content-length: 5\r\n", b"5;x\x00\r\nhello\r\n",
         b"f" * 16 + b"\r\n", b"5;x\rhello\r\n"]
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


@fuzz(400)
@given(CHUNKS.map(b"".join), st.booleans(), st.integers(0, 40))
def test_a_chunked_body_is_the_one_that_another_reader_sees(data: bytes, ended: bool, cut: int) -> None:
    data = data + (b"0\r\n\r\n" if ended else b"") + b"REST"
    ours = ChunkDecoder()
    try:
        payload = ours.feed(data[:cut])
        if not ours.done:
            payload += ours.feed(data[cut:])
            rest = ours.rest
        else:
            rest = ours.rest + data[cut:]
    except ChunkError:
        return
    if not ours.done:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + data)
    assert isinstance(other.next_event(), h11.Request)
    seen = b""
    while isinstance(event := other.next_event(), h11.Data):
        seen += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert (seen, other.trailing_data[0]) == (payload, rest)
