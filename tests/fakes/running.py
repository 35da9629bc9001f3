"""The test's end of a fake engine that runs as a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.child import child, said


@dataclass(frozen=True)
class RunningEngine:
    """A fake engine listening on ``url``. Its methods block; call them through a thread where that matters."""

    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def pid(self) -> int:
        return self.process.pid

    def order(self, **orders: Any) -> None:
        """Change fields of `tests.fakes.engine.Script`, or ``crash=CODE``; raises AssertionError if refused."""
        self._talk("POST", "/_control", orders)

    def seen(self, **at_least: int) -> dict[str, Any]:
        """What it saw (`tests.fakes.engine.Seen`), once every count named has been reached.

        Raises AssertionError when that does not happen within 30 s.
        """
        return self._talk("GET", f"/_control?{urllib.parse.urlencode(at_least)}")

    def _talk(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            answer: dict[str, Any] = json.load(response)
        assert response.status == 200, answer
        return answer


@contextlib.contextmanager
def running_engine(*arguments: str, log: Path | None = None, port: int = 0) -> Iterator[RunningEngine]:
    """Start a fake engine with further command-line ``arguments`` and wait until it listens."""
    with child(["-m", "tests.fakes.engine", "--port", str(port), *arguments], stderr=log) as process:
        yield RunningEngine(url=said(process).removeprefix("listening on "), process=process)
