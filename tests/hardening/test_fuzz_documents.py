"""Documents, heads of callers and answers of hubs: whatever is in them is a value of ours or one of our errors."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.api.request import Query
from gpustack.api.resource import all_routes
from gpustack.api.route import ApiRoute, read_document
from gpustack.artifacts.listing import RemoteFile, choose, safe_name
from gpustack.artifacts.range_request import SourceChanged, TransientError, first_byte, refusal
from gpustack.domain.artifact import ModelSource
from gpustack.domain.document import decode
from gpustack.domain.facts import ModelFacts
from gpustack.domain.worker import WorkerStatus
from gpustack.errors import GpustackError
from gpustack.identity.credentials import Credentials
from gpustack.identity.keys import is_token, parse
from gpustack.metrics.engine_sample import raw_families, read_pages
from gpustack.metrics.scrape import ScrapeResult, ScrapeTarget
from gpustack.remote.http import StreamedResponse

from .fuzzing import fuzz

pytestmark = pytest.mark.attack("parser")

BODIES = [route for route in all_routes() if route.body is not None]
LEAVES = (
    st.none()
    | st.booleans()
    | st.sampled_from(
        [0, -1, 2**31, 2**63, 2**64 - 1, -(2**63) - 1, 1.5, 1e308, "", "x", "1", "true", "\x00", "\n",
         "\x1b[2J", "../..",
         "a" * 5000, "\u202e", "2026-01-31T08:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "١"]
    )
    | st.text(max_size=8)
)  # fmt: skip


def properties(route: ApiRoute) -> list[str]:
    """The names of fields that anything in its body may have."""
    parts: dict[str, Any] = {}
    assert route.body is not None
    found: list[str] = []
    for schema in (route.body.schema(parts), *parts.values()):
        found += list(schema.get("properties", ()))
    return found or ["x"]


@pytest.mark.parametrize("route", BODIES, ids=lambda route: f"{route.method}-{route.path}")
@fuzz(40)
@given(data=st.data())
def test_any_json_is_the_body_of_a_route_or_its_faults_are_told(route: ApiRoute, data: st.DataObject) -> None:
    names = st.sampled_from(properties(route)) | st.text(max_size=3)
    inner = st.recursive(
        LEAVES,
        lambda part: st.lists(part, max_size=3) | st.dictionaries(names, part, max_size=4),
        max_leaves=8,
    )
    value = data.draw(st.dictionaries(names, inner, max_size=8) | inner)
    assert route.body is not None
    try:
        read_document(json.dumps(value).encode(), route.body)
    except GpustackError as error:
        assert str(error)


@fuzz(200)
@given(
    st.binary(max_size=60)
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 5000, b"1" * 5000, b'"\\ud800"', b"NaN"])
)
def test_any_bytes_are_a_document_of_ours_or_refused(raw: bytes) -> None:
    for cls in (ModelSource, ModelFacts, WorkerStatus):
        try:
            decode(raw, cls)
        except GpustackError as error:
            assert str(error)


@fuzz(200)
@given(st.dictionaries(st.sampled_from(["devices", "gpu_devices", "memory", "cpu", "filesystem", "total",
"used", "kind",
    "local_path", "weights", "vram", "name", "index", "uuid"]), st.recursive(LEAVES,
    lambda part: st.lists(part, max_size=2)
    | st.dictionaries(st.sampled_from(["total", "used", "name", "memory", "index"]), part, max_size=3),
    max_leaves=6)))  # fmt: skip
def test_what_a_machine_says_of_itself_is_a_status_or_refused(document: dict[str, Any]) -> None:
    for cls in (ModelSource, ModelFacts, WorkerStatus):
        try:
            decode(json.dumps(document).encode(), cls)
        except GpustackError as error:
            assert str(error)


HEADERS = st.binary(max_size=80) | st.sampled_from(
    [b"Basic " + b"=" * 40, b"Basic YTpi", b"Basic \xff", b"Bearer gpustack_" + b"0" * 300,
     b"Bearer gpustack_worker_0_x",
     b"bearer", b"Bearer ", b"gpustack_session=" + b"x" * 5000, b"gpustack_session=;gpustack_session=a",
     b"[::1", b"[::1]:99999",
     b"localhost:", b"127.0.0.1:x", b"http://[::1", b"null", b"\xe2\x84\xaa", b"a" * 9000, b"[v1.x]",
     b"http://a@b", b"[fe80::1%0]"]
)  # fmt: skip


@fuzz(300)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                b"authorization",
                b"cookie",
                b"host",
                b"origin",
                b"sec-fetch-site",
                b"content-type",
                b"forwarded",
            ]
        ),
        HEADERS,
    ),
    st.sampled_from(["127.0.0.1", "::1", "unix", "", "10.0.0.1", "::ffff:127.0.0.1", "fe80::1%eth0", None]),
    st.sampled_from(["GET", "POST", "get", "X"]),
)
def test_whoever_calls_can_be_looked_at(head: dict[bytes, bytes], peer: str | None, method: str) -> None:
    """And nobody is taken for this machine who says by a header that somebody else asks."""
    seen = Credentials.read(head.get, head, peer, method)
    assert seen.basic is None or len(seen.basic) == 2
    if seen.bearer is not None:
        parse(seen.bearer)
        is_token(seen.bearer, "a-token")
    assert seen.may_be_another_site in (True, False)
    if seen.is_from_this_machine:
        assert b"forwarded" not in head
        assert peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1")


QUERIES = st.text(alphabet="&=%+;[]0aF\x00é-._~", max_size=40) | st.sampled_from(
    ["&" * 5000, "a=1&" * 5000, "page=" + "9" * 5000, "perPage=-1", "page=%D9%A1", "watch=maybe",
     "sort_by=,,-", "%ff=%ff"]
)  # fmt: skip


@fuzz(200)
@given(QUERIES)
def test_any_query_is_read_or_refused(raw: str) -> None:
    try:
        query = Query.of(raw)
        query.flag("watch")
        query.whole("page", 1, least=1)
        query.many("a")
    except GpustackError as error:
        assert str(error)


NAMES = st.text(alphabet="ab/.\\-0123456789of\x00\n\x7fü", max_size=30) | st.sampled_from(
    ["../x.gguf", "/x.gguf", "a//b.gguf", "a/./b.gguf", "a/../b.gguf", "C:\\x.gguf", "a-00001-of-99999.gguf", ".gguf",
     "a-٠٠٠٠١-of-٠٠٠٠٢.gguf", "x" * 2000 + ".gguf", "mmproj.gguf", "a-00001-of-00002.gguf",
     "a-00002-of-00002.gguf", "b.GGUF"]
)  # fmt: skip


@pytest.mark.attack("traversal")
@fuzz(300)
@given(
    st.lists(NAMES, max_size=6),
    st.sampled_from([None, "*", "*.gguf", "[", "[a", "**/*", "a*a*a*a*a*b", "../*"]),
)
def test_no_name_of_a_file_leads_out_of_its_folder(names: list[str], pattern: str | None) -> None:
    for name in names:
        try:
            kept = safe_name(name)
        except GpustackError:
            continue
        assert not kept.startswith("/") and "\\" not in kept and "\0" not in kept and "\n" not in kept
        assert not {"", ".", ".."} & set(kept.split("/"))
    try:
        assert set(choose(names, pattern, place="here")) <= set(names)
    except GpustackError as error:
        assert str(error)


def answer(status: int, headers: dict[str, str]) -> StreamedResponse:
    return StreamedResponse(
        url="http://hub.test/a", status=status, headers=headers, response=httpx.Response(status), body=None
    )


VALUES = st.text(alphabet="bytes 0123456789-/*,:ü", max_size=24) | st.sampled_from(
    ["bytes 0-0/" + "9" * 5000, "bytes 5-9/100", "bytes */100", "-1", "9" * 5000, "1e9", "inf", "nan", "٣",
     "Wed, 21 Oct 2015 07:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359",
     "0 0 0 0", ","]
)  # fmt: skip


@pytest.mark.attack("hub")
@fuzz(300)
@given(st.sampled_from([200, 206, 401, 404, 416, 429, 500, 503, 599, 302]), VALUES, VALUES, VALUES)
def test_an_answer_of_a_hub_is_a_range_or_a_fault_with_a_name(
    status: int, content_range: str, length: str, retry: str
) -> None:
    file = RemoteFile(name="a.gguf", size=100, url="http://hub.test/a")
    said = answer(
        status,
        {
            "content-range": content_range,
            "content-length": length,
            "retry-after": retry,
            "date": content_range,
        },
    )
    with contextlib.suppress(GpustackError, SourceChanged):
        assert first_byte(said, file, 5, 9) in (0, 5)
    fault = refusal(said, file)
    assert isinstance(fault, GpustackError | SourceChanged | TransientError)
    if isinstance(fault, TransientError) and fault.wait is not None:
        assert 0 <= fault.wait < 1e12


TEXT = st.lists(
    st.sampled_from(
        ["# TYPE a gauge", "# TYPE a counter", "# HELP a x", "a 1", "a{b=\"c\"} 2", "a{b=\"", "a{", "}", "\n",
         "\\", "1e999", "NaN",
         "# EOF", "a{b=\"\\\\\"} 1 1", "a_bucket{le=\"x\"} 1", "\x00", "a{b=\"c\",b=\"d\"} 1", "#", "a{,} 1",
         "{} 1", "a 0x1"]
    ),
    max_size=12,
).map("\n".join)  # fmt: skip


@pytest.mark.attack("engine")
@fuzz(300)
@given(TEXT | st.text(max_size=60))
def test_what_engines_say_of_themselves_is_read_or_left_out(text: str) -> None:
    target = ScrapeTarget(
        worker_id=1, worker_name="w", model_id=1, model_name="m", instance_id=1, instance_name="m-0",
        runtime="vllm", port=1,
    )  # fmt: skip
    raw_families(read_pages([ScrapeResult(target, text.encode("utf-8", "surrogatepass"))]))
