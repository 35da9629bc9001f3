"""What a drain would lead to, and how far one is, in the words of ``gpustack workers``."""

from __future__ import annotations

from typing import Any

from gpustack.cli.commands.workers import _row
from gpustack.cli.drain_plan import progress, told
from tests.server.cluster import Clock


def step(way: str, **more: Any) -> dict[str, Any]:
    return {"instance": "m-1", "model": "m", "way": way, "to": None, "ends": [], "why": "", **more}


def test_each_instance_is_told_with_where_it_goes() -> None:
    to = "worker b, CPU (4.0 GiB of memory)"
    outlook = {
        "workers": ["a"],
        "steps": [
            step("replaced_first", to=to, ends=["low-1"]),
            step("ends_first", to=to),
            step("ends_first", why="No\nroom"),
            step("not_replaced"),
            step("stays", why="Needs 4.0 GiB"),
        ],
    }
    assert told(outlook).splitlines() == [
        f"m-1: starts on {to}, then ends here",
        "  for that end, of lower priority: low-1",
        f"m-1: ends here, then starts on {to}",
        "m-1: ends here, and finds no place",
        "  No room",
        "m-1: ends: there are more replicas than are asked for",
        "m-1: goes on here",
        "  Needs 4.0 GiB",
        "1 of 5 would stay, and the drain would wait for room. Nothing is changed; gpustack workers drain a does it.",
    ]
    assert told({"workers": ["a", "b"], "steps": []}) == "Nothing runs on a, b."


def test_progress_tells_what_is_left_of_how_much_and_what_it_waits_for() -> None:
    assert progress({"of": 5, "left": ["m-1", "m-2"], "waits_for": []}) == "2 of 5 left"
    assert progress({"of": 1, "left": ["m-1", "m-2"], "waits_for": []}) == "2 left", (
        "more came than there were"
    )
    assert progress({"of": None, "left": ["m-1"], "waits_for": ["m-2: pending: no\nroom"]}) == (
        "1 left, waits for m-2: pending: no room"
    )
    many = [f"m-{n}: starting" for n in range(5)]
    assert progress({"of": 2, "left": ["x"], "waits_for": many}).endswith("m-2: starting; and 2 more")
    assert progress({"of": 2, "left": [], "waits_for": []}) == "nothing is left"


def test_the_list_of_workers_shows_how_far_a_drain_is() -> None:
    drain = {"of": 3, "left": ["m-1"], "waits_for": []}
    shown = {"name": "a", "state": "ready", "draining": True, "cordoned": True, "drain": drain}
    assert _row(shown, Clock().now).remark == "1 of 3 left"
    memory = {"foreign": 3 << 30, "overrun": 1 << 30}
    full = {"name": "a", "state": "ready", "status": {"gpu_devices": [{"memory": memory}]}}
    assert _row(full, Clock().now).remark == "of video memory 3.0 GiB used by others, 1.0 GiB beyond claims"
    memory["foreign"] = 0
    assert _row(full, Clock().now).remark == "of video memory 1.0 GiB beyond claims"
    silent = {**shown, "state": "not_ready", "state_message": "not heard for 20 s"}
    assert _row(silent, Clock().now).remark == "not heard for 20 s; being drained"
