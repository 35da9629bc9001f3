"""Heads are read strictly: what two programs could read differently is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.http1.head import (
    Framing,
    HeadError,
    NeedMore,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
)

GOOD = (
    b"POST /v1/chat/completions?a=1&b HTTP/1.1\r\nHost: example.org:8080\r\nX-A: 1\r\nx-a:  2 \r\n"
    b"Content-Length: 12\r\n\r\n"
)


def request(*lines: bytes, first: bytes = b"POST / HTTP/1.1", host: bytes | None = b"host: x") -> bytes:
    fields = [host, *lines] if host else list(lines)
    return b"\r\n".join([first, *fields, b"", b""])


def head(data: bytes) -> RequestHead:
    parsed = parse_request_head(data)
    assert isinstance(parsed, RequestHead)
    return parsed


def refusal(data: bytes) -> int:
    with pytest.raises(HeadError) as caught:
        parse_request_head(data)
    assert caught.value.sentence.endswith(".")
    return caught.value.status


def test_a_head_is_taken_apart() -> None:
    parsed = head(GOOD + b"hello, world")
    assert parsed.method == "POST"
    assert parsed.target == b"/v1/chat/completions?a=1&b"
    assert (parsed.path, parsed.query, parsed.version) == ("/v1/chat/completions", "a=1&b", "1.1")
    assert parsed.headers[0] == (b"host", b"example.org:8080")
    assert parsed.get(b"x-a") == b"1"
    assert parsed.get_all(b"x-a") == [b"1", b"2"]
    assert parsed.get(b"x-b") is None
    assert (parsed.framing, parsed.content_length) == (Framing.LENGTH, 12)
    assert parsed.keep_alive
    assert not parsed.expects_continue
    assert parsed.size == len(GOOD)


def test_empty_lines_before_a_request_are_passed_over() -> None:
    assert head(b"\r\n\r\n" + GOOD).size == len(GOOD) + 4


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"connection: close", False),
        (b"1.1", b"connection: Close", False),
        (b"1.1", b"connection: upgrade, close", False),
        (b"1.1", b"connection: keep-alive", True),
        (b"1.0", b"", False),
        (b"1.0", b"connection: keep-alive", True),
        (b"1.0", b"connection: keep-alive, close", False),
    ],
)
def test_the_connection_is_kept_as_both_sides_understand_it(
    version: bytes, connection: bytes, kept: bool
) -> None:
    lines = [connection] if connection else []
    assert head(request(*lines, first=b"GET / HTTP/" + version)).keep_alive is kept


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request(b"content-length: 5", b"transfer-encoding: chunked"), id="length and chunked"),
        pytest.param(request(b"content-length: 5", b"content-length: 6"), id="two lengths"),
        pytest.param(request(b"content-length: 5", b"content-length: 5"), id="the same length twice"),
        pytest.param(request(b"content-length: 5, 5"), id="a list of lengths"),
        pytest.param(request(b"content-length: +5"), id="a signed length"),
        pytest.param(request(b"content-length: 0x5"), id="a hexadecimal length"),
        pytest.param(request(b"content-length: 5 5"), id="a length with a space"),
        pytest.param(request(b"content-length:"), id="an empty length"),
        pytest.param(request(b"content-length: " + b"9" * 30), id="a length beyond all sizes"),
        pytest.param(request("content-length: ٥".encode()), id="a length in other digits"),
        pytest.param(request(b"content-length : 5"), id="a space before the colon"),
        pytest.param(request(b"transfer-encoding: gzip, chunked"), id="another coding"),
        pytest.param(request(b"transfer-encoding: chunked", b"transfer-encoding: chunked"), id="two codings"),
        pytest.param(request(b"transfer-encoding: chunked, identity"), id="identity after chunked"),
        pytest.param(request(b"transfer-encoding: xchunked"), id="nearly chunked"),
        pytest.param(request(b"transfer-encoding:\x0bchunked"), id="a vertical tab"),
        pytest.param(
            request(b"transfer-encoding: chunked", first=b"POST / HTTP/1.0"), id="chunked in HTTP/1.0"
        ),
        pytest.param(request(b"a: b", b" c: d"), id="a folded line"),
        pytest.param(request(b"a: b", b"\tfolded"), id="a line folded by a tab"),
        pytest.param(request(b"a: b\rc: d"), id="a bare CR"),
        pytest.param(request(b"a: b\nc: d"), id="a bare LF"),
        pytest.param(request(b"a: b\n\nGET / HTTP/1.1"), id="a blank line of bare LFs"),
        pytest.param(b"GET / HTTP/1.1\nhost: x\n\n", id="only bare LFs"),
        pytest.param(request(b"a: b\0c"), id="a NUL"),
        pytest.param(request(b"a b: c"), id="a space in a name"),
        pytest.param(request(b": c"), id="no name"),
        pytest.param(request(b"nothing"), id="no colon"),
        pytest.param(request(b"a\xe9: c"), id="a name that is not ASCII"),
        pytest.param(request(host=None), id="no host"),
        pytest.param(request(b"host: y"), id="two hosts"),
        pytest.param(request(host=b"host: a/b"), id="a path as host"),
        pytest.param(request(host=b"host: a b"), id="a space in the host"),
        pytest.param(request(host=b"host: a@b"), id="a user in the host"),
        pytest.param(request(first=b"GET http://user@other/ HTTP/1.1"), id="absolute form with a user"),
        pytest.param(request(first=b"GET http:/// HTTP/1.1"), id="absolute form without a host"),
        pytest.param(request(first=b"GET http:/path HTTP/1.1"), id="absolute form without an authority"),
        pytest.param(request(first=b"GET ftp://other/ HTTP/1.1"), id="absolute form of another scheme"),
        pytest.param(request(first=b"GET http://other/#b HTTP/1.1"), id="absolute form with a fragment"),
        pytest.param(
            request(b"host: y", first=b"GET http://other/ HTTP/1.1"), id="absolute form and two hosts"
        ),
        pytest.param(
            request(host=None, first=b"GET http://other/ HTTP/1.1"), id="absolute form without Host"
        ),
        pytest.param(request(first=b"CONNECT other:443 HTTP/1.1"), id="authority form"),
        pytest.param(request(first=b"GET * HTTP/1.1"), id="asterisk without OPTIONS"),
        pytest.param(request(first=b"GET /a#b HTTP/1.1"), id="a fragment"),
        pytest.param(request(first="GET /é HTTP/1.1".encode()), id="a target that is not ASCII"),
        pytest.param(request(first=b"GET  / HTTP/1.1"), id="two spaces"),
        pytest.param(request(first=b"GET / HTTP/1.1 "), id="a space at the end"),
        pytest.param(request(first=b"GET /"), id="HTTP/0.9"),
        pytest.param(request(first=b"GET / HTTP/1.11"), id="a long version"),
        pytest.param(request(first=b"GET / http/1.1"), id="a version in lower case"),
        pytest.param(request(first=b"G(T / HTTP/1.1"), id="a bad method"),
        pytest.param(request(first=b" GET / HTTP/1.1"), id="a space at the start"),
        pytest.param(b"\x16\x03\x01\x02\x00", id="TLS on a plain port"),
    ],
)
def test_what_could_smuggle_a_request_is_refused(data: bytes) -> None:
    assert refusal(data) == 400


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"http://other/", b"other", "/", ""),
        (b"http://other", b"other", "/", ""),
        (b"HTTPS://other:8443/v1/models?page=2", b"other:8443", "/v1/models", "page=2"),
        (b"http://other?x=/", b"other", "/", "x=/"),
        (b"http://[::1]:80//a", b"[::1]:80", "//a", ""),
    ],
)
def test_a_target_in_absolute_form_says_the_host_whatever_the_header_says(
    target: bytes, host: bytes, path: str, query: str
) -> None:
    head = parse_request_head(request(b"a: b", first=b"GET " + target + b" HTTP/1.1"))
    assert isinstance(head, RequestHead)
    assert (head.path, head.query, head.get_all(b"host")) == (path, query, [host])
    assert head.target == (path + ("?" + query if query else "")).encode()


@pytest.mark.attack("smuggling")
def test_other_versions_and_expectations_are_refused_by_their_own_status() -> None:
    assert refusal(b"PRI * HTTP/2.0\r\n\r\n") == 505
    assert refusal(request(b"expect: 200-ok", b"content-length: 3")) == 417


@pytest.mark.attack("flood")
def test_a_large_head_is_refused_wherever_it_is_cut() -> None:
    data = request(b"x: " + b"y" * 70_000)
    assert refusal(data) == 431
    assert refusal(data[: 64 * 1024 + 4]) == 431
    assert refusal(b"\r\n" * 40_000) == 400
    assert isinstance(parse_request_head(data[: 64 * 1024]), NeedMore)


@pytest.mark.attack("flood")
def test_a_head_of_many_lines_is_refused_however_short_they_are() -> None:
    assert len(head(request(*[b"x:"] * 255)).headers) == 256
    assert refusal(request(*[b"x:"] * 256)) == 431
    assert refusal(request(*[b"x:"] * 12_000)) == 431
    assert head(b"\r\n" * 4 + request()).method == "POST"
    assert refusal(b"\r\n" * 5) == 400


def test_an_upgrade_to_websocket_is_recognised() -> None:
    upgrade = (b"connection: keep-alive, Upgrade", b"upgrade: WebSocket")
    assert head(request(*upgrade, first=b"GET / HTTP/1.1")).upgrades_to_websocket
    assert not head(request(upgrade[1], first=b"GET / HTTP/1.1")).upgrades_to_websocket
    assert not head(request(*upgrade)).upgrades_to_websocket


def outcome(data: bytes) -> RequestHead | NeedMore | int:
    try:
        return parse_request_head(data)
    except HeadError as error:
        return error.status


FRAGMENTS = st.sampled_from(
    [
        b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"GET / HTTP/1.0", b"PRI * HTTP/2.0", b"\r\n", b"\r\n\r\n",
        b"\n", b"\r",
        b"host: x", b"content-length: 5", b"transfer-encoding: chunked", b"connection: close", b": ", b" ", b"\0",
        b"expect: 100-continue", b"x" * 50, b"\x16\x03\x01", b"\xff",
    ]
)  # fmt: skip
MESSAGES = st.one_of(
    st.binary(max_size=200),
    st.lists(FRAGMENTS | st.binary(max_size=4), max_size=14).map(b"".join),
    st.lists(FRAGMENTS | st.binary(max_size=4), max_size=5).map(
        lambda lines: b"\r\n".join([*lines, b"", b""])
    ),
    st.lists(FRAGMENTS, max_size=6).map(lambda lines: request(*lines)),
)


@pytest.mark.attack("parser")
@given(MESSAGES)
def test_any_bytes_are_a_head_or_more_is_needed_or_they_are_refused(data: bytes) -> None:
    assert isinstance(outcome(data), RequestHead | NeedMore | int)


@pytest.mark.attack("parser")
@given(MESSAGES, st.data())
def test_a_head_cut_anywhere_comes_to_the_same(data: bytes, draw: st.DataObject) -> None:
    whole = outcome(data)
    cut = draw.draw(st.integers(0, len(data)))
    first = outcome(data[:cut])
    if not isinstance(first, NeedMore):
        assert first == whole


# --- responses ---


def response(data: bytes, method: str = "GET") -> ResponseHead:
    parsed = parse_response_head(data, method)
    assert isinstance(parsed, ResponseHead)
    return parsed


def test_a_response_ends_by_length_chunks_or_the_connection() -> None:
    assert response(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n").framing is Framing.LENGTH
    assert response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").framing is Framing.CHUNKED
    until_close = response(b"HTTP/1.1 200 OK\r\n\r\n")
    assert until_close.framing is Framing.UNTIL_CLOSE
    assert not until_close.keep_alive


def test_some_responses_have_no_body_whatever_their_headers_say() -> None:
    data = b"HTTP/1.1 %d X\r\ncontent-length: 3\r\n\r\n"
    for status in (100, 204, 304):
        assert response(data % status).framing is Framing.NONE
    to_head = response(data % 200, "HEAD")
    assert (to_head.framing, to_head.content_length) == (Framing.NONE, 3)


@pytest.mark.attack("engine")
@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\na: b\n\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 300 + b"\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
def test_a_response_that_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        parse_response_head(data, "GET")
    assert caught.value.status == 502


@pytest.mark.attack("parser")
@given(
    st.binary(max_size=200)
    | st.binary(max_size=60).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail + b"\r\n\r\n")
)
def test_any_bytes_as_a_response_are_a_head_or_refused(data: bytes) -> None:
    try:
        assert isinstance(parse_response_head(data, "GET"), ResponseHead | NeedMore)
    except HeadError as error:
        assert error.status == 502


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize("line", [b"a b: c", b"x-one : 1", b"x-one: 1\r", b"x-one: \x00", b": c"])
def test_a_line_that_was_refused_is_refused_again(line: bytes) -> None:
    """Lines are remembered; what stands beside a good one, or came before, makes no bad one good."""
    good = b"GET / HTTP/1.1\r\nhost: a\r\nx-one: 1\r\n"
    for _ in range(2):
        assert isinstance(parse_request_head(good + b"\r\n"), RequestHead)
        with pytest.raises(HeadError) as caught:
            parse_request_head(good + line + b"\r\n\r\n")
        assert caught.value.status == 400
