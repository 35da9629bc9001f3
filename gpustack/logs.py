"""Log lines for an operator at three in the morning: time, logger, level, one sentence with fields."""

from __future__ import annotations

import logging
import re
import sys
from datetime import datetime
from typing import TextIO

from gpustack.text import redacted

TRACE = 5

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FURTHER_LINE = "\n    "
"""Names, paths and other parties' sentences may hold line breaks: only a line of ours begins at the margin."""


class LineFormat(logging.Formatter):
    """``<ISO time with offset> - <logger> - <LEVEL> - <message>``, secrets and control characters removed.

    Further lines of a message or traceback are indented, so that nobody can write a line that looks like ours.
    """

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        line = f"{self.formatTime(record)} - {record.name} - {record.levelname} - {record.message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return _CONTROL.sub("?", redacted(line)).replace("\n", _FURTHER_LINE)


def set_up(*, debug: bool, stream: TextIO | None = None) -> None:
    """Send the log to ``stream`` (stderr if not given). Called once, by the command line."""
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormat())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    for chatty in (
        "httpx",
        "httpx2",
        "httpcore",
        "hypercorn.error",
        "hypercorn.access",
        "quart.app",
        "alembic",
        "filelock",
    ):
        logging.getLogger(chatty).setLevel(logging.INFO if debug else logging.WARNING)
