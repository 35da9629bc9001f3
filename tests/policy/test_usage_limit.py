"""Laws of limits that hold for every order of requests, and the sums of budgets."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.access import Limits
from gpustack.policy.usage_limit import (
    Admission,
    LimitKind,
    RecentUsage,
    Refusal,
    SlidingWindow,
    WindowSlot,
    admit,
    block_size,
    ended,
    full,
    is_period_over,
    period_ends_in,
    period_name,
    share,
)

CALLS = st.lists(
    st.tuples(
        st.floats(0, 20),  # seconds since the last
        st.integers(0, 120),  # what it may use
        st.integers(0, 100),  # percent of that it will have used
        st.integers(0, 5),  # how many later ones come before it ends
    ),
    max_size=120,
)
LIMITS = st.builds(
    Limits,
    requests_per_minute=st.none() | st.integers(0, 12),
    tokens_per_minute=st.none() | st.integers(0, 400),
    concurrent_requests=st.none() | st.integers(0, 4),
)


def play(limits: Limits, calls: list[tuple[float, int, int, int]]) -> list[tuple[float, int, bool]]:
    """When each came, what it used and whether it was let in; ended as told, at the latest after five more."""
    state, now = RecentUsage(), 1000.0
    open_calls: list[tuple[int, int, int]] = []  # calls to come before it ends, second, surplus
    seen = []
    for pause, most, percent, later in calls:
        now += pause
        for left, second, surplus in [one for one in open_calls if one[0] <= 0]:
            state = ended(state, second, surplus)
            open_calls.remove((left, second, surplus))
        open_calls = [(left - 1, second, surplus) for left, second, surplus in open_calls]
        answer = admit(limits, state, most, now)
        used = most * percent // 100
        if isinstance(answer, Admission):
            state = answer.state
            open_calls.append((later, answer.second, most - used))
        seen.append((now, used, isinstance(answer, Admission)))
        if limits.concurrent_requests is not None:
            assert state.under_way <= max(limits.concurrent_requests, 0)
        assert state.under_way == len(open_calls)
    return seen


@given(LIMITS, CALLS)
def test_no_sixty_seconds_hold_more_than_the_limits(
    limits: Limits, calls: list[tuple[float, int, int, int]]
) -> None:
    seen = [(at, used) for at, used, let_in in play(limits, calls) if let_in]
    for at, _ in seen:
        within = [used for then, used in seen if at <= then <= at + 60]
        if limits.requests_per_minute is not None:
            assert len(within) <= limits.requests_per_minute
        if limits.tokens_per_minute is not None:
            assert sum(within) <= limits.tokens_per_minute


@given(LIMITS, st.integers())
def test_the_same_day_again_ends_the_same(limits: Limits, seed: int) -> None:
    def calls() -> list[tuple[float, int, int, int]]:
        rng = random.Random(seed)
        return [
            (rng.random() * 9, rng.randrange(99), rng.randrange(100), rng.randrange(4)) for _ in range(50)
        ]

    assert play(limits, calls()) == play(limits, calls())


@given(LIMITS, CALLS)
def test_who_is_refused_and_comes_back_when_told_is_let_in(
    limits: Limits, calls: list[tuple[float, int, int, int]]
) -> None:
    """But for what is under way: nobody knows when that ends."""
    state, now = RecentUsage(), 1000.0
    for pause, most, _, _ in calls:
        now += pause
        answer = admit(limits, state, most, now)
        if isinstance(answer, Admission):
            state = ended(answer.state, answer.second, 0)
        elif answer.retry_after is not None:
            assert 0 < answer.retry_after <= 61
            assert isinstance(admit(limits, state, most, now + answer.retry_after), Admission)


@given(LIMITS, st.integers(0, 500), st.integers(0, 500), st.floats(0, 1e6))
def test_what_was_not_used_is_given_back(limits: Limits, most: int, used: int, now: float) -> None:
    answer = admit(limits, RecentUsage(), most, now)
    if isinstance(answer, Admission):
        after = ended(answer.state, answer.second, most - used)
        assert (after.window.tokens, after.window.requests, after.under_way) == (used, 1, 0)


@pytest.mark.attack("limits")
@given(LIMITS, st.integers(1, 7))
def test_servers_together_let_in_what_one_would_and_each_something(limits: Limits, servers: int) -> None:
    parts = [share(limits, servers, rank) for rank in range(servers)]
    for kind in (LimitKind.REQUESTS, LimitKind.TOKENS, LimitKind.CONCURRENT):
        whole = getattr(limits, kind.value)
        if whole is None:
            assert {getattr(part, kind.value) for part in parts} == {None}
        else:
            shares = [getattr(part, kind.value) for part in parts]
            assert sum(shares) == (max(whole, servers) if whole else 0)
            assert whole == 0 or min(shares) >= 1


def test_what_can_never_pass_is_not_asked_back() -> None:
    for limits, kind in (
        (Limits(requests_per_minute=0), LimitKind.REQUESTS),
        (Limits(tokens_per_minute=0), LimitKind.TOKENS),
        (Limits(tokens_per_minute=9), LimitKind.TOKENS),
        (Limits(concurrent_requests=0), LimitKind.CONCURRENT),
    ):
        answer = admit(limits, RecentUsage(), 10, 0.0)
        assert isinstance(answer, Refusal)
        assert (answer.kind, answer.retry_after) == (kind, None)
    assert isinstance(admit(Limits(tokens_per_minute=10), RecentUsage(), 10, 0.0), Admission)


def test_the_longest_wait_is_said() -> None:
    state = RecentUsage(SlidingWindow((WindowSlot(100, 2, 50), WindowSlot(130, 1, 10))), 3)
    limits = Limits(requests_per_minute=3, tokens_per_minute=60, concurrent_requests=3)
    answer = admit(limits, state, 60, 140.0)
    assert answer == Refusal(LimitKind.TOKENS, 60, 130 + 61 - 140.0)
    assert admit(limits, state, 1, 140.0) == Refusal(LimitKind.REQUESTS, 3, 100 + 61 - 140.0)


def test_a_minute_of_which_nothing_is_known_counts_as_used() -> None:
    limits = Limits(requests_per_minute=5, tokens_per_minute=100)
    state = RecentUsage(full(limits, 10.5))
    answer = admit(limits, state, 1, 10.5)
    assert isinstance(answer, Refusal)
    assert answer.retry_after == 10 + 61 - 10.5
    assert isinstance(admit(limits, state, 1, 71.0), Admission)


def test_what_took_more_than_it_might_is_held_against_the_next() -> None:
    limits = Limits(tokens_per_minute=100)
    first = admit(limits, RecentUsage(), 40, 10.0)
    assert isinstance(first, Admission)
    after = ended(first.state, first.second, 40 - 130)
    assert isinstance(admit(limits, after, 1, 70.9), Refusal)
    assert isinstance(admit(limits, after, 1, 71.0), Admission)


# --- budgets

NOW = datetime(2026, 11, 28, 23, 59, 0, tzinfo=UTC)


def test_days_and_months_are_those_of_utc() -> None:
    assert (period_name(LimitKind.DAY, NOW), period_name(LimitKind.MONTH, NOW)) == ("2026-11-28", "2026-11")
    assert (period_ends_in(LimitKind.DAY, NOW), period_ends_in(LimitKind.MONTH, NOW)) == (
        60.0,
        60 + 2 * 86400.0,
    )
    there = NOW.astimezone(None)
    assert period_name(LimitKind.DAY, there) == "2026-11-28"
    assert period_ends_in(LimitKind.MONTH, datetime(2026, 12, 31, 23, 0, tzinfo=UTC)) == 3600.0


@given(st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC)))
def test_a_period_ends_when_it_said_and_is_over_a_day_later(now: datetime) -> None:
    for kind in (LimitKind.DAY, LimitKind.MONTH):
        name, left = period_name(kind, now), period_ends_in(kind, now)
        assert period_name(kind, now + timedelta(seconds=left) - timedelta(microseconds=1)) == name
        after = now + timedelta(seconds=left)
        assert period_name(kind, after) != name
        assert not is_period_over(name, now)
        assert not is_period_over(name, after)
        assert is_period_over(name, after + timedelta(days=1))


@given(st.integers(0, 10**9), st.lists(st.integers(1, 10**4), min_size=1, max_size=20))
def test_a_block_is_enough_and_never_more_than_there_is(room: int, asked: list[int]) -> None:
    drawn = block_size(room, sum(asked), min(asked))
    assert 0 <= drawn <= room
    assert drawn >= min(room, sum(asked)) or room < min(asked)
    assert drawn <= max(room // 16, sum(asked))
