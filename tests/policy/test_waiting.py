"""Each state in which users wait says for what, and until when where that can be told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from gpustack.domain.artifact import FileState, ModelFile
from gpustack.domain.instance import MemberStatus, Placement, Subordinate
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, WorkerState
from gpustack.policy.waiting import wait_of

from .worlds import instance, model, worker, world

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
S = InstanceState
M = model()
GANG = Placement(worker_id=1, subordinates=(Subordinate(worker_id=2), Subordinate(worker_id=3)))
AWAY = worker(condition=Condition(state=WorkerState.NOT_READY, since=NOW, why="not heard for 45 s"))


@pytest.mark.parametrize("state", [state for state in S if state is not S.RUNNING])
def test_every_state_but_running_says_what_it_waits_for(state: InstanceState) -> None:
    on = None if state in (S.PENDING, S.ANALYZING) else 1
    waiting = instance(1, M, on=on, state=state, next_retry_at=NOW if state is S.ERROR else None)
    here = AWAY if state is S.UNREACHABLE else worker()
    wait = wait_of(waiting, world(here, waiting))
    assert wait is not None and wait.sentence
    assert not wait.sentence.endswith(".")


def test_what_runs_waits_for_nothing_and_what_ends_for_its_end() -> None:
    running = instance(1, M, on=1)
    assert wait_of(running, world(worker(), running)) is None
    ending = attrs.evolve(running, deleted_at=NOW)
    assert wait_of(ending, world(worker(), ending)).sentence == "worker node-a ends its engine"  # type: ignore[union-attr]
    silent = wait_of(ending, world(AWAY, ending))
    assert silent is not None
    assert silent.sentence == "its end waits until worker node-a is heard again"


@pytest.mark.parametrize(
    ("fields", "what", "sentence"),
    [
        ({"state": S.PENDING}, "place", "it waits for the scheduler, which has not decided on it yet"),
        ({"state": S.ANALYZING}, "header", "the header of /models/m.gguf is being read"),
        ({"state": S.SCHEDULED, "on": 1}, "worker", "it waits until worker node-a takes it up"),
        ({"state": S.INITIALIZING, "on": 1}, "engine", "worker node-a looks for its files and a port"),
        (
            {"state": S.INITIALIZING, "on": 1, "state_message": "Installing vllm 0.32.0"},
            "engine",
            "on worker node-a: installing vllm 0.32.0",
        ),
    ],
)
def test_the_sentence_says_who_does_what(fields: dict[str, Any], what: str, sentence: str) -> None:
    waiting = instance(1, M, **fields)
    wait = wait_of(waiting, world(worker(), waiting))
    assert wait is not None
    assert (wait.what, wait.sentence) == (what, sentence)


def test_a_download_tells_its_end_by_its_speed() -> None:
    waiting = instance(1, M, on=1, state=S.DOWNLOADING)
    file = ModelFile(
        id=5,
        worker_id=1,
        source=M.source,
        source_index=M.source.index,
        state=FileState.DOWNLOADING,
        size=10 * GIB,
        download_progress=50.0,
        download_speed=GIB / 10,
        updated_at=NOW,
    )
    wait = wait_of(waiting, world(worker(), waiting, file))
    assert wait is not None
    assert wait.until == NOW + timedelta(seconds=50)
    assert (
        wait.sentence
        == "its files of 10.0 GiB are fetched to worker node-a at 102.4 MiB a second, 50% is there"
    )
    unknown = wait_of(waiting, world(worker(), waiting, attrs.evolve(file, download_speed=None)))
    assert unknown is not None and unknown.until is None


def test_a_gang_tells_what_its_followers_do() -> None:
    members = (
        MemberStatus(attempt=1, state=S.DOWNLOADING, download_progress=42.0),
        MemberStatus(attempt=1, state=S.RUNNING),
    )
    waiting = instance(1, M, on=1, state=S.INITIALIZING, attempt=1, members=members)
    waiting = attrs.evolve(waiting, placement=GANG)
    wait = wait_of(waiting, world(worker(1), worker(2), worker(3), waiting))
    assert wait is not None
    assert wait.sentence == "it waits for its followers: node-b is downloading 42%"


def test_a_silent_worker_is_waited_for_until_its_instances_are_placed_elsewhere() -> None:
    waiting = instance(1, M, on=1, state=S.UNREACHABLE)
    wait = wait_of(waiting, world(AWAY, waiting), silence_allowed=timedelta(seconds=255))
    assert wait is not None
    assert wait.until == NOW + timedelta(seconds=255)
    assert wait.sentence == (
        "its worker node-a is not ready (not heard for 45 s); if it stays away, it is placed elsewhere"
    )
