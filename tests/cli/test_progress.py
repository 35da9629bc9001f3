"""How a deployment is shown coming up."""

from __future__ import annotations

import io
from typing import Any

import pytest

from gpustack.cli.progress import DeploymentFailure, DeploymentProgress, bar
from gpustack.cli.terminal import Terminal


class Stream(io.StringIO):
    encoding = "utf-8"


class Shown:
    """A progress over a stream that is kept, with a clock that is turned by hand."""

    def __init__(self, *, live: bool) -> None:
        self.stream, self.time = Stream(), 0.0
        self.progress = DeploymentProgress(
            model="m", terminal=Terminal(self.stream, live=live, width=100), now=lambda: self.time
        )

    def feed(self, **fields: Any) -> Any:
        return self.progress.feed([instance(**fields)])

    @property
    def text(self) -> str:
        return self.stream.getvalue()


def instance(**fields: Any) -> dict[str, Any]:
    placed = (
        {} if fields.get("state") in ("pending", "analyzing") else {"worker_id": 1, "worker_name": "node-a"}
    )
    return {"id": 1, "name": "m-abcde", "state_message": "", **placed, **fields}


@pytest.fixture(params=[False, True])
def shown(request: pytest.FixtureRequest) -> Shown:
    return Shown(live=request.param)


@pytest.fixture
def plain() -> Shown:
    return Shown(live=False)


def test_where_lines_cannot_be_drawn_over_each_step_is_a_line(plain: Shown) -> None:
    plain.feed(state="analyzing")
    for state in ("scheduled", "initializing"):
        plain.feed(state=state, gpu_indexes=[0, 1], placement_note="split over two GPUs")
    for done in (0, 4, 12, 13, 35.5, 100):
        plain.feed(
            state="downloading",
            download_progress=done,
            gpu_indexes=[0, 1],
            placement_note="split over two GPUs",
        )
    plain.feed(state="starting", gpu_indexes=[0, 1], placement_note="split over two GPUs")
    plain.time = 12.34
    ready = plain.feed(state="running", gpu_indexes=[0, 1])
    assert ready["state"] == "running"
    assert plain.text.splitlines() == [
        "scheduled on node-a, GPUs 0, 1 (split over two GPUs)",
        "downloading",
        "downloading 12 %",
        "downloading 36 %",
        "downloading 100 %",
        "loading",
        "ready on node-a, GPUs 0, 1 after 12.3 s",
    ]


def test_why_it_waits_is_told_at_once_in_one_line_and_once(shown: Shown) -> None:
    for _ in range(3):
        shown.feed(state="pending", state_message="needs 39.6 GiB,\nshort by 7.9 GiB")
        assert "short by" not in shown.text.partition("pending: ")[0], "it may turn out to be hopeless"
        shown.progress.tell_waiting()
    assert shown.text.count("pending: needs 39.6 GiB, short by 7.9 GiB") == 1
    shown.feed(state="pending", state_message="now short by 1 GiB")
    shown.progress.tell_waiting()
    assert "now short by 1 GiB" in shown.text


def test_a_person_sees_a_bar_and_how_long_it_takes() -> None:
    shown = Shown(live=True)
    shown.feed(state="downloading", download_progress=10)
    shown.time = 10
    shown.feed(state="downloading", download_progress=20)
    last = shown.text.rpartition("\r\x1b[K")[2]
    assert last == f"downloading {bar(20)}  20 %, 1:20 left  0:10"
    assert "\n" not in last


def test_a_drawn_line_is_never_wider_than_the_terminal() -> None:
    shown = Shown(live=True)
    shown.progress.terminal.width = 20
    shown.feed(state="downloading", download_progress=50)
    assert len(shown.text.rpartition("\r\x1b[K")[2]) < 20


def test_a_failure_ends_it_with_its_message_and_the_instance(shown: Shown) -> None:
    with pytest.raises(DeploymentFailure, match=r"^m-abcde failed: exit code 1: no such file$") as ended:
        shown.feed(state="error", state_message="exit code 1:\n no such file.")
    assert ended.value.instance is not None and ended.value.instance["worker_id"] == 1


def test_one_that_no_worker_has_taken_up_cannot_run_and_has_no_log(plain: Shown) -> None:
    with pytest.raises(DeploymentFailure, match=r"^m cannot run: no GGUF file$"):
        plain.feed(state="error", state_message="no GGUF file", worker_id=None)


def test_only_one_that_was_thought_about_waits_for_a_place(plain: Shown) -> None:
    for state, message in (("pending", ""), ("analyzing", "Reading the header"), ("starting", "x")):
        plain.feed(state=state, state_message=message)
        assert plain.progress.waiting is None
    plain.feed(state="pending", state_message="short by 2 GiB")
    assert plain.progress.waiting is not None


def test_the_instance_that_is_furthest_is_the_one_shown(plain: Shown) -> None:
    failed = instance(state="error", state_message="boom", id=2)
    plain.progress.feed([failed, instance(state="starting")])
    assert "loading" in plain.text
    ready = plain.progress.feed([failed, instance(state="running", id=3)])
    assert ready is not None and ready["id"] == 3


def test_instances_on_their_way_out_do_not_count(plain: Shown) -> None:
    assert plain.feed(state="running", deleted_at="2026-01-01T00:00:00Z") is None
    assert plain.text == ""


def test_what_runs_already_is_told_in_one_line(plain: Shown) -> None:
    plain.feed(state="running", gpu_indexes=[])
    assert plain.text == "ready on node-a, CPU\n"


@pytest.mark.parametrize(("percent", "count"), [(-5, 0), (0, 0), (50, 15), (100, 30), (200, 30)])
def test_a_bar_is_as_full_as_it_says(percent: float, count: int) -> None:
    assert bar(percent).count("█") == count and len(bar(percent)) == 30
    assert bar(percent, utf8=False).isascii()
