"""What the console makes of text from elsewhere without a browser: code to paste, and lines of logs."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.needs import requires

PAGES = Path(__file__).parents[2] / "console/src/pages"
HOSTILE = "it's \"a\" $(id) `id` \\ \n '; rm -rf / #  模型 é <b> {x} %s"
BODY = {
    "model": HOSTILE,
    "messages": [{"role": "user", "content": [{"type": "text", "text": HOSTILE}, {"n": None, "yes": True}]}],
    "temperature": 0.5,
    "top_k": 3,
}


def called(module: str, function: str, *arguments: object) -> Any:
    """What a function of a module of the console returns."""
    script = (
        f"import {{ {function} as asked }} from {json.dumps((PAGES / module).as_uri())};"
        "console.log(JSON.stringify(asked(...process.argv.slice(1).map((one) => JSON.parse(one)))));"
    )
    given = [json.dumps(argument) for argument in arguments]
    command = [requires("node"), "--input-type=module", "-e", script, "--", *given]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


@pytest.fixture(scope="module")
def code() -> dict[str, str]:
    found: dict[str, str] = called("playground/code.js", "codeOf", "chat", BODY, "http://127.0.0.1:80")
    return found


def test_a_shell_reads_the_body_in_the_code_as_it_was(code: dict[str, str]) -> None:
    words = shlex.split(code["curl"])
    assert words[:2] == ["curl", "http://127.0.0.1:80/v1/chat/completions"]
    assert json.loads(words[words.index("-d") + 1]) == BODY


def test_python_reads_the_body_in_the_code_as_it_was(code: dict[str, str]) -> None:
    calls = [node for node in ast.walk(ast.parse(code["python"])) if isinstance(node, ast.Call)]
    given = next(call.keywords for call in calls if any(one.arg == "messages" for one in call.keywords))
    fields = {str(one.arg): ast.literal_eval(one.value) for one in given}
    extra = fields.pop("extra_body")
    assert {**fields, **extra} == BODY


def test_no_code_holds_a_key(code: dict[str, str]) -> None:
    assert all("GPUSTACK_API_KEY" in text for text in code.values())


@pytest.mark.parametrize(
    ("line", "plain", "raw"),
    [
        ("\x1b[1;31mred\x1b[0m text", "red text", "␛[1;31mred␛[0m text"),
        ("\x1b]0;a title\x07said", "said", "␛]0;a title␇said"),
        ("10 %\r50 %\r100 %\r", "100 %", "10 %␍50 %␍100 %␍"),
        ("back\u202ewards\x00", "back�wards␀", "back�wards␀"),
        ("<b>bold</b>", "<b>bold</b>", "<b>bold</b>"),
    ],
)
def test_lines_of_a_log_show_what_a_terminal_would_or_all_of_it(line: str, plain: str, raw: str) -> None:
    assert called("instance/ansi.js", "readable", line, False) == plain
    assert called("instance/ansi.js", "readable", line, True) == raw


@pytest.mark.attack("flood")
def test_a_line_of_very_many_returns_does_not_hold_up_the_page() -> None:
    script = (
        f"import {{ readable }} from {json.dumps((PAGES / 'instance/ansi.js').as_uri())};"
        "console.log(readable('\\r'.repeat(1e6) + 'x', false));"
    )
    command = [requires("node"), "--input-type=module", "-e", script]
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stdout == b"x\n"


def test_a_search_marks_every_place_whatever_the_case() -> None:
    assert called("instance/lines.js", "partsOf", "An error, no ERROR", "error") == [
        "An ",
        "error",
        ", no ",
        "ERROR",
        "",
    ]
    assert called("instance/lines.js", "partsOf", "nothing", "error") == ["nothing"]


@pytest.mark.parametrize(
    ("start", "end", "most"), [("2026-02-25", "2026-03-02", 6), ("2024-01-01", "2026-12-31", 37)]
)
def test_bars_of_usage_stand_for_every_day_once(start: str, end: str, most: int) -> None:
    periods = called("usage/sums.js", "periodsOf", start, end)
    days = [
        (date.fromisoformat(one["from"]) + timedelta(later)).isoformat()
        for one in periods
        for later in range((date.fromisoformat(one["to"]) - date.fromisoformat(one["from"])).days + 1)
    ]
    assert len(periods) == most
    assert (days[0], days[-1], len(days)) == (start, end, len(set(days)))


def test_events_are_read_whole_however_their_lines_are_cut_and_each_is_kept_once() -> None:
    told = called(
        "events/told.js", "readLines", '{"type":1,"data":{"id":7}}\n\n{"type":6,"data":null}\n\n{"ty'
    )
    assert told == {"events": [{"id": 7}], "synced": True, "rest": '{"ty'}
    merged = called("events/told.js", "merged", [{"id": 9}, {"id": 7}], [{"id": 8}, {"id": 7}])
    assert [one["id"] for one in merged] == [9, 8, 7]
