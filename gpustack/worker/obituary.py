"""One sentence on how an engine ended, with its own last words."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from gpustack.nursery.group import Exit

_SEARCHED = 4000
"""Bytes of a log in which the last words are looked for."""
_SHOWN = 300


def obituary(how: Exit, log: Path, *, ready: bool) -> str:
    """How it ended, and the last line of its log. Reads the log: call it in a thread."""
    when = "" if ready else " before it was ready"
    words = last_words(log)
    return f"The engine {_ended(how)}{when}{f': {words}' if words else '; its log is empty'}"


def last_words(log: Path) -> str:
    """The last line that is worth showing, without control characters; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _SEARCHED))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    plain = ("".join(c for c in line if c.isprintable()).strip() for line in reversed(lines))
    return next((line[:_SHOWN] for line in plain if line), "")


def _ended(how: Exit) -> str:
    if how.signal is not None:
        try:
            name = signal.Signals(how.signal).name
        except ValueError:
            name = f"signal {how.signal}"
        return f"was ended by {name}"
    return "ended" if how.code is None else f"exited with code {how.code}"
