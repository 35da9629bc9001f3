"""What a log line may hold, whoever's names and sentences are in it."""

from __future__ import annotations

import io
import logging
import re
import sys
from types import TracebackType

import pytest

from gpustack.logs import LineFormatter, RepetitionFilter, set_up
from gpustack.text import redacted

OURS = re.compile(r"^\d{4}-\d\d-\d\dT", re.MULTILINE)
FORGED = "x\n2026-11-23T10:00:00.000+00:00 - gpustack - INFO - forged"
Raised = tuple[type[BaseException], BaseException, TracebackType | None]


def line(message: str, *values: object, exc_info: Raised | None = None) -> str:
    return LineFormatter().format(
        logging.LogRecord("gpustack.x", logging.INFO, "x.py", 1, message, values, exc_info)
    )


def raised(message: str) -> Raised:
    try:
        raise ValueError(message)
    except ValueError:
        kind, error, trace = sys.exc_info()
        assert kind is not None and error is not None
        return kind, error, trace


@pytest.mark.attack("forged-line")
def test_a_name_with_a_line_break_cannot_forge_a_line() -> None:
    assert len(OURS.findall(line("Joined: worker=%s", FORGED))) == 1
    assert len(OURS.findall(line("Failed", exc_info=raised(FORGED)))) == 1


@pytest.mark.attack("forged-line")
def test_what_steers_a_terminal_is_taken_out_of_messages_and_tracebacks() -> None:
    steering = "\x1b]52;c;aGk=\x07 \x9b31m \u202e \r \x85 \u2028"
    for text in (line("%s", steering), line("Failed", exc_info=raised(steering))):
        assert not set(text) & set("\x1b\x07\x9b\u202e\r\x85\u2028")


@pytest.mark.attack("forged-line")
def test_a_message_of_several_lines_stays_one() -> None:
    assert line("tree\n├─ a\n└─ b").endswith("tree\n    ├─ a\n    └─ b")


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer Hunter2x",
        "Basic Hunter2x",
        "gpustack_0123456789abcdef_Hunter2x",
        "gpustack_worker_7_Hunter2x",
        "token=Hunter2x",
        '{"password": "Hunter2x"}',
        "{'api_key': 'Hunter2x'}",
        "secret: Hunter2x",
        "postgresql://gpustack:Hunter2x@db.example/gpustack",
        "http://me:Hunter2x@proxy:3128",
    ],
)
def test_secrets_are_not_logged_in_any_of_their_forms(text: str) -> None:
    assert "Hunter2x" not in redacted(text)
    assert "Hunter2x" not in line("%s", text)


@pytest.mark.parametrize("text", ["http://host:8080/a@b", "port=8080 worker=a", "tokens: 12 a"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def at(
    second: float, message: str, level: int = logging.WARNING, name: str = "gpustack.x"
) -> logging.LogRecord:
    record = logging.LogRecord(name, level, "x.py", 1, message, (), None)
    record.created = second
    return record


def test_a_loop_that_tries_again_each_second_says_so_once_a_minute_and_how_often() -> None:
    kept = RepetitionFilter()
    said = [
        LineFormatter().format(record).partition(" - WARNING - ")[2]
        for second in range(150)
        if kept.filter(record := at(second, f"Usage waits for the database: rows={second} reason=away"))
    ]
    assert said == [
        "Usage waits for the database: rows=0 reason=away",
        "Usage waits for the database: rows=60 reason=away (said 59 times more since)",
        "Usage waits for the database: rows=120 reason=away (said 59 times more since)",
    ]


def test_another_fault_another_logger_and_the_same_after_it_was_over_are_news() -> None:
    kept = RepetitionFilter()
    assert kept.filter(at(0, "The database fails: reason=a"))
    assert not kept.filter(at(1, "The database fails: reason=a"))
    assert kept.filter(at(2, "The database fails: reason=b"))
    assert kept.filter(at(2, "The database fails: reason=a", name="gpustack.y"))
    assert kept.filter(at(3, "worker=1 is gone")) and kept.filter(at(3, "worker=2 is gone"))
    assert kept.filter(at(4, "The database is back", logging.INFO))
    assert kept.filter(at(5, "The database fails: reason=a"))
    assert not kept.filter(at(5, "The database fails: reason=a", name="gpustack.y"))
    for _ in range(2):
        assert kept.filter(at(6, "Joined", logging.INFO)), "what is no fault is never kept back"
        traced = at(6, "Failed", logging.ERROR)
        traced.exc_info = raised("x")
        assert kept.filter(traced)


def test_a_line_that_cannot_be_made_raises_in_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    kept = RepetitionFilter()
    wrong = logging.LogRecord("x", logging.WARNING, "f", 1, "%d pieces", ("many",), None)
    assert kept.filter(wrong)


def test_an_error_is_not_the_warning_of_the_same_words() -> None:
    kept = RepetitionFilter()
    assert kept.filter(at(0, "It does not work")) and kept.filter(at(1, "It does not work", logging.ERROR))


def test_what_is_remembered_of_lines_is_bounded() -> None:
    kept = RepetitionFilter()
    for number in range(5000):
        assert kept.filter(at(0, f"{number} is wrong"))
    assert kept.filter(at(1, "0 is wrong")) and not kept.filter(at(1, "4999 is wrong"))


@pytest.mark.parametrize(("debug", "lines"), [(False, 1), (True, 3)])
def test_the_daemon_keeps_repetitions_back_unless_it_debugs(debug: bool, lines: int) -> None:
    root = logging.getLogger()
    handlers, level, out = root.handlers[:], root.level, io.StringIO()
    try:
        set_up(debug=debug, stream=out)
        for _ in range(3):
            logging.getLogger("gpustack.test").warning("It does not work")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert out.getvalue().count("It does not work") == lines
