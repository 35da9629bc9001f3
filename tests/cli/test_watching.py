"""Lists that are shown while they change, and the GPUs of ``gpustack gpus``."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest

from gpustack.cli.columns import Column, fitted, shortened, width_of
from gpustack.cli.commands.gpus import _order, _row, _top_row
from gpustack.cli.gpu_load import bar, free, holders_of, sums
from gpustack.cli.output import Row, draw_table
from gpustack.cli.terminal import Terminal
from gpustack.cli.watching import ListView, Tell, Written, follow
from gpustack.domain.unit import GIB
from gpustack.errors import Unavailable
from gpustack.remote.admin_client import AdminClient

HEADS = ("NAME", "STATE", Column("PORT", wide=True), Column("AGE", ticks=True))


def row(one: dict[str, Any]) -> Row:
    return Row(
        [one["name"], one["state"], str(one.get("port")), str(one["age"])], remark=one.get("why") or ""
    )


def one(key: int, state: str = "pending", age: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": key, "name": f"m-{key}", "state": state, "age": age, **more}


class Pipe:
    def __init__(self, form: str = "table") -> None:
        self.stream = io.StringIO()
        self.told = Written(ListView(heads=HEADS, row=row), Terminal(self.stream), form)

    def take(self, *documents: dict[str, Any]) -> list[str]:
        """The lines that this adds."""
        before = len(self.stream.getvalue())
        self.told.take(documents)
        return self.stream.getvalue()[before:].splitlines()


def test_in_a_pipe_a_change_is_a_row_and_passing_time_is_none() -> None:
    pipe = Pipe()
    assert pipe.take(one(1), one(2, why="no room")) == [
        "NAME  STATE    AGE",
        "m-1   pending  0",
        "m-2   pending  0",
        "  no room",
    ]
    assert pipe.take(one(1, age=1), one(2, age=1, why="no room")) == []
    assert pipe.take(one(1, "running", 2), one(2, age=2, why="no room")) == ["m-1   running  2"]
    assert pipe.take(one(1, "running", 2), one(3, "\x1b[2Jx", 2)) == ["m-3   \ufffd[2Jx    2", "m-2 is gone"]
    assert pipe.take(one(2, age=9))[0] == "m-2   pending  9", "it is new again"


def test_in_a_pipe_json_is_a_line_for_each_change() -> None:
    pipe = Pipe("json")
    (line,) = pipe.take(one(1))
    assert json.loads(line) == {"event": "changed", "item": one(1)}
    assert pipe.take(one(1)) == []
    assert json.loads(pipe.take(one(1, "running"))[0])["item"]["state"] == "running"
    assert json.loads(pipe.take()[0]) == {"event": "gone", "item": {"id": 1, "name": "m-1"}}
    assert Pipe("yaml").take(one(1))[:2] == ["---", "event: changed"]


async def test_a_server_that_goes_away_is_waited_for_and_that_is_told_once(autojump_clock: object) -> None:
    told: list[str] = []
    looks = iter(["here", "away", "away", "here", "end"])

    async def feed(client: AdminClient, tell: Tell) -> None:
        look = next(looks)
        if look == "end":
            raise KeyError(look)
        if look == "away":
            raise Unavailable("nobody answers")
        tell([one(1)])

    with pytest.raises(KeyError):
        await follow(None, feed, lambda found: told.append("list"), told.append)  # type: ignore[arg-type]
    assert told == ["list", "nobody answers; trying again", "", "list"]
    with pytest.raises(Unavailable):  # at first it is no interruption
        looks = iter(["away"])
        await follow(None, feed, lambda found: None, told.append)  # type: ignore[arg-type]


def table(width: int, *cells: Sequence[str], wide: bool = False) -> list[str]:
    terminal = Terminal(io.StringIO(), live=True, width=width)
    heads = ("NAME", "SOURCE", Column("PORT", wide=True), Column("AGE", whole=True))
    return draw_table(heads, [Row(list(one)) for one in cells], terminal, wide=wide).splitlines()


def test_on_a_narrow_terminal_the_widest_columns_are_shortened_in_their_middle() -> None:
    cells = ("qwen3-0.6b-x7k2p", "Qwen/Qwen3-0.6B-GGUF:*Q8_0*.gguf", "40000", "2026-01-31 08:00")
    lines = table(60, cells)
    assert max(map(width_of, lines)) <= 60 and "PORT" not in lines[0]
    assert lines[1] == "qwen3-0.6b-x7k2p  Qwen/Qwen3-0~*Q8_0*.gguf  2026-01-31 08:00"
    assert table(20, cells)[1].endswith("2026-01-31 08:00"), "what must be whole is, whatever comes of it"
    assert all(cell in table(20, cells, wide=True)[1] for cell in cells)


@pytest.mark.parametrize("width", range(1, 14))
def test_what_is_shortened_has_the_width_asked_for_or_one_less(width: int) -> None:
    for text in ("abcdefghijklmn", "通义千问大模型七号", "a通b义c千d问e"):
        assert width - 1 <= width_of(shortened(text, width)) <= width
    assert shortened("abc", 3) == "abc" and width_of("e\u0301通") == 3


def test_widths_that_fit_are_left_alone() -> None:
    columns = [Column("A"), Column("B")]
    assert fitted([10, 20], columns, 80) == [10, 20]
    assert fitted([40, 20], columns, 42) == [20, 20]
    assert fitted([12, 30], columns, 5) == [12, 12], "there is a least width"


def gpu(index: int, *, used: int = 0, claimed: int = 0, others: int = 0, **more: Any) -> dict[str, Any]:
    memory = {"total": 10 * GIB, "used": used * GIB, "allocated": claimed * GIB, "foreign": others * GIB}
    place = {"id": f"a:cuda:{index}", "index": index, "worker_id": 1, "worker_name": "a"}
    return {**place, "name": "NVIDIA H200", "memory": memory, **more}


def test_a_bar_tells_what_is_used_by_whom_and_what_is_claimed() -> None:
    assert bar(gpu(0, used=5, claimed=6, others=2)["memory"], 10) == "███▓▓░░░··"
    assert bar(gpu(0, used=9, claimed=4)["memory"], 10, utf8=False) == "#########."
    assert bar(gpu(0, used=90, claimed=4)["memory"], 10) == "█" * 10
    assert bar({"total": None}, 4) == "????" and bar(gpu(0)["memory"], 4) == "····"
    for used in range(11):
        for claimed in range(11):
            assert len(bar(gpu(0, used=used, claimed=claimed, others=used // 2)["memory"], 7)) == 7


def test_free_is_what_nobody_has_claimed_or_uses_without_a_claim() -> None:
    assert free(gpu(0, used=5, claimed=6, others=2)["memory"]) == 2 * GIB
    assert free(gpu(0, claimed=9, others=2)["memory"]) == 0
    assert free({}) is None


def test_the_instances_on_a_gpu_are_those_of_all_members() -> None:
    share = {"worker_id": 2, "gpu_indexes": [0]}
    gang = {"name": "g", "worker_id": 1, "gpu_indexes": [0, 1]}
    found = holders_of(
        [
            {**gang, "distributed_servers": {"subordinate_workers": [share]}},
            {"name": "b", "worker_id": 1, "gpu_indexes": [1]},
            {"name": "waits", "worker_id": None, "gpu_indexes": None},
        ]
    )
    assert found == {(1, 0): ["g"], (1, 1): ["b", "g"], (2, 0): ["g"]}


def test_gpus_come_in_the_order_asked_for_and_what_is_unknown_is_no_zero() -> None:
    every = [
        gpu(1, used=1, temperature=70.0, core={"utilization_rate": 5.0}),
        gpu(0, claimed=9, temperature=30.0, core={"utilization_rate": 50.0}),
        gpu(2, core=None),
    ]

    def order(by: str) -> list[int]:
        return [one["index"] for one in sorted(every, key=_order(by))]

    assert (order("name"), order("load"), order("memory")) == ([0, 1, 2], [0, 1, 2], [0, 1, 2])
    assert order("temperature") == [1, 0, 2]
    texts = [str(getattr(cell, "text", cell)) for cell in _row({**gpu(2), "memory": {}, "core": None}).cells]
    assert texts[:8] == ["a:cuda:2", "H200", "-", "-", "-", "-", "-", "-"]
    names = [f"model-{n}" for n in range(4)]
    crowded = _top_row({**gpu(2), "instances": names}, Terminal(io.StringIO()))
    assert crowded.cells[-1] == "model-0, model-1 and 2 more"
    assert _row(gpu(0, others=2)).remark == "2.0 GiB is used by other programs"
    assert sums(every) == "3 GPUs on 1 worker: 9.0/30.0 GiB claimed, 1.0 GiB used, 28 % busy"
