"""Pages of an exporter, read back by the library that scrapers use."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from gpustack.metrics.registry import METRICS
from gpustack.metrics.render import PageFormat, render

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(page: bytes) -> Series:
    """Every series of a text page with its value; a series told twice is a failure."""
    found: Series = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"told twice: {key}"
            found[key] = sample.value
    return found


def shown(families: Iterable[Family], *, openmetrics: bool = True) -> Series:
    """The series a scraper would see; the page must be good OpenMetrics too."""
    given = list(families)
    if openmetrics:
        strict = openmetrics_families(render(given, PageFormat(openmetrics=True)).decode())  # type: ignore[no-untyped-call]
        assert {s.name for family in strict for s in family.samples} == {
            s.name for family in given for s in family.samples
        }
    return series(render(given, PageFormat()))


def value(found: Series, name: str, /, **labels: str) -> float | None:
    """The one series of that name with these labels and perhaps others; ``None`` if there is none."""
    fitting = [
        number
        for (named, own), number in found.items()
        if named == name and labels.items() <= dict(own).items()
    ]
    assert len(fitting) <= 1, f"{name} {labels}: {len(fitting)} series"
    return fitting[0] if fitting else None


def check_declared(found: Series) -> None:
    """Each series is of a declared metric, with all of its labels in the case of ours."""
    declared = {metric.name: metric for metric in METRICS}
    for name, labels in found:
        metric = declared.get(name) or declared[name.rpartition("_")[0]]
        assert set(metric.labels) <= {key for key, _ in labels}, name
