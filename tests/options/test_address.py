"""Where a daemon listens and is reached: host names, IPv6, ports that run out, an address that changes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.child import ROOT, environment
from tests.daemon import daemon
from tests.needs import requires
from tests.options.spelling import spelled
from tests.options.stream import endless_model


@pytest.mark.parametrize(
    ("host", "url", "spelling"),
    [
        ("::1", "http://[::1]:", "flag"),
        ("localhost", "http://", "environment"),
        ("127.0.0.5", "http://127.0.0.5:", "file"),
    ],
)
def test_host_takes_addresses_of_both_kinds_and_names(
    tmp_path: Path, host: str, url: str, spelling: str
) -> None:
    arguments, env = spelled(spelling, tmp_path, {"host": host})
    with daemon(tmp_path / "data", *arguments, env=env) as one:
        assert one.url.startswith(url)
        assert one.call("GET", "/v1/models")[0] == 200
        port = int(one.url.rpartition(":")[2])
        with socket.socket() as probe:
            probe.settimeout(5)
            assert probe.connect_ex(("127.0.0.9", port)) != 0, "nobody listens where it was not told to"


def test_an_instance_without_a_port_says_so_and_runs_when_one_frees(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with daemon(tmp_path / "data", "--service-port-range", f"{port}-{port}") as one:
            assert one.call("POST", "/v1/models", endless_model())[0] == 200

            def complaint() -> str:
                (item, *_) = one.instances("endless") or [{}]
                return str(item.get("state_message") or "")

            said = one.until(lambda: "widen" in complaint() and complaint(), "why it does not start")
            assert f"No port of {port}-{port} is free" in said
            assert "--service-port-range" in said
            held.close()
            (instance,) = one.running("endless")
            assert instance["port"] == port


IN_A_NETWORK_OF_ITS_OWN = """
import subprocess, sys
from pathlib import Path
from tests.daemon import daemon

def ip(*words):
    subprocess.run(["ip", *words], check=True)

def address(server):
    found = {one["name"]: one["ip"] for one in server.call("GET", "/v1/workers")[1]["items"]}
    return found.get("mover")

folder = Path(sys.argv[1])
ip("link", "set", "lo", "up")
ip("address", "add", "10.7.0.1/32", "dev", "lo")
ip("route", "add", "default", "dev", "lo", "src", "10.7.0.1")
with daemon(folder / "server", "--disable-worker", "--token", "t" * 16) as server:
    given = ("--server-url", server.url, "--token", "t" * 16, "--worker-name", "mover")
    with daemon(folder / "worker", *given):
        server.until(lambda: address(server) == "10.7.0.1", "the detected address")
        ip("address", "add", "10.7.0.2/32", "dev", "lo")
        ip("route", "replace", "default", "dev", "lo", "src", "10.7.0.2")
        ip("address", "del", "10.7.0.1/32", "dev", "lo")
        server.until(lambda: address(server) == "10.7.0.2", "the new address")
print("followed")
"""


def test_worker_ip_is_detected_and_followed_when_it_changes(tmp_path: Path) -> None:
    """In a network namespace, where addresses can be changed without touching the machine's."""
    unshare = requires("unshare", apt="util-linux")
    requires("ip", apt="iproute2")
    if subprocess.run([unshare, "-Urn", "true"], capture_output=True, timeout=30).returncode != 0:
        pytest.skip("this system lets nobody make a network namespace")
    command = [unshare, "-Urn", sys.executable, "-c", IN_A_NETWORK_OF_ITS_OWN, str(tmp_path)]
    ran = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert ran.stdout == "followed\n", ran.stderr[-4000:]
