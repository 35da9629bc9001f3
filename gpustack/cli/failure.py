"""How a command fails: its exit codes, the two failures of its own, and the one place that reports any failure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from gpustack.errors import GpustackError

FAILED, MISUSED, TIMED_OUT, INTERRUPTED = 1, 2, 124, 130
"""Exit codes beside 0: a failure told in one line, a wrong command line or configuration, not in time, Ctrl-C."""


class UsageError(GpustackError):
    """The command line or the configuration is wrong. ``usage`` is what the command line could be."""

    def __init__(self, sentence: str, usage: str = "") -> None:
        self.usage = usage
        super().__init__(sentence)


class WaitTimeout(GpustackError):
    """What was waited for did not come in the time that the command line gives it."""


class DryRunEnd(Exception):  # how a command ends that was to change nothing, no fault
    """The end of a command with ``--dry-run``, raised where it would have changed something. It is no GpustackError,
    so that nothing survives it on the way to ``main``."""

    def __init__(self, changes: list[dict[str, Any]]) -> None:
        self.changes = changes
        super().__init__(f"{len(changes)} changes are left out")


def report(error: BaseException) -> int:
    """Print a failure to stderr and return the exit code for it; of a group every failure in it.

    It is ``gpustack: `` and one line; a wrong command line comes as it is, with what could be written. Ctrl-C prints
    nothing. Raises ``error`` where it is, or its group holds, anything but failures that we can name.
    """
    leaves = list(_leaves(error))
    if not all(isinstance(one, GpustackError | KeyboardInterrupt) for one in leaves):
        raise error
    return max(_report_one(one) for one in leaves)


def _report_one(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, UsageError):
        print(error, file=sys.stderr)
        if error.usage:
            print(error.usage, file=sys.stderr)
        return MISUSED
    print(f"gpustack: {' '.join(str(error).split())}", file=sys.stderr)
    return TIMED_OUT if isinstance(error, WaitTimeout) else FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
