"""The logs of several instances as one text."""

from __future__ import annotations

import io

from gpustack.cli.log_merging import LogMerge
from gpustack.cli.terminal import Terminal


def merged(*, prefixed: bool = True, live: bool = False, colour: bool = False) -> tuple[LogMerge, io.BytesIO]:
    out = io.BytesIO()
    terminal = Terminal(io.StringIO(), live=live, colour=colour)
    return LogMerge(terminal, prefixed=prefixed, out=out), out


def test_lines_stand_whole_behind_the_name_of_their_instance() -> None:
    merge, out = merged()
    one, other = merge.source("m-1"), merge.source("model-2")
    one.take(b"a\nhalf")
    other.take(b"b\n")
    one.take(b" a line\n")
    other.take(b"no end")
    one.end()
    other.end()
    assert out.getvalue().decode().splitlines() == [
        "m-1     | a",
        "model-2 | b",
        "m-1     | half a line",
        "model-2 | no end",
    ]


def test_one_log_passes_as_it_is() -> None:
    merge, out = merged(prefixed=False)
    source = merge.source("m-1")
    source.take(b"half\xff")
    source.end()
    assert out.getvalue() == b"half\xff"


def test_at_a_terminal_names_have_colours_and_logs_cannot_steer_it() -> None:
    merge, out = merged(live=True, colour=True)
    one, other = merge.source("m-1"), merge.source("m-2")
    one.take(b"\x1b]0;title\x07x\n")
    other.take(b"y\n")
    text = out.getvalue().decode()
    assert "\x1b[36mm-1 |\x1b[0m " in text and "\x1b[32mm-2 |\x1b[0m y" in text and "\x1b]" not in text


def test_a_line_without_end_does_not_grow_in_memory() -> None:
    merge, out = merged()
    source = merge.source("m-1")
    for _ in range(3):
        source.take(b"x" * 70_000)
    assert out.getvalue().count(b"m-1 | ") == 3
