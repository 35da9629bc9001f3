"""How a command fails: its exit codes, and a wrong command line with what could be written."""

from __future__ import annotations

import sys

from gpustack.errors import GpustackError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes beside 0: a failure told in one line, a wrong command line, Ctrl-C."""


class Misuse(GpustackError):
    """The command line is wrong. ``usage`` is what it could be."""

    def __init__(self, sentence: str, usage: str = "") -> None:
        self.usage = usage
        super().__init__(sentence)


def complain(error: Misuse) -> None:
    """Print what is wrong and what could be written, to stderr."""
    print(error, file=sys.stderr)
    if error.usage:
        print(error.usage, file=sys.stderr)
