"""How a command fails: its exit codes, a wrong command line with what could be written, and a wait without end."""

from __future__ import annotations

import sys

from gpustack.errors import GpustackError

FAILED, MISUSED, TIMED_OUT, INTERRUPTED = 1, 2, 124, 130
"""Exit codes beside 0: a failure told in one line, a wrong command line, not in time, Ctrl-C."""


class UsageError(GpustackError):
    """The command line is wrong. ``usage`` is what it could be."""

    def __init__(self, sentence: str, usage: str = "") -> None:
        self.usage = usage
        super().__init__(sentence)


class WaitTimeout(GpustackError):
    """What was waited for did not come in the time that the command line gives it."""


def complain(error: UsageError) -> None:
    """Print what is wrong and what could be written, to stderr."""
    print(error, file=sys.stderr)
    if error.usage:
        print(error.usage, file=sys.stderr)
