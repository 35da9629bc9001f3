"""What ``gpustack workers`` says of the loss of a worker, and ``gpustack plan`` of what would wait."""

from __future__ import annotations

import io
from typing import Any

from gpustack.cli.commands.plan import _waiting
from gpustack.cli.commands.workers import survival_lines
from gpustack.cli.terminal import Terminal


def loss(worker: str, *stops: str, **more: Any) -> dict[str, Any]:
    return {"worker": worker, "stops": [{"model": name} for name in stops], "unknown": [], **more}


def test_models_that_would_not_survive_are_named_and_silence_is_no_answer() -> None:
    assert survival_lines(None) == [] and survival_lines([]) == []
    assert survival_lines([loss("a"), loss("b")]) == ["Every model would survive the loss of any one worker."]
    assert survival_lines([loss("a"), loss("b", unknown=["m"])]) == []
    told = survival_lines([loss("a", "m", "n"), loss("b")])
    assert told == ["Without a there would be no m, n.", "gpustack plan --lose WORKER shows more."]
    many = survival_lines([loss(f"w{n}", *"abcde") for n in range(5)])
    assert many[0] == "Without w0 there would be no a, b, c and 2 more."
    assert many[3] == "Without each of 2 more there would be models missing too."


def test_new_instances_that_wait_for_the_same_are_told_once() -> None:
    new = {"model": "m", "stopped": False, "why": "no room"}
    waits = [new, new, {**new, "why": "no disk"}, {**new, "instance": "m-1", "stopped": True}, new]
    assert list(_waiting(waits, Terminal(io.StringIO()))) == [
        "waits m (3 new instances): no room",
        "waits m (a new instance): no disk",
        "stops m-1: no room",
    ]
