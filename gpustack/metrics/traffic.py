"""Counts of inference as it passes through the gateway: a dictionary look-up a request, no lock."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import attrs

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds."""


@attrs.frozen
class Histogram:
    """How often values were at most each bound; ``counts`` has one entry more, for what was larger."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float
    """The sum of the values."""


@attrs.frozen
class RequestLabels:
    """One kind of answer. ``model_id`` is ``None`` where no model of the name asked for is deployed."""

    model_id: int | None
    route: str
    status: int


@attrs.define(eq=False)
class RequestMeasurement:
    """One request on its way through, and what is known of it so far. Instants are of the monotonic clock."""

    began: float
    """When its head was there."""
    model_id: int | None = None
    """Set once it is known which model it asks for."""
    first_byte: float | None = None
    """When the head of its answer went out."""
    prompt: int = 0
    completion: int = 0


@attrs.frozen(kw_only=True)
class TrafficCounts:
    """All counts at one moment, since the start of the server."""

    requests: Mapping[RequestLabels, int] = attrs.field(factory=dict)
    first_byte: Mapping[int, Histogram] = attrs.field(factory=dict)
    """By model id."""
    tokens: Mapping[tuple[int, str], int] = attrs.field(factory=dict)
    """By model id, and ``prompt`` or ``completion``."""
    refused: Mapping[tuple[str, str], int] = attrs.field(factory=dict)
    """By whose limit it was (``key``, ``user``, ``model``), and which."""


@attrs.define
class _HistogramCounts:
    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


@attrs.define(eq=False, repr=False)
class Traffic:
    """Owns the counts. Only from the Trio thread."""

    _requests: dict[tuple[int | None, str, int], int] = attrs.field(factory=dict)
    """By what ``RequestLabels`` says; a tuple costs a request less."""
    _waited: dict[int, _HistogramCounts] = attrs.field(factory=dict)
    _tokens: dict[tuple[int, str], int] = attrs.field(factory=dict)
    _refused: dict[tuple[str, str], int] = attrs.field(factory=dict)

    def passed(self, passage: RequestMeasurement, route: str, status: int) -> None:
        """A request has come to its end, whichever."""
        key = (passage.model_id, route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        if passage.model_id is None:
            return
        if passage.first_byte is not None:
            self._note_wait(passage.model_id, passage.first_byte - passage.began)
        for kind, count in (("prompt", passage.prompt), ("completion", passage.completion)):
            if count:
                used = (passage.model_id, kind)
                self._tokens[used] = self._tokens.get(used, 0) + count

    def refuse(self, of: str, limit: str) -> None:
        """A limit was in the way of a request."""
        self._refused[of, limit] = self._refused.get((of, limit), 0) + 1

    def _note_wait(self, model_id: int, seconds: float) -> None:
        waited = self._waited.get(model_id)
        if waited is None:
            waited = self._waited[model_id] = _HistogramCounts()
        waited.counts[bisect_left(BOUNDS, seconds)] += 1
        waited.total += seconds

    def forget_all_but(self, model_ids: frozenset[int]) -> None:
        """Models that are gone are not counted for any more."""
        self._requests = {
            key: count for key, count in self._requests.items() if key[0] is None or key[0] in model_ids
        }
        self._waited = {key: waited for key, waited in self._waited.items() if key in model_ids}
        self._tokens = {key: count for key, count in self._tokens.items() if key[0] in model_ids}

    def seen(self) -> TrafficCounts:
        """A copy, for whoever shows it."""
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
