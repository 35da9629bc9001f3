"""Failed logins are limited by address and name, within bounded memory."""

from __future__ import annotations

import pytest

from gpustack.api.throttle import LoginThrottle, network_of
from gpustack.errors import TooManyRequests

from .world import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> LoginThrottle:
    return LoginThrottle(clock.monotonic)


def fail(throttle: LoginThrottle, address: str, name: str, times: int = 1) -> None:
    for _ in range(times):
        with throttle.attempt(address, name) as attempt:
            attempt.failed()


def refused(throttle: LoginThrottle, address: str, name: str) -> float | None:
    try:
        with throttle.attempt(address, name):
            return None
    except TooManyRequests as error:
        return error.retry_after


@pytest.mark.attack("guessing")
def test_five_failures_of_a_name_close_its_door_for_five_minutes(
    throttle: LoginThrottle, clock: Clock
) -> None:
    fail(throttle, "10.0.0.1", "ada", 5)
    assert refused(throttle, "10.0.0.1", "ada") == 300
    clock.forward(299)
    assert refused(throttle, "10.0.0.1", "ada") == 1
    clock.forward(2)
    assert refused(throttle, "10.0.0.1", "ada") is None


@pytest.mark.attack("guessing")
def test_others_are_not_locked_out_by_it(throttle: LoginThrottle) -> None:
    fail(throttle, "10.0.0.1", "ada", 5)
    assert refused(throttle, "10.0.0.2", "ada") is None
    assert refused(throttle, "10.0.0.1", "bob") is None


@pytest.mark.attack("guessing")
def test_trying_many_names_closes_the_address(throttle: LoginThrottle) -> None:
    for number in range(50):
        fail(throttle, "10.0.0.1", f"name{number}")
    assert refused(throttle, "10.0.0.1", "another") is not None
    assert refused(throttle, "10.0.0.2", "another") is None


def test_the_right_password_forgives(throttle: LoginThrottle) -> None:
    fail(throttle, "10.0.0.1", "ada", 4)
    with throttle.attempt("10.0.0.1", "ada") as attempt:
        attempt.succeeded()
    fail(throttle, "10.0.0.1", "ada", 4)
    assert refused(throttle, "10.0.0.1", "ada") is None


@pytest.mark.attack("guessing")
def test_many_attempts_at_once_do_not_slip_past_the_count(throttle: LoginThrottle) -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(throttle.attempt("10.0.0.1", "ada"))
        assert refused(throttle, "10.0.0.1", "ada") == 1.0
    assert refused(throttle, "10.0.0.1", "ada") is None


def test_an_attempt_that_was_not_decided_counts_as_nothing(throttle: LoginThrottle) -> None:
    for _ in range(10):
        with throttle.attempt("10.0.0.1", "ada"):
            pass
    assert refused(throttle, "10.0.0.1", "ada") is None


@pytest.mark.attack("flood")
def test_an_attacker_cannot_fill_the_memory(throttle: LoginThrottle) -> None:
    for number in range(21_000):
        fail(throttle, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "x")
    assert repr(throttle) == "<LoginThrottle: 20000 with failed logins, 0 being verified>"


@pytest.mark.attack("guessing")
@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("unix", "unix"),
    ],
)
def test_of_ipv6_a_whole_network_counts_as_one(address: str, network: str) -> None:
    assert network_of(address) == network
