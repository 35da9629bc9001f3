"""How fast each model reads and writes now, worked out of what the gateway has counted: in memory, in no record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta

import attrs
import trio

from gpustack.metrics.traffic import ModelTraffic
from gpustack.nursery.ticker import ticks
from gpustack.store.load_board import SharedRate

SAMPLE_EVERY = 10.0
KEPT = 4
"""Samples: rates are means of the last half minute."""
_BELIEVED_FOR = 60.0
"""Seconds for which what another server said of its requests holds."""
_NOTHING = ModelTraffic()


@attrs.frozen
class ModelRate:
    """Tokens a second of all requests to one model, ``None`` where that is not known yet; when it was asked last,
    ``None`` where it was not since the servers started."""

    written: float | None = None
    """Of answers."""
    read: float | None = None
    """Of prompts; counted when their answer has ended."""
    used_at: datetime | None = None


@attrs.frozen
class _Told:
    """What another server said, when on our clock, and when the model was used."""

    at: float
    rate: ModelRate


@attrs.define(eq=False, repr=False)
class ModelRates:
    """Owns the samples of the gateway of this server, and what other servers told of theirs.

    Nothing is done for a request: every ``SAMPLE_EVERY`` seconds the counts are looked at of those models that were
    asked since the last look.
    """

    _monotonic: Callable[[], float]
    _now: Callable[[], datetime]
    _models: Callable[[], Collection[int]]
    """The ids of those that there are."""
    counted: Callable[[], Mapping[int, ModelTraffic]] = dict
    """What the gateway has counted of the models that were asked since the last call; set when there is a gateway."""
    _samples: deque[tuple[float, Mapping[int, ModelTraffic]]] = attrs.field(
        factory=lambda: deque(maxlen=KEPT)
    )
    _used: dict[int, datetime] = attrs.field(factory=dict)
    _told: dict[str, Mapping[int, _Told]] = attrs.field(factory=dict)
    """By the server that told it."""
    name: str = "model-rates"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async for _ in ticks(SAMPLE_EVERY):
            self.sample()

    def sample(self) -> None:
        """Look at what was counted. A model of which more was counted than before has been used."""
        changed, now = self.counted(), self._now()
        before = self._samples[-1][1] if self._samples else {}
        for key, count in changed.items():
            if count.in_flight or count != before.get(key, _NOTHING):
                self._used[key] = now
        counts = {**before, **changed}
        for gone in counts.keys() - set(self._models()):
            del counts[gone]
            self._used.pop(gone, None)
        self._samples.append((self._monotonic(), counts))

    def of(self, model_id: int) -> ModelRate:
        """The rate of a model at all servers together, as far as it is known."""
        rate, now = self._own(model_id), self._monotonic()
        for of_server in self._told.values():
            told = of_server.get(model_id)
            if told is not None:
                rate = _sum(rate, told.rate, fresh=now - told.at < _BELIEVED_FOR)
        return rate

    def _own(self, model_id: int) -> ModelRate:
        if len(self._samples) < 2:
            return ModelRate()
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        was, is_now = first.get(model_id, _NOTHING), last.get(model_id, _NOTHING)
        span = max(ended - began, 1e-3)
        # What an engine tells at the end may be less than the events that were counted on the way.
        return ModelRate(
            max(is_now.completion - was.completion, 0) / span,
            max(is_now.prompt - was.prompt, 0) / span,
            self._used.get(model_id),
        )

    def own(self) -> tuple[SharedRate, ...]:
        """The rates of all models that were used at this server, for the other servers."""
        now, rates = self._now(), {key: self._own(key) for key in sorted(self._used)}
        return tuple(
            SharedRate(
                model_id=key,
                written=rate.written,
                read=rate.read,
                used_ago=None if rate.used_at is None else (now - rate.used_at).total_seconds(),
            )
            for key, rate in rates.items()
            if rate.written is not None and rate.read is not None
        )

    def told_by(self, server_uuid: str, rates: Iterable[SharedRate], ago: float) -> None:
        """Another server told its rates, ``ago`` seconds ago."""
        at, now = self._monotonic() - ago, self._now()
        self._told[server_uuid] = {
            rate.model_id: _Told(at, ModelRate(rate.written, rate.read, _before(now, rate.used_ago, ago)))
            for rate in rates
        }

    def __repr__(self) -> str:
        return f"<ModelRates of {len(self._used)} models>"


def _before(now: datetime, used_ago: float | None, told_ago: float) -> datetime | None:
    return None if used_ago is None else now - timedelta(seconds=used_ago + told_ago)


def _sum(rate: ModelRate, told: ModelRate, *, fresh: bool) -> ModelRate:
    """With what another server told; of what is old only when the model was used."""
    used = max((at for at in (rate.used_at, told.used_at) if at is not None), default=None)
    if not fresh or rate.written is None or rate.read is None:
        return attrs.evolve(rate, used_at=used)
    return ModelRate(rate.written + (told.written or 0.0), rate.read + (told.read or 0.0), used)
