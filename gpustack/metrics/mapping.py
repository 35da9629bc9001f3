"""Which metric family of an engine is exported under which name of ours: by default, and as an administrator says.

The default comes from ``engines/`` and from ``FOREIGN``, the tables of engines that have no description there but can
run under a custom command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.engines.registry import engines
from gpustack.errors import Invalid

from .registry import METRICS, REQUESTS_RUNNING, Metric, MetricKind, MetricScope

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}")
_PART = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*([0-9]+(?:\.[0-9]+)*)\s*")
_MOST = 1000
"""The most entries of a table."""
_LONGEST_HELP = 500
_ANY = "*"
_CUSTOM = "custom"
_TAKEN = frozenset(metric.family for metric in METRICS if metric.scope is not MetricScope.RUNTIME)
_LABELS = REQUESTS_RUNNING.labels
_KINDS = {kind.value: kind for kind in MetricKind}

RangeMap = Mapping[str, Mapping[str, str]]
"""Version range (``*`` is any version) → family of the engine → family of ours."""

_VLLM_SAME = (
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_swapped",
    "prompt_tokens",
    "generation_tokens",
    "request_prompt_tokens",
    "request_generation_tokens",
    "time_to_first_token_seconds",
    "time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_success",
)
_SGLANG_SAME = (
    "time_to_first_token_seconds",
    "time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "prompt_tokens",
    "generation_tokens",
)

VLLM: RangeMap = {
    "*": {
        **{f"vllm:{name}": f"gpustack:{name}" for name in _VLLM_SAME},
        # Counters: Prometheus computes the hit rate from the two.
        "vllm:prefix_cache_queries": "gpustack:prefix_cache_queries",
        "vllm:prefix_cache_hits": "gpustack:prefix_cache_hits",
        "vllm:kv_cache_usage_perc": "gpustack:kv_cache_usage_ratio",
    },
    "<0.9.2": {
        "vllm:gpu_prefix_cache_queries": "gpustack:prefix_cache_queries",
        "vllm:gpu_prefix_cache_hits": "gpustack:prefix_cache_hits",
        "vllm:gpu_cache_usage_perc": "gpustack:kv_cache_usage_ratio",
    },
    ">=0.10.2": {"vllm:inter_token_latency_seconds": "gpustack:time_per_output_token_seconds"},
}
SGLANG: RangeMap = {
    "*": {
        "sglang:num_running_reqs": "gpustack:num_requests_running",
        "sglang:num_queue_reqs": "gpustack:num_requests_waiting",
        "sglang:cache_hit_rate": "gpustack:prefix_cache_hit_rate",
        "sglang:token_usage": "gpustack:kv_cache_usage_ratio",
        "sglang:inter_token_latency_seconds": "gpustack:time_per_output_token_seconds",
        **{f"sglang:{name}": f"gpustack:{name}" for name in _SGLANG_SAME},
    }
}
MINDIE: RangeMap = {
    "*": {
        **{name: f"gpustack:{name}" for name in _VLLM_SAME},
        "npu_prefix_cache_hit_rate": "gpustack:prefix_cache_hit_rate",
        "npu_cache_usage_perc": "gpustack:kv_cache_usage_ratio",
    }
}

FOREIGN: Mapping[str, RangeMap] = {"vllm": VLLM, "sglang": SGLANG, "ascend-mindie": MINDIE}

COUNTED_APART: Mapping[str, str] = {"llamacpp:prompt_tokens": "llamacpp:prompt_tokens_cached"}
"""Counters that do not include what a second one counts; those of all other engines do, so the two are added."""


@attrs.frozen(kw_only=True)
class MetricMap:
    """``ranges`` says for each runtime and version range which family becomes which of ``metrics``."""

    metrics: Mapping[str, Metric]
    ranges: Mapping[str, Mapping[str, Mapping[str, str]]]

    def of(
        self, runtime: str, version: str | None, described: Mapping[str, str] | None = None
    ) -> dict[str, Metric]:
        """The families of an engine and our metrics for them.

        ``described`` is what the administrators' backend says that the engine is of, ``None`` if it is of none. It
        counts where the mapping has no such runtime; one that says nothing is read like a custom command.

        The first version range that fits overrides the entries for any version: a metric of ours that it maps is not
        taken from another family as well.
        """
        ranges = self.ranges.get(runtime, {})
        if described is not None and not ranges:
            ranges = {_ANY: described} if described else self.ranges.get(_CUSTOM, {})
        fitting = (mapped for text, mapped in ranges.items() if text != _ANY and _fits(version, text))
        special = next(fitting, {})
        targets = set(special.values())
        chosen = {source: target for source, target in ranges.get(_ANY, {}).items() if target not in targets}
        chosen.update(special)
        return {
            _bare(source): self.metrics[target] for source, target in chosen.items() if target in self.metrics
        }

    def document(self) -> dict[str, Any]:
        """The mapping as the API and the file write it."""
        return {
            "gpustack_metrics": {
                name: {"type": metric.kind.value.capitalize(), "description": metric.help}
                for name, metric in self.metrics.items()
            },
            "runtime_mapping": {
                runtime: {text: dict(mapped) for text, mapped in ranges.items()}
                for runtime, ranges in self.ranges.items()
            },
        }


def default_map() -> MetricMap:
    """The mapping without a file: what ``engines/`` and ``FOREIGN`` say."""
    metrics = {metric.family: metric for metric in METRICS if metric.scope is MetricScope.RUNTIME}
    ranges: dict[str, Mapping[str, Mapping[str, str]]] = dict(FOREIGN)
    for engine in engines():
        if engine.metrics:
            described = {_bare(source): target for source, target in engine.metrics.items()}
            ranges[engine.wire_name] = {**ranges.get(engine.wire_name, {}), _ANY: described}
    # A custom command may run any engine; a family with a prefix names its engine, so it can be mapped.
    told = {
        source: target
        for found in list(ranges.values())
        for mapped in found.values()
        for source, target in mapped.items()
        if ":" in source
    }
    return MetricMap(metrics=metrics, ranges={**ranges, _CUSTOM: {_ANY: told}})


def read_map(document: object) -> MetricMap:
    """Read the mapping of an administrator; raises Invalid with every fault."""
    faults: list[str] = []
    top = _table(document, "the mapping", faults)
    metrics: dict[str, Metric] = {}
    for name, described in _table(top.get("gpustack_metrics", {}), "gpustack_metrics", faults).items():
        metric = _metric(name, described, faults)
        if metric is not None:
            metrics[name] = metric
    ranges: dict[str, dict[str, dict[str, str]]] = {}
    for runtime, found in _table(top.get("runtime_mapping", {}), "runtime_mapping", faults).items():
        ranges[runtime] = {
            text: _targets(mapped, f"runtime_mapping.{runtime}.{text}", metrics, faults)
            for text, mapped in _table(found, f"runtime_mapping.{runtime}", faults).items()
        }
        faults += [
            f"runtime_mapping.{runtime}: {text!r} is neither * nor a version range such as >=0.9,<1"
            for text in ranges[runtime]
            if text != _ANY and not _parts(text)
        ]
    if faults:
        raise Invalid(*faults)
    return MetricMap(metrics=metrics, ranges=ranges)


def faults_of_names(mapped: Mapping[str, str], where: str) -> list[str]:
    """What is wrong with an engine's families → families of ours, a sentence each."""
    faults: list[str] = []
    _targets(dict(mapped), where, default_map().metrics, faults)
    return faults


