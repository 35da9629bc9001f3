"""Counts the inference requests that pass through the gateway: a few dictionary look-ups per request, no lock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import attrs

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Of the buckets of the time to the first byte, in seconds."""


@attrs.frozen
class Histogram:
    """The number of values in each bucket; ``counts`` has one entry more than ``bounds``, for larger values."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float
    """The sum of the values."""


@attrs.frozen
class RequestLabels:
    """The labels of one count. ``model_id`` is ``None`` if no model of the requested name is deployed."""

    model_id: int | None
    route: str
    status: int


class Progress(Protocol):
    """Sees an answer pass."""

    def so_far(self) -> int:
        """The tokens of the answer until now, about; 0 where that is told only at its end."""


@attrs.frozen
class ModelTraffic:
    """What was counted of one model since the start; the answers that are under way are in it as far as they are."""

    answers: int = 0
    prompt: int = 0
    completion: int = 0
    in_flight: int = 0


@attrs.define(eq=False)
class RequestMeasurement:
    """What is measured of one request. Times are of ``time.monotonic``, ``prompt`` and ``completion`` in tokens."""

    began: float
    """When its head was received."""
    model_id: int | None = None
    """Set once the requested model is known."""
    first_byte: float | None = None
    """When the head of the answer was sent."""
    prompt: int = 0
    completion: int = 0
    progress: Progress | None = None
    """Set once an answer comes."""


@attrs.frozen(kw_only=True)
class TrafficCounts:
    """A copy of all counts since the start of the server."""

    requests: Mapping[RequestLabels, int] = attrs.field(factory=dict)
    first_byte: Mapping[int, Histogram] = attrs.field(factory=dict)
    """By model id."""
    tokens: Mapping[tuple[int, str], int] = attrs.field(factory=dict)
    """By model id, and ``prompt`` or ``completion``."""
    refused: Mapping[tuple[str, str], int] = attrs.field(factory=dict)
    """By the kind of subject whose limit it was (``key``, ``user``, ``model``), and the limit."""


@attrs.define
class _HistogramCounts:
    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


@attrs.define(eq=False, repr=False)
class Traffic:
    """Owner of the counts. Call it in the Trio thread only."""

    _requests: dict[tuple[int | None, str, int], int] = attrs.field(factory=dict)
    """By the fields of ``RequestLabels``; as a tuple, which is cheaper per request."""
    _waited: dict[int, _HistogramCounts] = attrs.field(factory=dict)
    _tokens: dict[tuple[int, str], int] = attrs.field(factory=dict)
    _refused: dict[tuple[str, str], int] = attrs.field(factory=dict)
    _asked: set[int] = attrs.field(factory=set)
    """Models of which a request has ended since ``changed_models`` was called last."""

    def passed(self, passage: RequestMeasurement, route: str, status: int) -> None:
        """Count a request that has ended, in whatever way."""
        key = (passage.model_id, route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        if passage.model_id is None:
            return
        self._asked.add(passage.model_id)
        if passage.first_byte is not None:
            self._note_wait(passage.model_id, passage.first_byte - passage.began)
        for kind, count in (("prompt", passage.prompt), ("completion", passage.completion)):
            if count:
                used = (passage.model_id, kind)
                self._tokens[used] = self._tokens.get(used, 0) + count

    def refuse(self, of: str, limit: str) -> None:
        """Count a request that a limit refused."""
        self._refused[of, limit] = self._refused.get((of, limit), 0) + 1

    def _note_wait(self, model_id: int, seconds: float) -> None:
        waited = self._waited.get(model_id)
        if waited is None:
            waited = self._waited[model_id] = _HistogramCounts()
        waited.counts[bisect_left(BOUNDS, seconds)] += 1
        waited.total += seconds

    def changed_models(self, under_way: Iterable[RequestMeasurement]) -> dict[int, ModelTraffic]:
        """What was counted of each model of which a request is under way, or has ended since the last call."""
        begun: dict[int, list[int]] = {}
        for request in under_way:
            if request.model_id is not None and request.progress is not None:
                mine = begun.setdefault(request.model_id, [0, 0])
                mine[0] += 1
                mine[1] += request.progress.so_far()
        made, asked, self._asked = {}, self._asked, set()
        for key in asked | begun.keys():
            waited, (in_flight, written) = self._waited.get(key), begun.get(key, (0, 0))
            made[key] = ModelTraffic(
                answers=0 if waited is None else sum(waited.counts),
                prompt=self._tokens.get((key, "prompt"), 0),
                completion=self._tokens.get((key, "completion"), 0) + written,
                in_flight=in_flight,
            )
        return made

    def forget_all_but(self, model_ids: frozenset[int]) -> None:
        """Models that are gone are not counted for any more."""
        self._requests = {
            key: count for key, count in self._requests.items() if key[0] is None or key[0] in model_ids
        }
        self._waited = {key: waited for key, waited in self._waited.items() if key in model_ids}
        self._tokens = {key: count for key, count in self._tokens.items() if key[0] in model_ids}

    def seen(self) -> TrafficCounts:
        """A copy of the counts."""
        return TrafficCounts(
            requests={RequestLabels(*key): count for key, count in self._requests.items()},
            first_byte={
                key: Histogram(BOUNDS, tuple(waited.counts), waited.total)
                for key, waited in self._waited.items()
            },
            tokens=dict(self._tokens),
            refused=dict(self._refused),
        )

    def __repr__(self) -> str:
        return f"<Traffic: {sum(self._requests.values())} requests>"
