"""A new engine without code: an administrator describes it by command, a deployment runs it, its metrics are ours."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from tests.cli.shell import Shell
from tests.daemon import daemon

ENGINE = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def say(self, kind, text):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        metrics = "# TYPE echo:waiting gauge\\necho:waiting 7\\n"
        self.say("text/plain", metrics if self.path == "/metrics" else "well")

    def do_POST(self):
        said = {"role": "assistant", "content": os.environ["GREETING"]}
        self.rfile.read(int(self.headers["content-length"]))
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        self.say("application/json", json.dumps({"choices": [{"index": 0, "message": said}], "usage": usage}))

    def log_message(self, *said):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

BACKEND = """
name: Echo Server
description: Says what its environment says.
versions:
  "1.0":
    command: "{python} {engine} {{port}}"
  "2.0":
    command: "no-such-echo --port {{port}}"
default_version: "1.0"
env:
  GREETING: Hello from {{served_name}}
health_path: /well
categories: [llm]
metrics:
  echo:waiting: gpustack:num_requests_waiting
install: Put no-such-echo on PATH
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("backends")
    (folder / "engine.py").write_text(ENGINE)
    with daemon(folder / "data") as one:
        yield Shell(one, folder)


def test_an_engine_described_in_yaml_serves_a_deployment(shell: Shell) -> None:
    text = BACKEND.format(python=sys.executable, engine=shell.cwd / "engine.py")
    (shell.cwd / "echo.yaml").write_text(text)
    assert "There are none yet" in shell("backends").stderr
    assert shell.good("backends", "add", "-f", "echo.yaml") == "Echo Server is added\n"
    written = shell.good("backends", "show", "Echo Server")
    (shell.cwd / "again.yaml").write_text(written)
    assert shell.good("backends", "add", "-f", "again.yaml") == "Echo Server is changed\n"
    assert shell.good("backends", "show", "Echo Server") == written

    model = {"name": "hi", "source": "local_path", "local_path": "/nothing", "backend": "echo_server"}
    status, made = shell.daemon.call("POST", "/v1/models", model)
    assert (status, made["backend"], made["categories"]) == (200, "Echo Server", ["llm"])
    shell.daemon.until(
        lambda: [i for i in shell.daemon.instances("hi") if i["state"] == "running"], "it runs"
    )
    asked = {"model": "hi", "messages": [{"role": "user", "content": "x"}]}
    status, answer = shell.daemon.call("POST", "/v1/chat/completions", asked)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello from hi")

    page = shell.daemon.exporter("worker") + "/metrics"

    def waiting() -> list[str]:
        with urllib.request.urlopen(page, timeout=30) as got:
            lines = got.read().decode().splitlines()
        return [line for line in lines if line.startswith("gpustack:num_requests_waiting{")]

    (line,) = shell.daemon.until(waiting, "its metrics")
    assert line.endswith(" 7.0") and 'runtime="Echo Server"' in line

    head, row = shell.good("backends", "ls").splitlines()[:2]
    assert head.split()[:2] == ["NAME", "VERSIONS"] and "1.0, 2.0" in row and "hi" in row
    assert "is in use by hi" in shell.bad("backends", "rm", "Echo Server")


def test_a_program_that_is_not_there_is_told_with_what_to_install(shell: Shell) -> None:
    model = {
        "name": "no",
        "source": "local_path",
        "local_path": "/x",
        "backend": "echo-server",
        "backend_version": "2.0",
    }
    status, answer = shell.daemon.call("POST", "/v1/models", model)
    assert status == 200, answer

    def told() -> str:
        (one,) = shell.daemon.instances("no") or [{}]
        return str(one.get("state_message") or "")

    said = shell.daemon.until(lambda: "no-such-echo" in told() and told(), "the reason")
    assert said.endswith("there is no program no-such-echo. Put no-such-echo on PATH")
    shell.daemon.call("DELETE", f"/v1/models/{shell.daemon.instances('no')[0]['model_id']}")


def test_a_file_that_is_no_backend_is_refused_in_a_sentence(shell: Shell) -> None:
    for text, sentence in (
        ("- 1", "a backend is a mapping with a name"),
        ("name: x\nversions: {1.10: {command: 'x {port}'}}", "write the version 1.1 in quotes"),
        ("{", "it is not YAML"),
        ("name: x\nhealth_paht: /", "a backend has no health_paht; did you mean health_path?"),
    ):
        (shell.cwd / "bad.yaml").write_text(text)
        ran = shell("backends", "add", "-f", "bad.yaml")
        assert (ran.returncode, sentence in ran.stderr) == (2, True), ran.stderr
    good = json.dumps({"name": "v.llm", "versions": {"1": {"command": "x {nothing}"}}})
    ran = shell("backends", "add", "-f", "-", stdin=good)
    assert (
        ran.returncode == 1
        and "must contain {port}" in ran.stderr
        and "{nothing}, which is none" in ran.stderr
    )


def test_what_a_file_does_not_say_any_more_is_dropped(shell: Shell) -> None:
    said = 'name: shrinks\nversions: {"1": {command: "x {port}"}}\n'
    shell.good(
        "backends", "add", "-f", "-", stdin=f"{said}env: {{A: b}}\nhealth_path: /up\ncategories: [llm]"
    )
    shell.good("backends", "add", "-f", "-", stdin=said)
    assert set(yaml.safe_load(shell.good("backends", "show", "shrinks"))) == {
        "name",
        "versions",
        "default_version",
    }
