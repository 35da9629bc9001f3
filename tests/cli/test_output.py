"""Tables, and values as people read them."""

from __future__ import annotations

import io
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpustack.cli import phrase
from gpustack.cli.command_line import CommandLine
from gpustack.cli.failure import UsageError
from gpustack.cli.output import Cell, Row, as_json, draw_table, show, write_file
from gpustack.cli.terminal import Terminal, terminal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_columns_are_aligned_and_remarks_follow_their_row() -> None:
    rows = [Row(["a", Cell("running", "green"), "1"]), Row(["longer", Cell("pending"), "22"], remark="why")]
    assert draw_table(["NAME", "STATE", "N"], rows, Terminal(io.StringIO())).splitlines() == [
        "NAME    STATE    N",
        "a       running  1",
        "longer  pending  22",
        "  why",
    ]


def test_a_remark_is_broken_between_words_where_a_person_reads_it() -> None:
    words = [f"word-{n}" for n in range(20)]
    rows = [Row(["a"], remark=" ".join(words))]
    shown = draw_table(["NAME"], rows, Terminal(io.StringIO(), live=True, width=30)).splitlines()[2:]
    assert max(map(len, shown)) < 30 and " ".join(line.strip() for line in shown).split() == words
    assert all(line.startswith("  word-") for line in shown)
    assert len(draw_table(["NAME"], rows, Terminal(io.StringIO(), width=30)).splitlines()) == 3, "in a pipe"


def test_colours_do_not_move_columns() -> None:
    rows = [Row([Cell("x", "red"), "1"]), Row([Cell("yyy", "green"), "2"])]
    plain = draw_table(["A", "B"], rows, Terminal(io.StringIO()))
    coloured = draw_table(["A", "B"], rows, Terminal(io.StringIO(), colour=True))
    assert "\x1b[31mx\x1b[0m  " in coloured
    for code in ("1", "31", "32", "0"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == plain


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "env", "live", "colour"),
    [
        (Tty(), {"TERM": "xterm"}, True, True),
        (Tty(), {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        (Tty(), {"TERM": "dumb"}, False, False),
        (io.StringIO(), {"TERM": "xterm"}, False, False),
    ],
)
def test_colours_show_on_terminals_that_want_them(
    stream: io.StringIO, env: dict[str, str], live: bool, colour: bool
) -> None:
    found = terminal(stream, env)
    assert (found.live, found.colour) == (live, colour)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86400 * 12.5, "12d")]
)
def test_ages_have_one_unit(seconds: float, text: str) -> None:
    assert phrase.age((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == text


@pytest.mark.parametrize("value", [None, "", "yesterday", 5])
def test_an_age_that_is_unknown_is_a_dash(value: object) -> None:
    assert phrase.age(value, NOW) == "-"


def test_the_zulu_instants_of_the_api_are_read() -> None:
    assert phrase.age("2025-12-31T23:57:00Z", NOW) == "3m"
    assert phrase.age("2025-12-31T23:57:00", NOW) == "3m"


def test_sizes_and_sources_are_short() -> None:
    assert (phrase.size(3 << 30), phrase.size(None)) == ("3.0 GiB", "-")
    of_hub = {"source": "huggingface", "huggingface_repo_id": "a/b", "huggingface_filename": "*Q4*"}
    assert phrase.source(of_hub) == "a/b:*Q4*"
    assert phrase.source({"source": "local_path", "local_path": "/m.gguf"}) == "/m.gguf"
    assert phrase.source({"ollama_library_model_name": "llama3:8b"}) == "ollama:llama3:8b", "as run takes it"


def test_a_failed_instance_tells_when_it_starts_again() -> None:
    failed = {"state": "error", "state_message": "It broke.\n", "next_retry_at": "2026-01-01T00:00:12Z"}
    assert phrase.reason(failed, NOW) == "It broke; starts again in 12s"
    assert phrase.reason({**failed, "state_message": ""}, NOW) == "starts again in 12s"
    assert phrase.reason(failed, NOW + timedelta(seconds=12)) == "It broke."
    assert phrase.reason({**failed, "next_retry_at": None}, NOW) == "It broke."


LINE = CommandLine({"--output": "table"}, "")


def test_what_others_say_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A worker, an engine or the header of a file may say anything; colours of ours stay."""
    show(LINE, {}, lambda: "\x1b[31mred\x1b[0m\tone\ntwo \x1b]0;title\x07 \x9b2J \u202egnp")
    shown = capsys.readouterr().out
    assert shown == "\x1b[31mred\x1b[0m\tone\ntwo \ufffd]0;title\ufffd \ufffd2J \ufffdgnp\n"


def test_a_file_is_replaced_and_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("old")
    there.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(there)
    write_file(LINE, str(link), "new")
    assert link.is_symlink() and there.read_text() == "new"
    assert stat.S_IMODE(there.stat().st_mode) == 0o600
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(LINE, str(pipe), "told")
        assert os.read(reader, 100) == b"told"
    finally:
        os.close(reader)
    assert pipe.is_fifo(), "as /dev/null would be"
    with pytest.raises(UsageError, match="missing"):
        write_file(LINE, str(tmp_path / "missing" / "x"), "new")


@pytest.mark.attack("forged-line")
def test_json_holds_what_would_steer_a_terminal_as_escapes() -> None:
    document = {"name": "\x9b2J\u202eüü 模型\U000e0041\x7f"}
    text = as_json(document, indent=None)
    assert text.isprintable() and "üü 模型" in text and json.loads(text) == document
