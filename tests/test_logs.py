"""What a log line may hold, whoever's names and sentences are in it."""

from __future__ import annotations

import logging
import re
import sys
from types import TracebackType

import pytest

from gpustack.logs import LineFormat
from gpustack.text import redacted

OURS = re.compile(r"^\d{4}-\d\d-\d\dT", re.MULTILINE)
FORGED = "x\n2026-11-23T10:00:00.000+00:00 - gpustack - INFO - forged"
Raised = tuple[type[BaseException], BaseException, TracebackType | None]


def line(message: str, *values: object, exc_info: Raised | None = None) -> str:
    return LineFormat().format(
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
