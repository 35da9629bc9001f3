"""How failures of commands are told, and with which exit code."""

from __future__ import annotations

import pytest

from gpustack.cli.failure import FAILED, INTERRUPTED, MISUSED, TIMED_OUT, UsageError, WaitTimeout, report
from gpustack.errors import Unavailable


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (Unavailable("The server\nis away"), FAILED, "gpustack: The server is away\n"),
        (WaitTimeout("Not in time"), TIMED_OUT, "gpustack: Not in time\n"),
        (UsageError("Two\nlines", "Usage:\n  gpustack ls"), MISUSED, "Two\nlines\nUsage:\n  gpustack ls\n"),
        (KeyboardInterrupt(), INTERRUPTED, ""),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), INTERRUPTED, ""),
        (
            ExceptionGroup("", [Unavailable("one"), ExceptionGroup("", [Unavailable("two")])]),
            FAILED,
            "gpustack: one\ngpustack: two\n",
        ),
    ],
)
def test_a_failure_is_told_once_with_its_exit_code(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    assert capsys.readouterr() == ("", told)


def test_a_bug_is_not_told_as_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("", [Unavailable("one"), KeyError("bug")])
    with pytest.raises(ExceptionGroup) as raised:
        report(group)
    assert raised.value is group
    assert capsys.readouterr() == ("", "")


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize("error", [Unavailable, UsageError])
def test_what_a_server_says_does_not_steer_the_terminal(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    report(error("\x1b]0;title\x07 \x9b2J \u202eback"))
    told = capsys.readouterr().err
    assert told.rstrip("\n").isprintable() and "title" in told