def _metric(name: str, described: object, faults: list[str]) -> Metric | None:
    where = f"gpustack_metrics.{name}"
    fields = _table(described, where, faults)
    kind, help_ = fields.get("type", "Gauge"), fields.get("description", "")
    before = len(faults)
    if not _NAME.fullmatch(name):
        faults.append(f"{where}: is not a name that Prometheus takes")
    elif name.removesuffix("_total") != name:
        faults.append(f"{where}: name it without _total, which counters get by themselves")
    elif name in _TAKEN or name.startswith("process_"):
        faults.append(f"{where}: the name is taken by a metric of GPUStack's own")
    if not isinstance(kind, str) or kind.lower() not in _KINDS or kind.lower() == MetricKind.INFO:
        faults.append(f"{where}.type: must be Gauge, Counter, Histogram or Summary")
    if not isinstance(help_, str) or len(help_) > _LONGEST_HELP:
        faults.append(f"{where}.description: must be text of at most {_LONGEST_HELP} characters")
    if len(faults) > before or not isinstance(kind, str):
        return None
    found = _KINDS[kind.lower()]
    return Metric(
        name=f"{name}_total" if found is MetricKind.COUNTER else name,
        kind=found,
        scope=MetricScope.RUNTIME,
        help=str(help_) or name,
        labels=_LABELS,
    )


def _targets(value: object, where: str, metrics: Mapping[str, Metric], faults: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source, target in _table(value, where, faults).items():
        if not _NAME.fullmatch(source):
            faults.append(f"{where}: {source!r} is not a name that Prometheus takes")
        elif not isinstance(target, str) or target not in metrics:
            faults.append(f"{where}.{source}: {target!r} is not one of gpustack_metrics")
        else:
            found[source] = target
    return found


def _table(value: object, where: str, faults: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        faults.append(f"{where}: must be an object")
        return {}
    if len(value) > _MOST:
        faults.append(f"{where}: must have at most {_MOST} entries")
        return {}
    return value


def _bare(name: str) -> str:
    """The name of a family; counters may be written with or without ``_total``."""
    return name.removesuffix("_total")


def _parts(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The comparisons of a version range; empty if it is not one."""
    found = [_PART.fullmatch(part) for part in text.split(",")]
    if any(part is None for part in found):
        return []
    return [(part[1], _numbers(part[2])) for part in found if part]


def _fits(version: str | None, text: str) -> bool:
    """Whether a version lies in a range; an unknown version lies in none."""
    known = re.match(r"v?([0-9]+(?:\.[0-9]+)*)", version or "")
    if known is None:
        return False
    own, parts = _numbers(known[1]), _parts(text)
    return bool(parts) and all(_compare(own, sign, bound) for sign, bound in parts)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = [int(part) for part in text.split(".")[:8]]
    while numbers and numbers[-1] == 0:  # 1.0 is 1
        numbers.pop()
    return tuple(numbers)


def _compare(own: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    match sign:
        case "<":
            return own < bound
        case "<=":
            return own <= bound
        case ">":
            return own > bound
        case ">=":
            return own >= bound
        case "==":
            return own == bound
        case _:
            return own != bound
