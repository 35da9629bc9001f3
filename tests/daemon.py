"""A real daemon in a process of its own, with a data directory of its own, for tests that look from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.ports import free_range

EXPORTERS = ("--metrics-port", "--worker-metrics-port")
WITHIN = 60.0
"""Seconds anything here may take on a busy machine; nothing is measured by it."""


@attrs.define(eq=False)
class Daemon:
    """A running ``gpustack start``. ``log`` is its stderr."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    log_path: Path
    url: str = ""
    trust: Path | None = None
    """The certificate to believe in, where the daemon speaks TLS."""

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and parsed JSON of one request; an error status is an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("content-type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            context = None if self.trust is None else ssl.create_default_context(cafile=str(self.trust))
            with urllib.request.urlopen(request, timeout=WITHIN, context=context) as answer:
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read())

    def until(self, holds: Callable[[], Any], what: str, within: float = WITHIN) -> Any:
        """The first truthy value of ``holds``; fails with the daemon's log when there is none in time."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log[-8000:]}")
            found = holds()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"not in time: {what}\n{self.log[-8000:]}")

    def exporter(self, role: str) -> str:
        """Where the exporter of ``server`` or ``worker`` listens, as the log says."""
        said = re.compile(rf"Metrics of the {role}: (http://\S+)/metrics")
        found = self.until(lambda: said.findall(self.log), f"the exporter of the {role}")
        return str(found[-1])

    def instances(self, model: str | None = None) -> list[dict[str, Any]]:
        items = self.call("GET", "/v1/model-instances?perPage=100")[1]["items"]
        return [item for item in items if model is None or item["model_name"] == model]

    def running(self, model: str, count: int = 1, within: float = WITHIN) -> list[dict[str, Any]]:
        """Wait until that many instances of the model run."""

        def look() -> list[dict[str, Any]]:
            found = [item for item in self.instances(model) if item["state"] == "running"]
            return found if len(found) == count else []

        states = lambda: [(i["state"], i.get("state_message")) for i in self.instances(model)]  # noqa: E731
        try:
            return self.until(look, f"{count} running instances of {model}", within)  # type: ignore[no-any-return]
        except AssertionError as error:
            raise AssertionError(f"{states()}\n{error}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(WITHIN)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")


@contextmanager
def daemon(
    data_dir: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
    trust: Path | None = None,
    cwd: Path | None = None,
    first: Callable[[], None] | None = None,
    before: Sequence[str] = (),
) -> Iterator[Daemon]:
    """Start one on a free port; stopped (or killed, if it will not) at the end of the block.

    ``first`` is run in its process before its program; ``before`` is a command that starts it.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    log_path = data_dir.parent / f"{data_dir.name}.log"
    given = list(arguments)
    said = lambda option: _is_said(option, given, env or {})  # noqa: E731
    if not said("--server-url") and not said("--port"):
        given += ["--port", "0"] if said("--host") else ["--host", "127.0.0.1", "--port", "0"]
    for port in ("--worker-port", *EXPORTERS):
        if not said(port):
            given += [port, "0"]
    if not said("--service-port-range"):
        given += ["--service-port-range", free_range(16)]
    if not said("--data-dir"):
        given += ["--data-dir", str(data_dir)]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPUSTACK_", "GPU_STACK_", "HF_", "NOTIFY_SOCKET", "WATCHDOG"))
    }
    command = [*before, sys.executable, "-P", "-m", "gpustack", "start", *given]

    (data_dir / "server_url").unlink(missing_ok=True)
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**environment, **(env or {})},
            cwd=cwd,
            preexec_fn=first,
        )
    made = Daemon(process, data_dir, log_path, trust=trust)
    try:
        if wait and not said("--server-url"):
            made.url = made.until(lambda: _read(data_dir / "server_url"), "the address file")
            made.until(lambda: _ready(made), "readiness")
        yield made
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(WITHIN)


def _is_said(option: str, arguments: list[str], env: Mapping[str, str]) -> bool:
    """Whether the option is given in any of its three spellings."""
    name = option.removeprefix("--").replace("-", "_")
    if f"GPUSTACK_{name.upper()}" in env or any(one.split("=")[0] == option for one in arguments):
        return True
    if "--config-file" not in arguments:
        return False
    text = Path(arguments[arguments.index("--config-file") + 1]).read_text()
    return any(line.startswith(f"{name}:") for line in text.splitlines())


def _ready(made: Daemon) -> bool:
    try:
        return made.call("GET", "/readyz")[0] == 200
    except OSError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
