"""Which family of an engine becomes which of ours: by default, by version, and as an administrator says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.engines.registry import engines
from gpustack.errors import Invalid
from gpustack.metrics.mapping import default_map, read_map

SMALL: dict[str, Any] = {
    "gpustack_metrics": {"gpustack:depth": {"type": "Gauge", "description": "How deep."}},
    "runtime_mapping": {"custom": {"*": {"mine:depth": "gpustack:depth"}}},
}


def targets(runtime: str, version: str | None = None) -> dict[str, str]:
    return {source: metric.family for source, metric in default_map().of(runtime, version).items()}


def test_every_engine_that_describes_its_metrics_is_in_the_default() -> None:
    described = [engine for engine in engines() if engine.metrics]
    assert described
    for engine in described:
        assert set(targets(engine.wire_name).values()) == set(engine.metrics.values())


@pytest.mark.parametrize(
    ("version", "source", "family"),
    [
        (None, "vllm:kv_cache_usage_perc", "gpustack:kv_cache_usage_ratio"),
        ("0.9.1", "vllm:gpu_cache_usage_perc", "gpustack:kv_cache_usage_ratio"),
        ("0.9.1", "vllm:gpu_prefix_cache_hits", "gpustack:prefix_cache_hits"),
        ("0.9.2", "vllm:prefix_cache_hits", "gpustack:prefix_cache_hits"),
        ("0.10.1", "vllm:time_per_output_token_seconds", "gpustack:time_per_output_token_seconds"),
        ("v0.10.2", "vllm:inter_token_latency_seconds", "gpustack:time_per_output_token_seconds"),
        ("0.32.0.post1", "vllm:inter_token_latency_seconds", "gpustack:time_per_output_token_seconds"),
    ],
)
def test_vllm_is_read_by_its_version(version: str | None, source: str, family: str) -> None:
    found = targets("vllm", version)
    assert found[source] == family
    assert list(found.values()).count(family) == 1


@pytest.mark.parametrize(
    ("runtime", "source", "family"),
    [
        ("sglang", "sglang:num_running_reqs", "gpustack:num_requests_running"),
        ("sglang", "sglang:token_usage", "gpustack:kv_cache_usage_ratio"),
        ("ascend-mindie", "npu_cache_usage_perc", "gpustack:kv_cache_usage_ratio"),
        ("llama-box", "llamacpp:requests_deferred", "gpustack:num_requests_waiting"),
        ("custom", "vllm:num_requests_waiting", "gpustack:num_requests_waiting"),
        ("custom", "sglang:num_queue_reqs", "gpustack:num_requests_waiting"),
    ],
)
def test_each_runtime_has_its_own_names(runtime: str, source: str, family: str) -> None:
    assert targets(runtime)[source] == family


def test_a_runtime_nobody_knows_has_no_metrics() -> None:
    assert targets("unheard-of") == {}


def test_what_is_shown_of_a_mapping_reads_back_as_the_same() -> None:
    document = json.loads(json.dumps(default_map().document()))
    assert read_map(document) == default_map()


def test_a_mapping_of_an_administrators_own_takes_the_place_of_the_default() -> None:
    mapping = read_map(SMALL)
    assert mapping.of("llama-box", None) == {}
    assert mapping.of("custom", None)["mine:depth"].help == "How deep."


def with_(**changes: Any) -> dict[str, Any]:
    return {**SMALL, **changes}


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ([], "the mapping: must be an object"),
        (with_(gpustack_metrics=[]), "gpustack_metrics: must be an object"),
        (with_(gpustack_metrics={"gpustack:depth": {"type": "Gouge"}}), "must be Gauge, Counter, Histogram"),
        (with_(gpustack_metrics={"gpustack:depth": {"type": "Info"}}), "must be Gauge, Counter, Histogram"),
        (with_(gpustack_metrics={"a b": {}}), "not a name that Prometheus takes"),
        (with_(gpustack_metrics={"a_total": {}}), "without _total"),
        (with_(gpustack_metrics={"gpustack:worker_status": {}}), "taken by a metric of GPUStack's own"),
        (with_(gpustack_metrics={"process_open_fds": {}}), "taken by a metric of GPUStack's own"),
        (with_(gpustack_metrics={"a": {"description": 1}}), "must be text"),
        (with_(runtime_mapping={"vllm": {"*": {"x": "gpustack:else"}}}), "is not one of gpustack_metrics"),
        (with_(runtime_mapping={"vllm": {"*": {"x": ["y"]}}}), "is not one of gpustack_metrics"),
        (with_(runtime_mapping={"vllm": {"lately": {}}}), "nor a version range"),
        (with_(runtime_mapping={"vllm": {">=1,lately": {}}}), "nor a version range"),
        (with_(runtime_mapping={"vllm": {"*": {"x\n": "gpustack:depth"}}}), "not a name that Prometheus"),
        (with_(runtime_mapping={"vllm": {"*": {f"x{n}": "gpustack:depth" for n in range(1001)}}}), "at most"),
    ],
)
def test_what_is_wrong_is_said(document: Any, fault: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_map(document)
    assert fault in str(caught.value)


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        read_map({"gpustack_metrics": {"a b": {}, "c d": {}}, "runtime_mapping": {"vllm": {"x": {}}}})
    assert len(caught.value.faults) == 3


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.attack("parser")
@given(_JSON, _JSON)
def test_any_json_is_read_or_refused(metrics: Any, mapping: Any) -> None:
    try:
        read = read_map({"gpustack_metrics": metrics, "runtime_mapping": mapping})
    except Invalid as fault:
        assert fault.faults
    else:
        assert read_map(read.document()) == read


@pytest.mark.attack("parser")
@given(st.text(), st.sampled_from(["<0.9.2", ">=0.10.2", "==1.0", "!=2"]))
def test_any_text_is_a_version_or_lies_in_no_range(version: str, text: str) -> None:
    mapping = read_map(with_(runtime_mapping={"vllm": {text: {"a": "gpustack:depth"}}}))
    assert set(mapping.of("vllm", version)) <= {"a"}
