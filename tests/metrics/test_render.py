"""A page is written in the format that the scraper asks for; nothing it sends can make there be more of them."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.metrics.family import Samples
from gpustack.metrics.registry import IN_FLIGHT, REQUESTS
from gpustack.metrics.render import PageFormat, format_of, render

PROMETHEUS_2 = (
    b"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    b"text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    b"application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    b"text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "encoding", "expected"),
    [
        (None, None, PageFormat()),
        (PROMETHEUS_2, b"gzip", PageFormat(openmetrics=True, gzip=True)),
        (PROMETHEUS_3, b"gzip", PageFormat(openmetrics=True, gzip=True)),
        (b"text/html,*/*", b"gzip, deflate, br", PageFormat(gzip=True)),
        (b"application/openmetrics-text; version=2.0.0", b"identity", PageFormat()),
        (b"*/*", b"gzip;q=0", PageFormat()),
        (b"*/*", b"gzip; q=0.5", PageFormat(gzip=True)),
    ],
)
def test_the_format_is_what_the_scraper_understands_best(
    accept: bytes | None, encoding: bytes | None, expected: PageFormat
) -> None:
    assert format_of(accept, encoding) == expected


@pytest.mark.attack("parser")
@given(st.binary(), st.binary())
def test_any_header_is_one_of_four_formats(accept: bytes, encoding: bytes) -> None:
    assert format_of(accept, encoding) in {PageFormat(a, b) for a in (True, False) for b in (True, False)}


def test_both_formats_say_the_same_and_are_labelled_as_what_they_are() -> None:
    samples = Samples()
    samples.add(IN_FLIGHT, ("1", "default"), 3)
    samples.add(REQUESTS, ("1", "default", 1, "m", "/v1/completions", 200), 2)
    text = render(samples.families, PageFormat()).decode()
    strict = render(samples.families, PageFormat(openmetrics=True)).decode()
    assert "# TYPE gpustack:gateway_requests_total counter\n" in text
    assert "# TYPE gpustack:gateway_requests counter\n" in strict
    assert strict.endswith("# EOF\n")
    line = 'gpustack:gateway_requests_in_flight{cluster_id="1",cluster_name="default"} 3.0\n'
    assert line in text and line in strict
    assert (b"content-type", b"text/plain; version=0.0.4; charset=utf-8") in PageFormat().headers
    assert gzip.decompress(render(samples.families, PageFormat(gzip=True))).decode() == text
    assert (b"content-encoding", b"gzip") in PageFormat(gzip=True).headers


def test_numbers_that_are_none_are_written_as_prometheus_reads_them() -> None:
    samples = Samples()
    for route, number in (("a", float("inf")), ("b", float("-inf")), ("c", float("nan")), ("d", 1e21)):
        samples.add(REQUESTS, ("1", "default", 1, "m", route, 200), number)
    page = render(samples.families, PageFormat()).decode()
    assert [line.rsplit(" ", 1)[1] for line in page.splitlines()[2:]] == ["+Inf", "-Inf", "NaN", "1e+21"]
