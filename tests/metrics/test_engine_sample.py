"""What engines say comes out under our names, with whose it is, and never so that a scraper refuses the page."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric as Family

from gpustack.metrics.engine_sample import raw_families, read_pages, unify
from gpustack.metrics.family import Samples
from gpustack.metrics.mapping import default_map
from gpustack.metrics.scrape import ScrapeResult, ScrapeTarget

from .page import check_declared, shown, value

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="/models/x"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="/models/x"} 0.25
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="/models/x"} 1234.0
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="/models/x"} 1.7e+09
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="/models/x"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="/models/x"} 1.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="/models/x"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="/models/x"} 6.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="/models/x"} 6.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="/models/x"} 1.5
# TYPE vllm:something_else gauge
vllm:something_else 1.0
"""


def target(number: int = 1, runtime: str = "vllm", **more: Any) -> ScrapeTarget:
    return ScrapeTarget(
        worker_id=7,
        worker_name="w7",
        model_id=3,
        model_name="m3",
        instance_id=number,
        instance_name=f"m3-{number}",
        runtime=runtime,
        port=40000 + number,
        **more,
    )


def unified(*scraped: ScrapeResult) -> list[Family]:
    samples = Samples()
    unify(read_pages(scraped), default_map(), samples)
    return samples.families


def test_each_kind_of_metric_comes_out_under_our_name() -> None:
    found = shown(unified(ScrapeResult(target(), VLLM)))
    check_declared(found)
    whose = {"worker_id": "7", "worker_name": "w7", "model_id": "3", "model_name": "m3", "runtime": "vllm"}
    own = {**whose, "model_instance_id": "1", "model_instance_name": "m3-1"}
    assert value(found, "gpustack:num_requests_running", **own) == 2
    assert value(found, "gpustack:kv_cache_usage_ratio", **own) == 0.25
    assert value(found, "gpustack:prompt_tokens_total", **own) == 1234
    assert value(found, "gpustack:request_success_total", finished_reason="stop", **own) == 5
    assert value(found, "gpustack:time_to_first_token_seconds_bucket", le="0.1", **own) == 3
    assert value(found, "gpustack:time_to_first_token_seconds_count", **own) == 6
    assert value(found, "gpustack:time_to_first_token_seconds_sum", **own) == 1.5
    assert value(found, "gpustack:worker_engine_metrics_up", **own) == 1
    assert not [name for name, _ in found if "something" in name or "created" in name]


LLAMA_CPP = b"""\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 83
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 161
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 84
"""


@pytest.mark.parametrize("runtime", ["llama-box", "custom"])
def test_prompt_tokens_out_of_a_cache_are_counted_whichever_engine_counts(runtime: str) -> None:
    """vLLM has them in; llama.cpp, also under a command of the user's, tells them apart."""
    found = shown(unified(ScrapeResult(target(1, runtime), LLAMA_CPP), ScrapeResult(target(2), VLLM)))
    check_declared(found)
    assert value(found, "gpustack:prompt_tokens_total", model_instance_id="1") == 83 + 161
    assert value(found, "gpustack:prefix_cache_hits_total", model_instance_id="1") == 161
    assert value(found, "gpustack:generation_tokens_total", model_instance_id="1") == 84
    assert value(found, "gpustack:prompt_tokens_total", model_instance_id="2") == 1234


def test_an_older_llama_cpp_that_tells_no_cached_tokens_is_shown_as_it_counts() -> None:
    page = LLAMA_CPP.replace(b"prompt_tokens_cached", b"other")
    found = shown(unified(ScrapeResult(target(1, "llama-box"), page)))
    assert value(found, "gpustack:prompt_tokens_total", model_instance_id="1") == 83


def test_labels_of_the_engine_are_kept_beside_ours() -> None:
    found = shown(unified(ScrapeResult(target(), VLLM)))
    labels = {"engine": "0", "exported_model_name": "/models/x", "model_name": "m3"}
    assert value(found, "gpustack:num_requests_running", **labels) == 2


def test_an_engine_that_fails_has_no_series_but_the_one_that_says_so() -> None:
    found = shown(
        unified(ScrapeResult(target(1), VLLM), ScrapeResult(target(2), None), ScrapeResult(target(3), b""))
    )
    failed = [name for name, labels in found if ("model_instance_name", "m3-2") in labels]
    assert failed == ["gpustack:worker_engine_metrics_up"]
    assert value(found, "gpustack:worker_engine_metrics_up", model_instance_name="m3-2") == 0
    # One that has no metrics has not failed.
    assert value(found, "gpustack:worker_engine_metrics_up", model_instance_name="m3-3") is None


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    "page", [b"a{b=", b'a{b="c} 1', b"{} {}", b"# TYPE\n# TYPE a\n", b"a one", b"\xff\xfe\x00", b'{"a": 1}']
)
def test_a_page_that_is_none_is_a_failure_and_spoils_nothing(page: bytes) -> None:
    found = shown(unified(ScrapeResult(target(1), page), ScrapeResult(target(2), VLLM)))
    assert value(found, "gpustack:num_requests_running", model_instance_name="m3-2") == 2


@pytest.mark.attack("parser")
@given(st.text())
def test_no_page_whatever_is_in_it_breaks_the_exporter(text: str) -> None:
    pages = (ScrapeResult(target(), text.encode("utf-8", "replace")),)
    unified(*pages)
    raw_families(read_pages(pages))


@pytest.mark.attack("engine")
def test_a_series_told_twice_is_shown_once() -> None:
    twice = b"# TYPE vllm:num_requests_running gauge\n" + b"vllm:num_requests_running 1\n" * 2
    found = shown(unified(ScrapeResult(target(), twice)))
    assert value(found, "gpustack:num_requests_running") == 1


@pytest.mark.attack("engine")
def test_a_family_of_another_kind_is_not_forced_into_ours() -> None:
    page = b"# TYPE vllm:time_to_first_token_seconds gauge\nvllm:time_to_first_token_seconds 3\n"
    assert [name for name, _ in shown(unified(ScrapeResult(target(), page)))] == [
        "gpustack:worker_engine_metrics_up"
    ]


def test_under_a_command_of_the_users_an_engine_is_known_by_its_names() -> None:
    found = shown(unified(ScrapeResult(target(runtime="custom"), VLLM)))
    assert value(found, "gpustack:num_requests_running", runtime="custom") == 2


def test_the_raw_page_has_everything_with_whose_it_is() -> None:
    pages = read_pages(
        [ScrapeResult(target(1), VLLM), ScrapeResult(target(2), VLLM), ScrapeResult(target(3), None)]
    )
    found = shown(raw_families(pages), openmetrics=False)
    for number in ("1", "2"):
        assert value(found, "vllm:something_else", model_instance_id=number, worker_name="w7") == 1
        assert value(found, "vllm:prompt_tokens_total", model_instance_id=number) == 1234


def test_engines_that_use_a_name_for_different_things_do_not_mix() -> None:
    other = b"# TYPE vllm:something_else summary\nvllm:something_else_count 4\n"
    pages = read_pages([ScrapeResult(target(1), VLLM), ScrapeResult(target(2), other)])
    found = shown(raw_families(pages), openmetrics=False)
    assert value(found, "vllm:something_else", model_instance_id="1") == 1
    assert value(found, "vllm:something_else_count", model_instance_id="2") is None
