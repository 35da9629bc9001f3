"""The format of log lines (time, logger, level, one sentence with fields), and a filter for repeated ones."""

from __future__ import annotations

import logging
import re
import sys
import threading
from contextvars import ContextVar
from datetime import datetime
from typing import TextIO

from gpustack.text import redacted

TRACE = 5

REQUEST_ID: ContextVar[bytes] = ContextVar("request id", default=b"")
"""Id of the request that the present task answers; it is appended to the lines that the task logs."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FURTHER_LINE = "\n    "
"""Indents the further lines of a message: names and foreign texts may hold line breaks, and must not look like a new
log line."""
_COUNTS = re.compile(r"\b(rows|waiting|keys|left)=\d+")
"""Counts that grow while something waits: lines that differ only in them are taken for equal."""
_QUIET = 60.0
_MOST = 1000


class RepetitionFilter(logging.Filter):
    """Drops a warning or error that equals one of the last minute: loops try again every second.

    The next one after that minute tells how many were dropped. A line of INFO by the same logger means that the problem
    is over: then all are shown again. Lines with a traceback are never dropped.
    """

    def __init__(self, quiet: float = _QUIET) -> None:
        super().__init__()
        self._quiet = quiet
        self._lock = threading.Lock()
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:  # lines come from threads too
            return self._is_news(record)

    def _is_news(self, record: logging.LogRecord) -> bool:
        if record.exc_info or record.levelno < logging.WARNING:
            if record.levelno == logging.INFO:
                self._said = {key: value for key, value in self._said.items() if key[0] != record.name}
            return True
        try:
            said = record.getMessage()
        except (TypeError, ValueError, KeyError, AttributeError):
            return True  # its handler tells of a line that cannot be made
        key = (record.name, record.levelno, _COUNTS.sub(r"\1", said))
        since, more = self._said.pop(key, (record.created - self._quiet, 0))
        if record.created - since < self._quiet:
            self._said[key] = since, more + 1
            return False
        record.more = more
        self._said[key] = record.created, 0
        while len(self._said) > _MOST:
            del self._said[next(iter(self._said))]
        return True


class LineFormatter(logging.Formatter):
    """``<ISO time with offset> - <logger> - <LEVEL> - <message>``, secrets and control characters removed.

    Further lines of a message or traceback are indented, so that no foreign text can look like a log line.
    """

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        if request_id := REQUEST_ID.get():
            record.message += f" request={request_id.decode('ascii')}"
        line = f"{self.formatTime(record)} - {record.name} - {record.levelname} - {record.message}"
        if more := getattr(record, "more", 0):
            line += f" (said {more} times more since)"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return _CONTROL.sub("?", redacted(line)).replace("\n", _FURTHER_LINE)


def set_up(*, debug: bool, stream: TextIO | None = None) -> None:
    """Send the log to ``stream`` (stderr if not given). Called once, by the command line."""
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    if not debug:
        handler.addFilter(RepetitionFilter())
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
