"""One sentence on how an engine ended, with its own last words."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from gpustack.nursery.group import Exit

_SEARCHED = 4000
"""Bytes of a log in which the last words are looked for."""
_SHOWN = 300
_CAUSE = re.compile(r"error loading model: (?=\S)")
"""What llama.cpp writes before the reason, which its later lines only repeat without it."""


_OUT_OF_MEMORY = ", which the kernel sends when memory runs out"


def obituary(how: Exit, log: Path, *, ready: bool) -> str:
    """How it ended, and the last line of its log. Reads the log: call it in a thread."""
    when = "" if ready else " before it was ready"
    words = last_words(log)
    if not words:
        return f"The engine {_ended(how)}{when}; its log is empty"
    # What was killed had no chance to say why.
    return f"The engine {_ended(how)}{when}{': ' if how.signal is None else '; its log ends: '}{words}"


def last_words(log: Path) -> str:
    """The line that tells the cause, or else the last that is worth showing; empty when there is none.

    It is without control characters.
    """
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _SEARCHED))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    plain = ["".join(c for c in line if c.isprintable()).strip() for line in reversed(lines)]
    for line in plain:
        if cause := _CAUSE.search(line):
            return line[cause.end() :][:_SHOWN]
    return next((line[:_SHOWN] for line in plain if line), "")


def _ended(how: Exit) -> str:
    if how.signal is not None:
        try:
            name = signal.Signals(how.signal).name
        except ValueError:
            name = f"signal {how.signal}"
        return f"was ended by {name}{_OUT_OF_MEMORY if how.signal == signal.SIGKILL else ''}"
    return "ended" if how.code is None else f"exited with code {how.code}"
