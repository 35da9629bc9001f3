"""What runs teach about memory: an upper bound that narrows, never below what was seen, whatever is reported."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.memory_use import (
    MAPPED,
    MOST_SAMPLES,
    MeasuredMemory,
    MemoryPlan,
    MemorySample,
)
from gpustack.domain.unit import GIB, MIB
from gpustack.policy.estimate.learnt import (
    FLOOR,
    LEAST_RATIO,
    MOST_RATIO,
    NOTHING,
    TermRatios,
    experience_of,
    measured_terms,
    ratio_of,
    recent,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
COMPUTE, WEIGHTS = "devices compute", "devices weights"
ratios = st.lists(st.floats(LEAST_RATIO, MOST_RATIO), min_size=1, max_size=20)


def sample(number: int, measured: int, estimated: int = GIB, term: str = COMPUTE) -> MemorySample:
    return MemorySample(
        at=NOW + timedelta(minutes=number),
        instance_id=number,
        worker_id=1,
        estimated={term: estimated},
        measured={term: measured},
    )


samples = st.lists(
    st.builds(
        sample,
        st.integers(1, 12),
        st.integers(0, 8 * GIB),
        st.sampled_from([0, MIB, GIB, 2 * GIB]),
        st.sampled_from([COMPUTE, WEIGHTS]),
    ),
    min_size=1,
    max_size=30,
)


margins = st.floats(0, 0.2)


@given(ratios, margins)
def test_the_bound_is_never_below_the_largest_sample(found: list[float], margin: float) -> None:
    assert TermRatios.of(found).bound(margin) >= max(found)


@given(ratios, margins)
def test_the_bound_is_never_wider_than_without_samples(found: list[float], margin: float) -> None:
    known = TermRatios.of(found)
    assert known.bound(margin) <= max(1 + margin, max(found) * (1 + margin))
    assert known.spread(margin) >= margin / (1 + len(found))


@given(ratios, st.integers(1, 20), margins)
def test_more_samples_of_what_was_seen_never_raise_the_bound(
    found: list[float], more: int, margin: float
) -> None:
    again = [*found, *[found[number % len(found)] for number in range(more)]]
    assert TermRatios.of(again).bound(margin) <= TermRatios.of(found).bound(margin) + 1e-12


@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(found: list[MemorySample], rng: object) -> None:
    mixed = list(found)
    rng.shuffle(mixed)  # type: ignore[attr-defined]  # a strategy of random.Random
    assert experience_of(mixed) == experience_of(found)


@given(samples, st.integers(0, 16 * GIB), margins, st.integers(1, 8))
def test_whatever_is_reported_a_claim_stays_within_bounds(
    found: list[MemorySample], estimated: int, margin: float, among: int
) -> None:
    known = experience_of(found)
    for name, term in known.terms.items():
        claim = known.claim(name, estimated, margin, among=among)
        assert claim <= MOST_RATIO * (1 + margin) * (estimated + FLOOR)
        assert claim >= LEAST_RATIO * (estimated + FLOOR / among) - FLOOR / among
        if name == WEIGHTS:
            assert claim >= estimated
        assert term.runs <= MOST_SAMPLES


@given(samples)
def test_what_a_recent_run_took_is_set_aside_for_the_next_one_like_it(found: list[MemorySample]) -> None:
    known = experience_of(found)
    for one in recent(found):
        for name, estimated in one.estimated.items():
            believed = min(one.measured[name], MOST_RATIO * (estimated + FLOOR) - FLOOR)
            rounded = 0.01 * (estimated + FLOOR) if name == WEIGHTS else 0
            assert known.claim(name, estimated) >= believed - rounded


@given(samples)
def test_of_each_instance_the_last_sample_counts_and_old_ones_are_forgotten(
    found: list[MemorySample],
) -> None:
    kept = recent(found)
    assert len(kept) == len({one.instance_id for one in kept}) <= MOST_SAMPLES
    assert [one.at for one in kept] == sorted(one.at for one in kept)
    assert recent(kept) == kept


def test_one_run_takes_off_half_of_what_it_shows_to_be_too_much() -> None:
    one = experience_of([sample(1, GIB // 2)]).claim(COMPUTE, GIB)
    eight = experience_of([sample(number, GIB // 2) for number in range(8)]).claim(COMPUTE, GIB)
    assert 0.5 * GIB < eight < 0.6 * GIB < one < 0.8 * GIB
    assert NOTHING.claim(COMPUTE, GIB, 0.05) == GIB + -(-GIB // 20)


def test_a_run_that_took_more_raises_the_claim_at_once() -> None:
    known = experience_of([sample(1, 2 * GIB), *(sample(number, GIB) for number in range(2, 6))])
    assert known.claim(COMPUTE, GIB) >= 2 * GIB
    assert known.claim(COMPUTE, 3 * GIB) >= 5.9 * GIB
    learnt = known.learnt({COMPUTE: 0.05, WEIGHTS: 0.0})
    assert [(name, one.runs) for name, one in learnt.items()] == [(COMPUTE, 5)]


@pytest.mark.parametrize(
    ("estimated", "measured", "least", "most"),
    [(0, 0, 1, 1), (MIB, 7 * MIB, 1.3, 1.4), (GIB, 0, 0.5, 0.5), (GIB, 1 << 62, 4, 4), (0, 3 * MIB, 1, 1.2)],
)
def test_a_small_term_teaches_little_and_a_lie_is_cut(
    estimated: int, measured: int, least: float, most: float
) -> None:
    assert least <= ratio_of(COMPUTE, estimated, measured) <= most


def test_a_sample_of_the_same_instance_replaces_the_former_one() -> None:
    before, after = sample(1, 3 * GIB), attrs.evolve(sample(1, GIB), at=NOW + timedelta(hours=1))
    assert recent([after, before]) == (after,)


def plan(maps_weights: bool = False, **estimated: int) -> MemoryPlan:
    named = {name.replace("_", " "): size * MIB for name, size in estimated.items()}
    return MemoryPlan(
        engine="e",
        architecture="a",
        settings="s",
        estimated=named,
        claimed=named,
        maps_weights=maps_weights,
    )


def run(**figures: int | dict[str, int]) -> MeasuredMemory:
    whole = {name: size * MIB for name, size in figures.items() if isinstance(size, int)}
    terms = {
        name.replace("_", " "): size * MIB
        for told in figures.values()
        if isinstance(told, dict)
        for name, size in told.items()
    }
    return MeasuredMemory(terms=terms, **whole)


ON_GPU = plan(devices_weights=4000, devices_cache=1000, devices_compute=200, devices_process=500)


def test_on_devices_the_process_takes_what_its_buffers_do_not() -> None:
    told = {"devices_weights": 4000, "devices_cache": 1000, "devices_compute": 300}
    assert measured_terms(ON_GPU, run(told=told, devices_peak=5700)) == {
        "devices weights": 4000 * MIB,
        "devices cache": 1000 * MIB,
        "devices compute": 300 * MIB,
        "devices process": 400 * MIB,
    }
    assert measured_terms(ON_GPU, run(told=told)).keys() == {
        f"devices {one}" for one in ("weights", "cache", "compute")
    }


def test_where_the_log_is_silent_a_run_shows_only_that_more_is_needed() -> None:
    """What it took is for several things together, and may not be all of it yet."""
    told = {"devices_weights": 4000, "devices_cache": 1000}
    assert "devices compute" not in measured_terms(ON_GPU, run(told=told, devices_peak=5400))
    more = measured_terms(ON_GPU, run(told=told, devices_peak=6400))
    assert (more["devices compute"], more["devices process"]) == (400 * MIB, 1000 * MIB)
    assert measured_terms(ON_GPU, run(devices_peak=5700)) == {}


def test_on_the_host_a_process_holds_only_what_it_has_touched() -> None:
    """So that less says nothing. Weights that are pages of a file are not held."""
    on_cpu = plan(host_weights=4000, host_cache=1000, host_compute=200, host_process=150)
    told = {"host_weights": 4000, "host_cache": 1000, "host_compute": 200}
    mapped = {**told, MAPPED: 4000}
    assert "host process" not in measured_terms(on_cpu, run(told=mapped, host=1250))
    assert measured_terms(on_cpu, run(told=mapped, host=1500))["host process"] == 300 * MIB
    assert measured_terms(on_cpu, run(told=told, host=5500))["host process"] == 300 * MIB
    assert measured_terms(plan(True, host_weights=4000, host_process=150), run(host=300)) == {
        "host process": 300 * MIB
    }


def test_weights_that_are_as_large_as_the_header_says_are_nothing_to_learn() -> None:
    near = sample(1, GIB + MIB, term=WEIGHTS)
    assert not experience_of([near]).terms
    assert experience_of([near, sample(2, GIB + 100 * MIB, term=WEIGHTS)]).terms[WEIGHTS].runs == 1
