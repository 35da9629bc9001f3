"""On a machine with other users: who manages a running daemon without a key, and what the others may."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.child import environment
from tests.daemon import WITHIN, Daemon, daemon
from tests.e2e.test_access import CHAT, ENGINE, SAY
from tests.needs import requires_root

pytestmark = [pytest.mark.root, pytest.mark.attack("access")]

STRANGER, NOBODY = 12345, 65534
ASK = """
import encodings.idna, http.client, json, os, sys
given = json.load(sys.stdin)
os.setuid(given["user"])
connection = http.client.HTTPConnection(given["host"], given["port"], timeout=60)
connection.request(given["method"], given["path"], json.dumps(given["body"]), given["headers"])
if given["leaves"]:
    connection.sock.close()
    sys.exit(print(json.dumps([0, ""])))
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""
RELAY = """
import encodings.idna, os, socket, sys, threading
os.setuid(int(sys.argv[2]))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)
while True:
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    for pair in ((client, server), (server, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""
COMMANDS = """
import os, sys
import encodings.idna
from gpustack.cli.main import main
main(["ls"])
main(["doctor"])
main(["run", "authed", "hi"])
print("----", flush=True)
os.setuid(int(sys.argv[1]))
for command in (["run", "authed", "hi"], ["ls"], ["doctor"], ["rm", "authed"], ["reset-admin-password"]):
    print("exit", main(command), flush=True)
"""
STEAL = {
    "name": "stolen",
    "source": "local_path",
    "local_path": "/nonexistent",
    "backend": "custom",
    "command": "/bin/sh -c id",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    requires_root()
    with daemon(tmp_path_factory.mktemp("local") / "data", "--host", "::", "--port", "0") as one:
        command = f"{sys.executable} {ENGINE} --port {{port}}"
        for name, more in (
            ("authed", {}),
            ("named", {"access_policy": "allowed_users", "allowed_users": [1]}),
        ):
            body = {
                **STEAL,
                "name": name,
                "command": command,
                "health_path": "/health",
                "categories": ["llm"],
            }
            assert one.call("POST", "/v1/models", {**body, **more})[0] == 200
        for name in ("authed", "named"):
            one.running(name)
        yield one
        assert "Traceback" not in one.log


def port_of(server: Daemon) -> int:
    return int(server.url.rpartition(":")[2])


def ask(
    server: Daemon,
    user: int,
    method: str,
    path: str,
    body: object = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    headers: Mapping[str, str] | None = None,
    leaves: bool = False,
) -> tuple[int, Any]:
    """What a program of that user is answered."""
    given = {
        "user": user,
        "host": host,
        "port": port or port_of(server),
        "method": method,
        "path": path,
        "body": body,
        "headers": {"content-type": "application/json", **(headers or {})},
        "leaves": leaves,
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], input=json.dumps(given), capture_output=True, text=True, timeout=WITHIN
    )
    assert done.returncode == 0, done.stderr
    status, text = json.loads(done.stdout)
    return status, text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_root_manages_and_another_user_does_not(server: Daemon, host: str) -> None:
    assert ask(server, 0, "GET", "/v1/users", host=host)[0] == 200
    for method, path in (("POST", "/v1/models"), ("GET", "/v1/users"), ("DELETE", "/v1/models/1")):
        status, told = ask(server, STRANGER, method, path, STEAL, host=host)
        assert (status, "sudo" in told, "GPUSTACK_API_KEY" in told) == (403, True, True), (method, path, told)
    assert server.call("GET", "/v1/models?search=stolen")[1]["items"] == []


def test_another_user_uses_the_models_that_are_for_all_users(server: Daemon) -> None:
    assert ask(server, STRANGER, "POST", CHAT, {"model": "authed", **SAY})[0] == 200
    assert ask(server, STRANGER, "POST", CHAT, {"model": "named", **SAY})[0] == 404
    assert ask(server, 0, "POST", CHAT, {"model": "named", **SAY})[0] == 200
    status, told = ask(server, STRANGER, "GET", "/v1/models")
    assert (status, "authed" in told, "named" in told) == (200, True, False)


def test_who_leaves_before_the_answer_has_not_done_it_either(server: Daemon) -> None:
    """The socket of a program that has ended is root's, says the kernel."""
    for _ in range(20):
        ask(server, STRANGER, "POST", "/v1/models", STEAL, leaves=True)
    assert server.call("GET", "/v1/models?search=stolen")[1]["items"] == []


@contextmanager
def relay(server: Daemon, user: int) -> Iterator[int]:
    """A proxy on the machine that adds no header; the port it listens on."""
    command = [sys.executable, "-c", RELAY, str(port_of(server)), str(user)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_a_proxy_that_adds_no_header_makes_nobody_an_administrator(server: Daemon) -> None:
    with relay(server, NOBODY) as port:
        assert ask(server, 0, "GET", "/v1/users", port=port)[0] == 403
        assert ask(server, 0, "POST", CHAT, {"model": "authed", **SAY}, port=port)[0] == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-New", "Forwarded", "CF-Ray", "X-Real-IP", "Via"]
)
def test_a_proxy_that_adds_a_header_ends_the_exemption_whoever_runs_it(server: Daemon, header: str) -> None:
    assert ask(server, 0, "POST", CHAT, {"model": "authed", **SAY}, headers={header: "1"})[0] == 401
    assert ask(server, 0, "GET", "/v1/users", headers={header: "1"})[0] == 401


def test_commands_of_another_user_work_as_far_as_that_user_may_and_say_the_ways_out(server: Daemon) -> None:
    env = environment(GPUSTACK_SERVER_URL=server.url, HOME="/")
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(STRANGER)],
        env=env,
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    told = done.stdout.partition("----")[2]
    assert told.split("exit 0")[0].strip() == "Hello from the fake engine."
    assert "authed" in told and "named" not in told, done
    assert "you are another user of this machine" in told
    assert told.count("exit 1") >= 2 and "exit 0" in told, done
    for said in (
        "use sudo, or an API key that may (GPUSTACK_API_KEY for commands)",
        "run this on its machine with sudo",
    ):
        assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_log_says_who_may_do_what(server: Daemon) -> None:
    assert "listening on all addresses, here at http://[::1]:" in server.log
    assert "without a key programs of root manage it from this machine" in server.log


def test_with_force_auth_localhost_no_user_is_trusted(tmp_path: Path) -> None:
    requires_root()
    with daemon(tmp_path / "data", "--force-auth-localhost", "--disable-worker") as strict:
        for user in (0, STRANGER):
            assert ask(strict, user, "GET", "/v1/users")[0] == 401
            assert ask(strict, user, "GET", "/v1/models")[0] == 401
        assert "every request needs a key or login, from this machine too" in strict.log
