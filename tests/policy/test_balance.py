from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.route import Endpoint
from gpustack.policy.balance import pick


def endpoint(key: int) -> Endpoint:
    return Endpoint(
        instance_id=key, instance_name=f"m-{key}", worker_id=1, host="h", worker_port=10150, engine_port=40000
    )


def test_requests_that_all_last_are_shared_evenly() -> None:
    endpoints, rng = [endpoint(key) for key in (1, 2, 3)], random.Random(1)
    load: dict[int, int] = {}
    for _ in range(300):
        chosen = pick(endpoints, load, (), rng)
        assert chosen is not None
        load[chosen.instance_id] = load.get(chosen.instance_id, 0) + 1
    assert load == {1: 100, 2: 100, 3: 100}


def test_nobody_is_left_when_all_are_excluded() -> None:
    assert pick([endpoint(1)], {}, {1}, random.Random(1)) is None
    assert pick([], {}, (), random.Random(1)) is None


@given(
    load=st.dictionaries(st.integers(1, 8), st.integers(0, 50), max_size=8),
    exclude=st.sets(st.integers(1, 8), max_size=7),
    seed=st.integers(0, 9),
)
def test_the_least_loaded_that_is_not_excluded_is_picked(
    load: dict[int, int], exclude: set[int], seed: int
) -> None:
    chosen = pick([endpoint(key) for key in range(1, 9)], load, exclude, random.Random(seed))
    assert chosen is not None
    assert chosen.instance_id not in exclude
    least = min(load.get(key, 0) for key in range(1, 9) if key not in exclude)
    assert load.get(chosen.instance_id, 0) == least
