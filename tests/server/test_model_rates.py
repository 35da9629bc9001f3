"""The rates of models are worked out of counts, and unknown as long as there is nothing to work them out of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

from gpustack.metrics.traffic import ModelTraffic, RequestMeasurement, Traffic
from gpustack.server.model_rates import KEPT, ModelRates

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.define
class Served:
    """Rates over counts that a test sets, on a clock that it turns."""

    counts: dict[int, ModelTraffic] = attrs.field(factory=dict)
    seconds: float = 0.0
    models: set[int] = attrs.field(factory=lambda: {1})

    def rates(self) -> ModelRates:
        made = ModelRates(
            lambda: self.seconds, lambda: BEGAN + timedelta(seconds=self.seconds), lambda: self.models
        )
        made.counted = lambda: dict(self.counts)
        return made

    def later(self, rates: ModelRates, seconds: float, **counts: int) -> None:
        self.seconds += seconds
        self.counts[1] = ModelTraffic(**counts)
        rates.sample()


def test_one_look_tells_no_rate() -> None:
    rates = Served().rates()
    rates.sample()
    assert rates.of(1).written is None
    assert rates.of(1).used_at is None


def test_a_rate_is_the_mean_of_what_was_counted_lately() -> None:
    served = Served()
    rates = served.rates()
    rates.sample()
    served.later(rates, 10, completion=300, prompt=50, answers=1)
    rate = rates.of(1)
    assert (rate.written, rate.read, rate.used_at) == (30, 5, BEGAN + timedelta(seconds=10))
    assert rates.of(2).written == 0
    for _ in range(KEPT):
        served.later(rates, 10, completion=300, prompt=50, answers=1)
    assert rates.of(1).written == 0
    assert rates.of(1).used_at == BEGAN + timedelta(seconds=10)


def test_fewer_tokens_than_events_are_no_negative_rate() -> None:
    served = Served()
    rates = served.rates()
    served.later(rates, 10, completion=120, in_flight=1)
    served.later(rates, 10, completion=100, answers=1)
    assert rates.of(1).written == 0


def test_what_other_servers_tell_is_added_while_it_is_fresh() -> None:
    served, other = Served(), Served()
    here, there = served.rates(), other.rates()
    for rates, one in ((here, served), (there, other)):
        one.later(rates, 10, completion=10)
        one.later(rates, 10, completion=110)
    here.told_by("there", there.own(), 5.0)
    assert here.of(1).written == 20
    served.seconds += 60
    assert here.of(1).written == 10
    assert here.of(1).used_at == BEGAN + timedelta(seconds=20)


@attrs.frozen
class Half:
    def so_far(self) -> int:
        return 7


def test_an_answer_under_way_counts_as_far_as_it_is() -> None:
    traffic, request = Traffic(), RequestMeasurement(0.0, model_id=3)
    assert traffic.changed_models([request]) == {}
    request.progress = Half()
    assert traffic.changed_models([request]) == {3: ModelTraffic(completion=7, in_flight=1)}
    request.first_byte, request.completion, request.prompt = 0.1, 9, 4
    traffic.passed(request, "/v1/chat/completions", 200)
    assert traffic.changed_models([]) == {3: ModelTraffic(answers=1, prompt=4, completion=9)}
    assert traffic.changed_models([]) == {}, "it is told once"


def test_a_model_that_is_gone_is_forgotten() -> None:
    served = Served()
    rates = served.rates()
    served.later(rates, 10, completion=120, answers=1)
    assert repr(rates) == "<ModelRates of 1 models>"
    served.models.clear()
    rates.sample()
    assert rates.of(1).used_at is None
    assert repr(rates) == "<ModelRates of 0 models>"
