from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.worker import WorkerState
from gpustack.policy.liveness import LivenessSettings, judge, judge_all, next_look

SETTINGS = LivenessSettings()
NOW = 10_000.0


def heard(*ago: float) -> dict[int, float]:
    return {key: NOW - seconds for key, seconds in enumerate(ago, start=1)}


def test_a_worker_is_ready_until_three_beats_are_missed_and_given_up_after_five_minutes() -> None:
    assert judge(NOW - 44, NOW, SETTINGS) == (WorkerState.READY, "")
    assert judge(NOW - 46, NOW, SETTINGS) == (WorkerState.NOT_READY, "not heard for 46 s")
    assert judge(NOW - 301, NOW, SETTINGS) == (WorkerState.UNREACHABLE, "not heard for 301 s")


def test_a_late_heartbeat_reverses_everything() -> None:
    assert judge_all(heard(400, 1, 1), NOW, SETTINGS)[1].replace
    back = judge_all(heard(0, 1, 1), NOW, SETTINGS)[1]
    assert (back.state, back.why, back.replace) == (WorkerState.READY, "", False)


def test_what_ran_on_one_silent_worker_of_several_is_placed_anew() -> None:
    found = judge_all(heard(400, 1, 1), NOW, SETTINGS)
    assert {key: verdict.replace for key, verdict in found.items()} == {1: True, 2: False, 3: False}


def test_when_most_fall_silent_together_it_is_us_and_nothing_moves() -> None:
    found = judge_all(heard(400, 410, 1), NOW, SETTINGS)
    assert not any(verdict.replace for verdict in found.values())
    assert found[1].why == "not heard for 400 s; 2 fell silent together, so its instances stay for now"


def test_the_only_worker_keeps_its_instances() -> None:
    assert not judge_all(heard(400), NOW, SETTINGS)[1].replace


def test_workers_lost_one_after_another_do_not_pull_the_brake() -> None:
    found = judge_all(heard(90_000, 50_000, 400, 1, 1), NOW, SETTINGS)
    assert [key for key, verdict in found.items() if verdict.replace] == [1, 2, 3]


def test_the_brake_lets_go_in_the_end() -> None:
    late = SETTINGS.replace_after + SETTINGS.brake_hold + 1
    assert judge_all(heard(late, late, 1), NOW, SETTINGS)[1].replace


@given(st.dictionaries(st.integers(1, 50), st.floats(0, 5000), max_size=20))
def test_nobody_is_given_up_before_the_grace(ago: dict[int, float]) -> None:
    settings = attrs.evolve(SETTINGS, brake_hold=0.0)
    last_heard = {key: NOW - seconds for key, seconds in ago.items()}
    for key, verdict in judge_all(last_heard, NOW, settings).items():
        assert verdict.replace == (NOW - last_heard[key] >= settings.replace_after)
        assert (verdict.state is WorkerState.READY) == (NOW - last_heard[key] < settings.not_ready_after)
        assert bool(verdict.why) == (verdict.state is not WorkerState.READY)


def test_the_next_look_is_when_the_time_of_somebody_is_over() -> None:
    for ago, wait in (((1, 2), 5.0), ((1, 43), 2.0), ((298, 1), 2.0), ((299.9,), 0.25), ((400, 301), 5.0)):
        assert round(next_look(heard(*ago), NOW, SETTINGS), 3) == wait
    assert next_look(heard(29, 1), NOW, SETTINGS, stopped={1}) == 1.0
    assert next_look({}, NOW, SETTINGS) == 5.0
