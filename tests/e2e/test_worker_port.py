"""A real worker under attack on its own ports: it answers its server alone, and engines hear nobody but it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest

from gpustack.identity.derived_keys import DerivedKeys
from tests.daemon import Daemon, daemon
from tests.options.stream import endless_model

TOKEN = "the-token-of-the-cluster"


@attrs.frozen
class Cluster:
    """A server, a worker of its own, and what another machine that has joined was given."""

    server: Daemon
    worker: Daemon
    worker_port: int
    engine_port: int
    worker_id: int
    forward_key: str
    credential: str
    other_forward_key: str
    other_credential: str

    def ask(
        self, method: str, path: str, bearer: str | None, *, target: str | None = None
    ) -> tuple[int, bytes, bool]:
        """Status, body, and whether an engine has answered it."""
        headers = {"content-type": "application/json"}
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        if target is not None:
            headers["x-target-port"] = target
        with closing(http.client.HTTPConnection("127.0.0.1", self.worker_port, timeout=30)) as connection:
            connection.request(method, path, None if method == "GET" else b"{}", headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("x-gpustack-fault") is None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("worker-port")
    secret = {"GPUSTACK_TOKEN": TOKEN}
    with (
        daemon(folder / "server", "--disable-worker", env=secret) as server,
        daemon(folder / "worker", "--server-url", server.url, env=secret) as worker,
    ):
        listed = lambda: server.call("GET", "/v1/workers")[1]["items"]  # noqa: E731
        (record,) = server.until(lambda: [one for one in listed() if one["state"] == "ready"], "the worker")
        status, made = server.call("POST", "/v1/models", endless_model())
        assert status == 200, made
        (instance,) = server.running(made["name"])
        join = {"name": "other", "worker_uuid": "u-other", "ip": "127.0.0.9"}
        status, other = server.call("POST", "/v1/workers", join, {"authorization": f"Bearer {TOKEN}"})
        assert status == 200, other
        keys = DerivedKeys.of((folder / "server" / "jwt_secret_key").read_text())
        yield Cluster(
            server,
            worker,
            record["port"],
            instance["port"],
            record["id"],
            keys.forward_key(record["worker_uuid"]),
            (folder / "worker" / "worker_credential").read_text().strip(),
            other["forward_key"],
            other["credential"],
        )


METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE")
PATHS = (
    *("/", "/proxy/", "/proxy/v1/models", "/proxy", "/serveLogs/1", "/serveLogs/../../token", "/modelFacts"),
    *(
        "/metrics",
        "/debug/tasks",
        "/v1/models",
        "//proxy/v1/models",
        "/healthz/../proxy/v1/models",
        "/Proxy/",
    ),
)
WHO = ("forward_key of another worker", "credential", "credential of another worker", "token", "nobody")


def key_of(cluster: Cluster, who: str) -> str | None:
    return {
        WHO[0]: cluster.other_forward_key,
        WHO[1]: cluster.credential,
        WHO[2]: cluster.other_credential,
        WHO[3]: TOKEN,
        WHO[4]: None,
    }[who]


def test_the_servers_own_key_opens_the_door(cluster: Cluster) -> None:
    """So that the refusals below are not those of a door that is always closed."""
    status, _, _ = cluster.ask("GET", "/proxy/health", cluster.forward_key, target=str(cluster.engine_port))
    assert status != 401
    assert cluster.ask("GET", "/nothing", cluster.forward_key)[0] == 404


@pytest.mark.attack("worker")
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("path", PATHS)
def test_nobody_but_the_server_gets_anything_of_a_worker(cluster: Cluster, path: str, who: str) -> None:
    for method in METHODS:
        status, body, by_engine = cluster.ask(
            method, path, key_of(cluster, who), target=str(cluster.engine_port)
        )
        assert (status, by_engine) == (401, False), (method, status, body)


@pytest.mark.attack("worker")
@pytest.mark.parametrize("spelling", ["{}x", " {}", "{} ", "{}\t", "bearer {}"])
def test_the_key_is_compared_as_a_whole(cluster: Cluster, spelling: str) -> None:
    key = spelling.format(cluster.forward_key[:-1])
    assert cluster.ask("GET", "/nothing", key)[0] == 401


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    "target",
    [
        *(
            "22",
            "80",
            "0",
            "-1",
            "65536",
            "99999999999999999999",
            "1e3",
            "0x50",
            "",
            " ",
            "80,443",
            "127.0.0.1:80",
        ),
        *("server", "worker", "beside"),
    ],
)
def test_a_worker_forwards_only_to_ports_that_engines_hold(cluster: Cluster, target: str) -> None:
    named = {
        "server": cluster.server.url.rpartition(":")[2],
        "worker": str(cluster.worker_port),
        "beside": str(cluster.engine_port + 1),
    }
    status, _, by_engine = cluster.ask(
        "GET", "/proxy/v1/users", cluster.forward_key, target=named.get(target, target)
    )
    assert (status in (400, 503), by_engine) == (True, False)


def listening(pid: int) -> list[tuple[str, int]]:
    found = psutil.Process(pid).net_connections("inet")
    return [(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN]


@pytest.mark.attack("worker")
def test_an_engine_listens_on_loopback_alone_and_the_worker_on_nothing_more_than_it_says(
    cluster: Cluster, tiny_model: Path
) -> None:
    """The embedded llama.cpp beside the engine of a command."""
    body = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
    assert cluster.server.call("POST", "/v1/models", body)[0] == 200
    (real,) = cluster.server.running("tiny")
    engines = [
        address
        for child in psutil.process_iter()
        if child.pid != cluster.worker.process.pid and _holds(child, {cluster.engine_port, real["port"]})
        for address in listening(child.pid)
    ]
    assert {cluster.engine_port, real["port"]} <= {port for _, port in engines}
    assert {ip for ip, _ in engines} == {"127.0.0.1"}
    exporter = int(cluster.worker.exporter("worker").rpartition(":")[2].partition("/")[0])
    assert {port for _, port in listening(cluster.worker.process.pid)} == {cluster.worker_port, exporter}


def _holds(child: psutil.Process, ports: set[int]) -> bool:
    try:
        return any(port in ports for _, port in listening(child.pid))
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False


@pytest.mark.attack("worker")
def test_a_worker_that_is_barred_is_cut_off_and_kept_out_until_it_is_let_in(cluster: Cluster) -> None:
    """The last of these tests: the worker loses what it ran."""
    server, path = cluster.server, f"/v1/workers/{cluster.worker_id}"
    parts = cluster.server.url.rpartition("/")[2].split(":")
    with closing(http.client.HTTPConnection(parts[0], int(parts[1]), timeout=30)) as stream:
        asked = {"authorization": f"Bearer {cluster.credential}"}
        stream.request("GET", f"{path}/assignments", None, asked)
        answer = stream.getresponse()
        assert answer.status == 200
        assert answer.readline().startswith(b"{")
        status, barred = server.call("POST", f"{path}/bar", {})
        assert (status, barred["barred"], barred["state"]) == (200, True, "unreachable")
        assert answer.read() is not None, "its stream ends"
    status, _ = server.call(
        "POST", f"{path}/heartbeat", {}, {"authorization": f"Bearer {cluster.credential}"}
    )
    assert status == 401
    cluster.worker.until(lambda: "is barred" in cluster.worker.log, "the refusal in the worker's log")
    assert server.call("GET", path)[1]["barred"] is True
    assert not [one for one in server.instances() if one["worker_id"] == cluster.worker_id]
    assert server.call("POST", f"{path}/admit", {})[0] == 200
    server.until(lambda: server.call("GET", path)[1]["state"] == "ready", "the worker back")
    file = cluster.worker.data_dir / "worker_credential"
    server.until(lambda: file.read_text().strip() != cluster.credential, "another credential")
    kept = file.read_text().strip()
    told = server.call("GET", "/v1/audit-events?target_type=worker")[1]["items"]
    assert {one["action"] for one in told} >= {"worker.bar", "worker.admit", "worker.join"}
    assert kept not in json.dumps(told)


def test_what_a_worker_of_another_server_shows_is_no_key(cluster: Cluster) -> None:
    stolen: Any = cluster.other_credential
    status, _ = cluster.server.call(
        "POST", f"/v1/workers/{cluster.worker_id}/heartbeat", {}, {"authorization": f"Bearer {stolen}"}
    )
    assert status == 403
