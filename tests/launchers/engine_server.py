"""A server of speech or images under test as a process, and the requests that tests send it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from tests.child import ROOT, environment

KEY = "sesame"
BOUNDARY = "a-boundary-of-the-test"


@attrs.frozen
class Answer:
    """What was answered. Header names are small."""

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fault(self) -> str:
        return str(self.json["error"]["message"])

    @property
    def events(self) -> list[Any]:
        return [json.loads(line[6:]) for line in self.body.decode().split("\n\n") if line]


@attrs.frozen
class EngineServer:
    """A server that listens."""

    process: subprocess.Popen[bytes]
    url: str

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        *,
        key: str | None = KEY,
        method: str | None = None,
    ) -> Answer:
        headers = {"Content-Type": kind, **({} if key is None else {"Authorization": f"Bearer {key}"})}
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=120) as response:
                return _answer(response.status, response)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error)

    def post(self, path: str, document: object) -> Answer:
        return self.ask(path, json.dumps(document).encode())

    def send_form(self, path: str, *files: tuple[str, bytes], **fields: Any) -> Answer:
        return self.ask(path, form(files, fields), f"multipart/form-data; boundary={BOUNDARY}")

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("/metrics").body.decode(), re.MULTILINE)
        assert found is not None, name
        return float(found[1])


@contextmanager
def serving(
    program: str, *arguments: str, python: str = sys.executable, **env: str
) -> Iterator[EngineServer]:
    """``python -m program`` on a free port; what is left of it at the end is killed."""
    process = subprocess.Popen(
        [python, "-m", program, "--port", "0", *arguments],
        cwd=ROOT,
        env=environment(GPUSTACK_ENGINE_API_KEY=KEY, **env),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        yield EngineServer(process, _address(process))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stderr.close()


def form(files: Sequence[tuple[str, bytes]], fields: Mapping[str, Any]) -> bytes:
    """A form; lists are fields that come several times."""
    parts = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            parts.append(f'Content-Disposition: form-data; name="{name}"\r\n\r\n{one}'.encode())
    for name, content in files:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n\r\n'
        parts.append(head.encode() + content)
    delimiter = f"--{BOUNDARY}".encode()
    return b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--\r\n"


def _answer(status: int, response: Any) -> Answer:
    return Answer(status, {name.lower(): value for name, value in response.headers.items()}, response.read())


def _address(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    said = b""
    for line in process.stderr:
        said += line
        if (found := re.search(rb"listening on (\S+)\n", line)) is not None:
            return found[1].decode()
    raise AssertionError(f"exit code {process.wait(10)}: {said.decode(errors='replace')}")
