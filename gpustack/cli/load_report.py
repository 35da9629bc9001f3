"""What a load test measured, in figures, and what it says of the limit that was met. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

GAIN = 1.10
"""A level that is not so much better than the best before it is no gain: repeated runs differ by some percent."""
_BUSY = 0.90
"""The share of one core from which on this program itself may be what is measured."""


@attrs.frozen(kw_only=True)
class Sample:
    """One request. Times in seconds; ``first`` is ``None`` where no token came, ``took`` where it did not end.

    ``tokens`` came in answer (counted by the engine, or as pieces where it does not count), ``fault`` is why it failed.
    """

    first: float | None = None
    took: float | None = None
    tokens: int = 0
    prompt_tokens: int | None = None
    fault: str | None = None


@attrs.frozen(kw_only=True)
class LoadLevel:
    """All requests of one level: ``concurrency`` at once for ``seconds``. ``busy`` is the share of a core that this
    program took."""

    concurrency: int
    seconds: float
    busy: float
    samples: Sequence[Sample]

    @property
    def done(self) -> list[Sample]:
        return [one for one in self.samples if one.took is not None and one.fault is None]

    @property
    def faults(self) -> Mapping[str, int]:
        return Counter(one.fault for one in self.samples if one.fault is not None)

    @property
    def requests_per_second(self) -> float:
        return len(self.done) / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return sum(one.tokens for one in self.samples if one.fault is None) / self.seconds

    def first_token(self, share: float) -> float | None:
        """So many of the requests (0.5 for half) had their first token within this time, in seconds."""
        return quantile([one.first for one in self.samples if one.first is not None], share)

    def latency(self, share: float) -> float | None:
        """The same for the whole answer."""
        return quantile([one.took for one in self.done if one.took is not None], share)

    def document(self) -> dict[str, Any]:
        """The figures for programs."""
        return {
            "concurrency": self.concurrency,
            "seconds": round(self.seconds, 3),
            "completed": len(self.done),
            "errors": dict(self.faults),
            "requests_per_second": round(self.requests_per_second, 3),
            "tokens_per_second": round(self.tokens_per_second, 2),
            "prompt_tokens": sum(one.prompt_tokens or 0 for one in self.done),
            "completion_tokens": sum(one.tokens for one in self.done),
            "first_token_seconds": self._quantiles(self.first_token),
            "latency_seconds": self._quantiles(self.latency),
        }

    def _quantiles(self, of: Any) -> dict[str, float | None]:
        found = {"p50": of(0.5), "p90": of(0.9), "p99": of(0.99)}
        return {name: None if value is None else round(value, 4) for name, value in found.items()}


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so large a share of the values does not exceed (nearest rank); ``None`` of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rate(level: LoadLevel) -> float:
    """What a level is compared by: tokens, or requests where answers have none."""
    return level.tokens_per_second or level.requests_per_second


def is_saturated(levels: Sequence[LoadLevel]) -> bool:
    """Whether the last two levels brought no gain over the best before them."""
    return len(levels) > 2 and max(map(rate, levels[-2:])) < GAIN * max(map(rate, levels[:-2]))


def limit_of(levels: Sequence[LoadLevel], replicas: int) -> dict[str, str]:
    """What limits the model here, as ``kind`` and a sentence."""
    if not levels:
        return _limit("unknown", "Nothing was measured")
    faults = Counter[str]()
    for level in levels:
        faults.update(level.faults)
    if limited := [fault for fault in faults if fault.startswith("429")]:
        return _limit(
            "limits",
            f"Limits on requests or tokens refuse some ({limited[0]}): gpustack limits shows and sets them",
        )
    if faults:
        fault, count = faults.most_common(1)[0]
        return _limit("errors", f"{sum(faults.values())} requests failed, {count} of them with: {fault}")
    if silent := [level for level in levels if not level.done]:
        spent = f"{silent[0].seconds:.0f} s"
        return _limit(
            "time",
            f"With {silent[0].concurrency} at once no answer was whole in {spent}: give more --seconds",
        )
    best = max(levels, key=rate)
    if best.busy > _BUSY or levels[-1].busy > _BUSY:
        return _limit(
            "client",
            "This command itself: it uses a whole core; measure from several machines, or with longer answers",
        )
    if len(levels) == 1:
        return _limit("unknown", "One level does not show it: name more with --concurrency")
    first_best = next(one for one in levels if rate(one) * GAIN > rate(best))
    if first_best is levels[-1]:
        return _limit(
            "none",
            f"No limit met: it is still faster with {best.concurrency} at once; --concurrency goes higher",
        )
    waits = _wait(first_best, levels[-1])
    engines = "The engine" if replicas == 1 else f"The {replicas} engines"
    return _limit(
        "engine",
        f"{engines}: more than {first_best.concurrency} at once bring nothing{waits}; more replicas (gpustack scale), "
        "a GPU that is faster, or more slots of the engine would",
    )


def _wait(at: LoadLevel, last: LoadLevel) -> str:
    before, after = at.first_token(0.5), last.first_token(0.5)
    if before is None or after is None or after <= before * GAIN:
        return ""
    return f", requests wait (first token after {duration(before)}, then {duration(after)})"


def _limit(kind: str, sentence: str) -> dict[str, str]:
    return {"kind": kind, "sentence": f"{sentence}."}


def duration(seconds: float | None) -> str:
    """``12 ms``, ``1.3 s``, or ``-``."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def bars(rows: Sequence[tuple[str, float, str]], width: int, *, utf8: bool) -> list[str]:
    """A line for each row: its name, a bar as long as its value is large, and what the value is in words. No line is
    longer than ``width``."""
    most = max((value for _, value, _ in rows), default=0.0)
    names = max((len(name) for name, _, _ in rows), default=0)
    room = max(1, width - names - 4 - max((len(told) for _, _, told in rows), default=0))
    lines = []
    for name, value, told in rows:
        eighths = 0 if most <= 0 else round(8 * room * value / most)
        full, part = divmod(eighths, 8)
        bar = "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "") if utf8 else "#" * round(eighths / 8)
        lines.append(f"{name:>{names}} |{bar} {told}")
    return lines
