"""What a drain waits for is told in a few lines, however much runs on the machine."""

from __future__ import annotations

import io

import pytest

from gpustack.cli import worker_change
from gpustack.cli.failure import UsageError, WaitTimeout
from gpustack.cli.phrase import taints_in_line
from gpustack.cli.terminal import Terminal
from gpustack.errors import Unavailable
from gpustack.remote.http import RemoteConnectionError

WORKER = {"id": 1, "name": "node-a", "draining": True}
CLOSED = "Worker node-a is being drained"


class Cluster:
    """A server whose instances all stay where they are."""

    def __init__(self, *instances: dict[str, object]) -> None:
        self.instances = list(instances)
        self.worker = WORKER
        self.away = 0
        """How many questions get no answer."""

    async def all(self, path: str) -> list[dict[str, object]]:
        self.away -= 1
        if self.away >= 0:
            raise RemoteConnectionError("http://s/v1/model-instances", "cannot be reached")
        return self.instances

    async def get(self, path: str) -> dict[str, object]:
        return self.worker


def pair(number: int, message: str = CLOSED) -> tuple[dict[str, object], dict[str, object]]:
    """One that runs there, and the one that is to take its place."""
    return (
        {"name": f"m{number}-old", "model_id": number, "state": "running", "worker_id": 1},
        {"name": f"m{number}-new", "model_id": number, "state": "pending", "state_message": message},
    )


async def waited(*instances: dict[str, object]) -> tuple[list[str], str]:
    shown = io.StringIO()
    with pytest.raises(WaitTimeout) as caught:
        await worker_change.until_empty(
            Cluster(*instances),  # type: ignore[arg-type]
            WORKER,
            Terminal(shown),
            0,
        )
    return shown.getvalue().splitlines(), str(caught.value)


async def test_replacements_that_wait_for_the_same_are_told_in_one_line() -> None:
    every = [one for number in range(1, 10) for one in pair(number)]
    lines, ended = await waited(*every)
    assert lines[1:] == [f"m1-new, m2-new, m3-new and 6 more are pending: {CLOSED}"]
    assert ended.count(CLOSED) == 1


async def test_each_reason_is_told_with_those_whose_it_is() -> None:
    lines, _ = await waited(*pair(1), *pair(2, "no room"), *pair(3))
    assert lines[1:] == [f"m1-new, m3-new are pending: {CLOSED}", "m2-new is pending: no room"]


async def test_what_is_not_known_of_a_worker_that_is_silent_is_not_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = Cluster()
    for state, said in (("ready", "is empty: nothing runs"), ("unreachable", "engines may still run")):
        cluster.worker = {**WORKER, "state": state}
        await worker_change.until_empty(cluster, WORKER, Terminal(io.StringIO()), 0)  # type: ignore[arg-type]
        assert said in capsys.readouterr().out


async def test_a_server_that_is_away_for_a_while_is_waited_for(
    capsys: pytest.CaptureFixture[str], autojump_clock: object
) -> None:
    cluster = Cluster()
    cluster.away = 5
    await worker_change.until_empty(cluster, WORKER, Terminal(io.StringIO()), None)  # type: ignore[arg-type]
    assert "node-a is empty" in capsys.readouterr().out
    cluster.away = 1000
    with pytest.raises(Unavailable, match="node-a goes on being drained"):
        await worker_change.until_empty(cluster, WORKER, Terminal(io.StringIO()), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "after"),
    [
        (["gpu=h100:NoExecute"], ["gpu=h100:NoExecute", "gpu=a100:NoSchedule", "own:NoSchedule"]),
        (["gpu=h100:NoSchedule"], ["gpu=h100:NoSchedule", "own:NoSchedule"]),
        (["own:NoSchedule-"], ["gpu=a100:NoSchedule"]),
        (["gpu=a100:NoSchedule-", "own-"], []),
    ],
)
def test_a_taint_is_set_for_its_key_and_effect_and_taken_away(words: list[str], after: list[str]) -> None:
    taints: list[dict[str, object]] = [
        {"key": "gpu", "value": "a100", "effect": "NoSchedule"},
        {"key": "own", "value": "", "effect": "NoSchedule"},
    ]
    for edit in worker_change.taints_of(words, ""):
        taints = edit.applied(taints)
    assert sorted(taints_in_line({"taints": taints}).split(", ")) == sorted(after or [""])


@pytest.mark.parametrize("word", ["gpu", "gpu=a100", "=a100:NoSchedule", "gpu:noschedule", "gpu:Never-", "-"])
def test_what_is_no_taint_is_refused_with_the_effects(word: str) -> None:
    with pytest.raises(UsageError, match="NoSchedule, PreferNoSchedule, NoExecute"):
        worker_change.taints_of([word], "")
