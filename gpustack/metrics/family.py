"""The samples of one page, grouped by metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from prometheus_client.metrics_core import Metric as Family

from .registry import METRICS, Metric
from .traffic import Histogram


@attrs.define(eq=False)
class Samples:
    """Collects samples. Made anew for every page, so that what no longer exists is no longer exported."""

    _families: dict[Metric, Family] = attrs.field(factory=dict)

    def add(self, metric: Metric, labels: Sequence[object], value: float | None) -> None:
        """Add a value with its labels, in the order of the metric's; ``None`` (unknown) adds nothing."""
        if value is None:
            return
        named = self._named(metric, labels)
        self._family(metric).add_sample(metric.name, named, float(value))

    def distribution(self, metric: Metric, labels: Sequence[object], found: Histogram) -> None:
        """Add all samples of a histogram."""
        named, family, below = self._named(metric, labels), self._family(metric), 0
        for bound, count in zip((*found.bounds, float("inf")), found.counts, strict=True):
            below += count
            written = "+Inf" if bound == float("inf") else str(float(bound))
            family.add_sample(f"{metric.name}_bucket", {**named, "le": written}, below)
        family.add_sample(f"{metric.name}_count", named, below)
        family.add_sample(f"{metric.name}_sum", named, found.total)

    def sample(self, metric: Metric, suffix: str, labels: Mapping[str, str], value: float) -> None:
        """Add a sample of an engine, with labels of its own besides those of the metric."""
        self._family(metric).add_sample(metric.family + suffix, dict(labels), value)

    @property
    def families(self) -> list[Family]:
        """The families that have samples, in the order of the registry; those of administrators come last."""
        known = [metric for metric in METRICS if metric in self._families]
        others = sorted((m for m in self._families if m not in _KNOWN), key=lambda metric: metric.name)
        return [self._families[metric] for metric in (*known, *others)]

    def _family(self, metric: Metric) -> Family:
        found = self._families.get(metric)
        if found is None:
            found = Family(metric.family, metric.help, str(metric.kind), metric.unit)
            self._families[metric] = found
        return found

    @staticmethod
    def _named(metric: Metric, labels: Sequence[object]) -> dict[str, str]:
        return {name: str(value) for name, value in zip(metric.labels, labels, strict=True)}


_KNOWN = frozenset(METRICS)
