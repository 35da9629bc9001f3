"""What is declared is well named, and only what is declared is exported."""

from __future__ import annotations

import re

import pytest

from gpustack.metrics.family import Samples
from gpustack.metrics.registry import METRICS, Metric, MetricKind, MetricScope


def test_names_are_unique_also_without_what_their_kind_appends() -> None:
    names, families = [m.name for m in METRICS], [m.family for m in METRICS]
    assert len(set(names)) == len(names)
    assert len(set(families)) == len(families)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_named_as_its_kind_wants(metric: Metric) -> None:
    assert re.fullmatch(r"gpustack:[a-z0-9_]+|process_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
    assert metric.name.endswith("_info") == (metric.kind is MetricKind.INFO)
    assert metric.help
    assert "|" not in metric.help  # it stands in a table
    assert len(set(metric.labels)) == len(metric.labels)
    assert "le" not in metric.labels


REQUIRED = """
cluster_info cluster_status worker_status model_info model_desired_instances model_running_instances
model_instance_status worker_node_os_info worker_node_kernel_info worker_node_uptime_seconds worker_node_cpu_cores
worker_node_cpu_utilization_rate worker_node_memory_total_bytes worker_node_memory_used_bytes
worker_node_memory_utilization_rate worker_node_gpu_info worker_node_gpu_cores worker_node_gpu_utilization_rate
worker_node_gpu_temperature_celsius worker_node_gram_total_bytes worker_node_gram_allocated_bytes
worker_node_gram_used_bytes worker_node_gram_utilization_rate worker_node_filesystem_total_bytes
worker_node_filesystem_used_bytes worker_node_filesystem_utilization_rate num_requests_running num_requests_waiting
num_requests_swapped prefix_cache_hit_rate kv_cache_usage_ratio prefix_cache_queries_total prefix_cache_hits_total
prompt_tokens_total generation_tokens_total request_prompt_tokens request_generation_tokens
time_to_first_token_seconds time_per_output_token_seconds e2e_request_latency_seconds request_success_total
"""


def test_every_metric_that_dashboards_for_gpustack_know_is_there() -> None:
    assert {f"gpustack:{name}" for name in REQUIRED.split()} <= {metric.name for metric in METRICS}


def test_a_value_that_is_unknown_is_left_out_and_zero_is_not() -> None:
    metric = Metric(name="gpustack:test", scope=MetricScope.SERVER, help="A test.", labels=("a",))
    samples = Samples()
    samples.add(metric, ("x",), None)
    samples.add(metric, ("y",), 0)
    (family,) = samples.families
    assert [sample.labels for sample in family.samples] == [{"a": "y"}]


def test_labels_are_all_given_or_it_is_a_mistake() -> None:
    metric = Metric(name="gpustack:test", scope=MetricScope.SERVER, help="A test.", labels=("a", "b"))
    with pytest.raises(ValueError, match="zip"):
        Samples().add(metric, ("x",), 1)
