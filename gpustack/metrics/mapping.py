"""Which family of an engine is shown under which name of ours: by default, and as an administrator wants it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.engines.registry import engines
from gpustack.errors import Invalid

from .foreign import FOREIGN
from .registry import METRICS, REQUESTS_RUNNING, Metric, MetricKind, MetricScope

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}")
_PART = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*([0-9]+(?:\.[0-9]+)*)\s*")
_MOST = 1000
"""Entries of any one table."""
_LONGEST_HELP = 500
_ANY = "*"
_CUSTOM = "custom"
_TAKEN = frozenset(metric.family for metric in METRICS if metric.scope is not MetricScope.RUNTIME)
_LABELS = REQUESTS_RUNNING.labels
_KINDS = {kind.value: kind for kind in MetricKind}


@attrs.frozen(kw_only=True)
class MetricMap:
    """``ranges`` holds for each runtime and version range which family becomes which of ``metrics``."""

    metrics: Mapping[str, Metric]
    ranges: Mapping[str, Mapping[str, Mapping[str, str]]]

    def of(self, runtime: str, version: str | None) -> dict[str, Metric]:
        """The families of that runtime: what holds for any version, and over it the first range that fits.

        What the range has a source for is not looked for under another name as well.
        """
        ranges = self.ranges.get(runtime, {})
        fitting = (mapped for text, mapped in ranges.items() if text != _ANY and _fits(version, text))
        special = next(fitting, {})
        targets = set(special.values())
        chosen = {source: target for source, target in ranges.get(_ANY, {}).items() if target not in targets}
        chosen.update(special)
        return {_bare(source): self.metrics[target] for source, target in chosen.items()}

    def document(self) -> dict[str, Any]:
        """As the API and the file have it (behaviour.md s.6.5)."""
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
    """What engines say of themselves."""
    metrics = {metric.family: metric for metric in METRICS if metric.scope is MetricScope.RUNTIME}
    ranges: dict[str, Mapping[str, Mapping[str, str]]] = dict(FOREIGN)
    for engine in engines():
        if engine.metrics:
            described = {_bare(source): target for source, target in engine.metrics.items()}
            ranges[engine.wire_name] = {**ranges.get(engine.wire_name, {}), _ANY: described}
    # A command of the user's may run any of them; names that tell their engine cannot be mistaken.
    told = {
        source: target
        for found in list(ranges.values())
        for mapped in found.values()
        for source, target in mapped.items()
        if ":" in source
    }
    return MetricMap(metrics=metrics, ranges={**ranges, _CUSTOM: {_ANY: told}})


def read_map(document: object) -> MetricMap:
    """Read what an administrator wants; raises ``Invalid`` with every fault."""
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
    """Counters are known by their family, with or without what it is written with."""
    return name.removesuffix("_total")


def _parts(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The comparisons of a version range; none if it is not one."""
    found = [_PART.fullmatch(part) for part in text.split(",")]
    if any(part is None for part in found):
        return []
    return [(part[1], _numbers(part[2])) for part in found if part]


def _fits(version: str | None, text: str) -> bool:
    """Whether a version lies in a range; one that is not known lies in none."""
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
