"""The metrics of engines: under our names and unchanged, each sample with the labels of its instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from . import registry
from .family import Samples
from .mapping import COUNTED_APART, MetricMap
from .registry import Metric, MetricKind
from .scrape import ScrapeResult, ScrapeTarget

_ANY_NUMBER = frozenset({"counter", "gauge", "unknown", "untyped"})
_FITTING = {
    MetricKind.COUNTER: (_ANY_NUMBER, {"": "_total", "_total": "_total"}),
    MetricKind.GAUGE: (_ANY_NUMBER, {"": "", "_total": ""}),
    MetricKind.HISTOGRAM: (
        frozenset({"histogram"}),
        {"_bucket": "_bucket", "_count": "_count", "_sum": "_sum"},
    ),
    MetricKind.SUMMARY: (frozenset({"summary"}), {"": "", "_count": "_count", "_sum": "_sum"}),
}
"""By our type: the types of an engine's family that fit it, and the suffixes of its samples → our suffixes."""
_BROKEN = (ValueError, IndexError, KeyError, TypeError)
"""What the parser of prometheus-client raises for invalid text; it has no exception of its own."""


@attrs.frozen
class EngineMetrics:
    """The answer of one engine; ``families`` is ``None`` if it did not answer, or could not be parsed."""

    target: ScrapeTarget
    families: Sequence[Family] | None


def read_pages(scraped: Iterable[ScrapeResult]) -> tuple[EngineMetrics, ...]:
    """Parse the answers of engines. Takes about 20 µs per line: call it in a thread."""
    return tuple(EngineMetrics(one.target, _read(one.page)) for one in scraped)


def unify(pages: Iterable[EngineMetrics], mapping: MetricMap, samples: Samples) -> None:
    """Add the samples that ``mapping`` has a name for."""
    for page in pages:
        if page.families != []:
            samples.add(registry.ENGINE_ANSWERED, page.target.labels, page.families is not None)
        own = _instance_labels(page.target)
        wanted = mapping.of(page.target.runtime, page.target.version, page.target.described)
        done: set[Metric] = set()
        by_name = {family.name.removesuffix("_total"): family for family in page.families or ()}
        for family in page.families or ():
            name = family.name.removesuffix("_total")
            metric = wanted.get(name)
            if metric is None or metric in done:
                continue
            done.add(metric)
            _add(metric, _with_second_counter(family, by_name.get(COUNTED_APART.get(name, ""))), own, samples)


def raw_families(pages: Iterable[EngineMetrics]) -> list[Family]:
    """All families unchanged, with the labels of the instance; where types of one name differ, the first one counts."""
    merged: dict[str, Family] = {}
    for page in pages:
        own = _instance_labels(page.target)
        for family in page.families or ():
            kept = merged.get(family.name)
            if kept is None:
                kept = merged[family.name] = Family(family.name, family.documentation, family.type)
            if kept.type == family.type:
                kept.samples += _labelled(family.samples, own)
    return list(merged.values())


def _read(page: bytes | None) -> Sequence[Family] | None:
    if page is None:
        return None
    try:
        return list(text_string_to_metric_families(page.decode("utf-8", "replace")))
    except _BROKEN:
        return None


def _with_second_counter(family: Family, apart: Family | None) -> Family:
    """A counter, with the values of its second counter (``COUNTED_APART``) added."""
    if apart is None or apart.type != family.type:
        return family
    more = {tuple(sorted(one.labels.items())): one.value for one in apart.samples}
    found = Family(family.name, family.documentation, family.type)
    found.samples = [
        Sample(one.name, one.labels, one.value + more.get(tuple(sorted(one.labels.items())), 0))
        for one in family.samples
    ]
    return found


def _add(metric: Metric, family: Family, own: Mapping[str, str], samples: Samples) -> None:
    kinds, ends = _FITTING[metric.kind]
    if family.type not in kinds:
        return
    fitting = [s for s in family.samples if s.name.removeprefix(family.name) in ends]
    for sample in _labelled(fitting, own):
        samples.sample(metric, ends[sample.name.removeprefix(family.name)], sample.labels, sample.value)


def _labelled(found: Iterable[Sample], own: Mapping[str, str]) -> list[Sample]:
    """The samples with the labels of the instance, each series once: a scraper rejects a page with duplicates."""
    kept: dict[tuple[object, ...], Sample] = {}
    for one in found:
        labels = _merged_labels(one.labels, own)
        kept.setdefault((one.name, *sorted(labels.items())), Sample(one.name, labels, one.value))
    return list(kept.values())


def _instance_labels(target: ScrapeTarget) -> dict[str, str]:
    values = (str(value) for value in target.labels)
    return dict(zip(registry.ENGINE_ANSWERED.labels, values, strict=True))


def _merged_labels(theirs: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Our labels and the engine's; those of the engine with a name of ours get ``exported_``, as in Prometheus."""
    return {
        **own,
        **{f"exported_{name}" if name in own else name: value for name, value in theirs.items()},
    }
