"""What a load test says of its figures."""

from __future__ import annotations

import pytest

from gpustack.cli.load_report import LoadLevel, Sample, bars, duration, is_saturated, limit_of, quantile


def level(
    concurrency: int, tokens: int, *, first: float = 0.1, fault: str | None = None, busy: float = 0.1
) -> LoadLevel:
    samples = [Sample(first=first, took=1.0, tokens=tokens)]
    samples += [Sample(fault=fault)] if fault else []
    return LoadLevel(concurrency=concurrency, seconds=1.0, busy=busy, samples=samples)


def kind(*levels: LoadLevel) -> str:
    return limit_of(levels, 1)["kind"]


def test_an_engine_that_gets_no_faster_is_the_limit_and_the_wait_is_told() -> None:
    levels = [level(1, 100), level(2, 190), level(4, 195), level(8, 196, first=0.9)]
    told = limit_of(levels, 2)
    assert told["kind"] == "engine"
    assert "The 2 engines: more than 2 at once bring nothing" in told["sentence"]
    assert "first token after 100 ms, then 900 ms" in told["sentence"]
    assert is_saturated(levels) and not is_saturated(levels[:3])


def test_what_still_grows_has_met_no_limit() -> None:
    assert kind(level(1, 100), level(2, 190), level(4, 380)) == "none"


def test_one_level_shows_no_limit() -> None:
    assert kind(level(4, 100)) == "unknown" and kind() == "unknown"


def test_refused_requests_come_first_then_failed_ones() -> None:
    refused = level(1, 5, fault="429: too many requests per minute")
    assert kind(refused, level(2, 9, fault="503: gone")) == "limits"
    told = limit_of([level(1, 5), level(2, 9, fault="503: gone")], 1)
    assert told["kind"] == "errors" and "1 requests failed, 1 of them with: 503: gone" in told["sentence"]


def test_a_client_that_uses_its_core_up_may_be_what_is_measured() -> None:
    assert kind(level(1, 100), level(2, 101, busy=0.97)) == "client"


def test_a_level_without_an_answer_says_that_it_was_too_short() -> None:
    empty = LoadLevel(concurrency=8, seconds=15.0, busy=0.0, samples=[Sample(tokens=3)])
    assert kind(level(1, 10), empty) == "time"
    assert empty.tokens_per_second == 3 / 15.0, "what came counts, although it did not end"


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)])
def test_a_quantile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert quantile([4, 1, 3, 2], share) == value
    assert quantile([], share) is None


def test_durations_have_three_digits() -> None:
    assert [duration(one) for one in (0.01234, 0.9999, 12.345, None)] == ["12.3 ms", "1 s", "12.3 s", "-"]


@pytest.mark.parametrize("utf8", [True, False])
def test_bars_keep_to_the_width_and_are_as_long_as_their_values(utf8: bool) -> None:
    lines = bars([("1", 10.0, "10"), ("64", 40.0, "40"), ("8", 0.0, "0")], 80, utf8=utf8)
    assert all(len(line) <= 80 for line in lines)
    lengths = [sum(line.count(mark) for mark in "#█▏▎▍▌▋▊▉") for line in lines]
    assert lengths[1] == 72 and lengths[0] in (18, 19) and lengths[2] == 0
    assert all(line.isascii() for line in lines) is not utf8
    assert bars([("1", 0.0, "0")], 80, utf8=utf8) == ["1 | 0"]


def test_figures_for_programs_tell_errors_and_quantiles() -> None:
    found = level(2, 50, fault="503: gone").document()
    assert (found["completed"], found["tokens_per_second"], found["errors"]) == (1, 50.0, {"503: gone": 1})
    assert found["first_token_seconds"]["p99"] == 0.1
