"""Renders families as text: the plain Prometheus format or OpenMetrics, as the scraper asks."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable

import attrs
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

_OPENMETRICS = "application/openmetrics-text"
_OPENMETRICS_VERSIONS = frozenset({"", "0.0.1", "1.0.0"})


@attrs.frozen
class PageFormat:
    """How a page is written. There are four in all, so rendered pages can be cached by format."""

    openmetrics: bool = False
    gzip: bool = False

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        kind = (
            f"{_OPENMETRICS}; version=1.0.0; charset=utf-8"
            if self.openmetrics
            else "text/plain; version=0.0.4; charset=utf-8"
        )
        fields = [(b"content-type", kind.encode()), (b"vary", b"accept, accept-encoding")]
        return [*fields, (b"content-encoding", b"gzip")] if self.gzip else fields


def format_of(accept: bytes | None, accept_encoding: bytes | None) -> PageFormat:
    """The format that the headers of a request ask for; plain text if in doubt."""
    wanted = any(_is_openmetrics(one) for one in (accept or b"").decode("latin-1").lower().split(","))
    zipped = any(
        one.split(b";")[0].strip() == b"gzip" and one.replace(b" ", b"").partition(b";q=")[2] not in _ZERO
        for one in (accept_encoding or b"").lower().split(b",")
    )
    return PageFormat(wanted, zipped)


_ZERO = frozenset({b"0", b"0.0", b"0.00", b"0.000"})


def _is_openmetrics(accepted: str) -> bool:
    kind, *parameters = (part.strip() for part in accepted.split(";"))
    named = dict(part.partition("=")[::2] for part in parameters)
    return kind == _OPENMETRICS and named.get("version", "") in _OPENMETRICS_VERSIONS


_AS_TEXT = {"counter": ("_total", "counter"), "info": ("_info", "gauge"), "unknown": ("", "untyped")}
"""Types of OpenMetrics in the plain format: the suffix of the family's name, and the type there."""


def render(families: Iterable[Family], form: PageFormat) -> bytes:
    """The bytes of a page. Takes about 3 µs per sample: call it in a thread.

    Our own, because the OpenMetrics writer of prometheus-client replaces the colons in names.
    """
    lines: list[str] = []
    for family in families:
        end, kind = _AS_TEXT.get(family.type, ("", family.type))
        told = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        if form.openmetrics:
            end, kind, told = "", family.type, told.replace('"', r"\"")
        lines.append(f"# HELP {family.name}{end} {told}\n# TYPE {family.name}{end} {kind}\n")
        if form.openmetrics and family.unit:
            lines.append(f"# UNIT {family.name} {family.unit}\n")
        lines += [_line(sample) for sample in family.samples]
    if form.openmetrics:
        lines.append("# EOF\n")
    page = "".join(lines).encode("utf-8", "replace")
    return gzip.compress(page, compresslevel=1) if form.gzip else page


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
    number = _number(float(sample.value))
    return f"{sample.name}{{{labels}}} {number}\n" if labels else f"{sample.name} {number}\n"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
