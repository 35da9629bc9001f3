"""When a failed thing is tried again."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from gpustack.nursery import NEVER, RestartPolicy

times = st.lists(st.floats(0, 1e6), min_size=1, max_size=200).map(lambda found: tuple(sorted(found)))
policies = st.builds(
    RestartPolicy,
    first=st.floats(0.01, 100),
    factor=st.floats(1, 10),
    ceiling=st.floats(1, 1000),
    budget=st.none() | st.integers(0, 10),
    window=st.floats(1, 1e5) | st.just(math.inf),
    stable_after=st.none() | st.floats(1, 1000),
)


def test_delays_grow_to_the_ceiling() -> None:
    policy = RestartPolicy(first=1, factor=2, ceiling=10, budget=None)
    failures = (0.0, 1.0, 3.0, 7.0, 15.0, 25.0)
    got = [policy.delay(failures[: n + 1], failures[n]) for n in range(len(failures))]
    assert got == [1, 2, 4, 8, 10, 10]


def test_more_failures_than_the_budget_within_the_window_mean_giving_up() -> None:
    policy = RestartPolicy(budget=2, window=100)
    assert policy.delay((0.0, 1.0), 1.0) is not None
    assert policy.delay((0.0, 1.0, 2.0), 2.0) is None


def test_failures_before_the_window_are_forgiven() -> None:
    policy = RestartPolicy(first=1, budget=2, window=100)
    assert policy.delay((0.0, 1.0, 500.0), 500.0) == 1


def test_never_gives_up_at_the_first_failure() -> None:
    assert NEVER.delay((0.0,), 0.0) is None


PATIENT = RestartPolicy(
    first=10.0, factor=2.0, ceiling=300.0, budget=None, window=math.inf, stable_after=600.0
)


def test_without_a_budget_pauses_double_up_to_the_ceiling_for_ever() -> None:
    failures: tuple[float, ...] = ()
    got, now = [], 0.0
    for _ in range(8):
        failures += (now,)
        delay = PATIENT.delay(failures, now)
        assert delay is not None
        got.append(delay)
        now += delay + 60  # each life takes a minute to fail
    assert got == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_long_good_life_begins_the_row_anew() -> None:
    failures = (0.0, 70.0, 150.0)
    assert PATIENT.delay(failures, 150.0) == 40
    well = (*failures, 150.0 + 40 + 600)
    assert PATIENT.delay(well, well[-1]) == 10
    ill = (*failures, 150.0 + 40 + 599)
    assert PATIENT.delay(ill, ill[-1]) == 80


@given(policies, times)
def test_law_a_delay_is_positive_and_at_most_the_ceiling(
    policy: RestartPolicy, failures: tuple[float, ...]
) -> None:
    delay = policy.delay(failures, failures[-1], rng=random.Random(1))
    assert delay is None or 0 < delay <= policy.ceiling


@given(policies, times)
def test_law_forgetting_what_no_longer_counts_changes_no_decision(
    policy: RestartPolicy, failures: tuple[float, ...]
) -> None:
    now = failures[-1]
    assert policy.delay(policy.recent(failures, now), now) == policy.delay(failures, now)


@given(policies, times)
def test_law_it_gives_up_exactly_when_the_budget_is_spent(
    policy: RestartPolicy, failures: tuple[float, ...]
) -> None:
    now = failures[-1]
    spent = policy.budget is not None and sum(now - t <= policy.window for t in failures) > policy.budget
    assert (policy.delay(failures, now) is None) == spent


def test_jitter_spreads_restarts_without_exceeding_the_pause() -> None:
    policy = RestartPolicy(first=10, jitter=0.5)
    rng = random.Random(3)
    got = {policy.delay((0.0,), 0.0, rng=rng) for _ in range(50)}
    assert len(got) > 40
    assert all(delay is not None and 5 <= delay <= 10 for delay in got)
