"""A real Prometheus, with the configuration and the alerts that we ship, scrapes a real daemon and its engine."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from tests.daemon import WITHIN, Daemon, daemon
from tests.metrics.page import series
from tests.needs import requires

SHIPPED = Path(__file__).resolve().parent.parent.parent / "contrib" / "monitoring"


@attrs.frozen
class Prometheus:
    url: str
    watched: Daemon

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series of an instant query, or none while it does not answer."""
        try:
            return list(self._get(f"query?{urllib.parse.urlencode({'query': query})}")["data"]["result"])
        except OSError:
            return []

    def targets(self) -> list[dict[str, Any]]:
        try:
            return list(self._get("targets")["data"]["activeTargets"])
        except OSError:
            return []

    def until(self, query: str) -> list[dict[str, Any]]:
        """Wait until the query has an answer, and return it."""
        found = self.watched.until(lambda: self.ask(query), f"{query}; {self.targets()}")
        return list(found)

    def until_gone(self, query: str) -> None:
        self.watched.until(lambda: self.ask("up") and not self.ask(query), f"no more {query}")

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=WITHIN) as answer:
            return json.load(answer)


def configuration(one: Daemon) -> dict[str, Any]:
    """The shipped example, its placeholder replaced, in a hurry."""
    text = (SHIPPED / "prometheus.yml").read_text()
    text = text.replace("gpustack.example:10161", one.exporter("server").removeprefix("http://"))
    made: dict[str, Any] = yaml.safe_load(text)
    made["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in made["scrape_configs"]:
        for discovery in job.get("http_sd_configs", ()):
            discovery["refresh_interval"] = "1s"
    return made


@contextmanager
def prometheus(one: Daemon, folder: Path) -> Iterator[Prometheus]:
    program = requires("prometheus")
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration(one)))
    (folder / "gpustack.rules.yml").write_text((SHIPPED / "gpustack.rules.yml").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}", one)
        assert process.poll() is None, (folder / "log").read_text()
    finally:
        process.terminate()
        process.wait(WITHIN)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("watched")
    with daemon(folder / "data") as one:
        deploy(one, "tiny", tiny_model)
        with prometheus(one, folder / "prometheus") as scraper:
            yield scraper


def deploy(one: Daemon, name: str, path: Path) -> int:
    status, model = one.call(
        "POST",
        "/v1/models",
        {"name": name, "source": "local_path", "local_path": str(path), "backend_parameters": ["-c", "512"]},
    )
    assert status == 200, model
    one.running(name)
    return int(model["id"])


def chat(one: Daemon, name: str) -> int:
    body = {"model": name, "messages": [{"role": "user", "content": "Who are you?"}]}
    return one.call("POST", "/v1/chat/completions", body)[0]


def test_server_and_worker_are_up_and_the_worker_is_found_through_the_server(watched: Prometheus) -> None:
    watched.until('up{job="gpustack-server"} == 1')
    watched.until('up{job="gpustack-worker"} == 1')
    assert {target["health"] for target in watched.targets()} == {"up"}
    assert all(not target["lastError"] for target in watched.targets())


def test_names_arrive_as_they_are_documented(watched: Prometheus) -> None:
    (found,) = watched.until("gpustack:model_info")
    assert found["metric"]["model_name"] == "tiny"
    assert found["metric"]["runtime"] == "llama-box"
    assert found["metric"]["cluster_name"] == "default"
    (worker,) = watched.until('gpustack:worker_status{state="ready"}')
    (memory,) = watched.until("gpustack:worker_node_memory_total_bytes")
    assert memory["metric"]["worker_id"] == worker["metric"]["worker_id"]
    assert float(memory["value"][1]) > 0


def test_a_request_is_seen_by_the_gateway_and_by_its_engine(watched: Prometheus) -> None:
    assert chat(watched.watched, "tiny") == 200
    watched.until('gpustack:gateway_requests_total{model_name="tiny",status="200"} >= 1')
    watched.until('gpustack:gateway_tokens_total{model_name="tiny",kind="completion"} >= 1')
    watched.until('gpustack:gateway_time_to_first_byte_seconds_count{model_name="tiny"} >= 1')
    (found,) = watched.until('gpustack:generation_tokens_total{model_name="tiny"} >= 1')
    assert found["metric"]["runtime"] == "llama-box"
    assert chat(watched.watched, "missing") == 404
    watched.until('gpustack:gateway_requests_total{model_id="",status="404"} >= 1')


def test_a_model_that_is_deleted_leaves_no_series_behind(watched: Prometheus, tiny_model: Path) -> None:
    one = watched.watched
    number = deploy(one, "gone", tiny_model)
    assert chat(one, "gone") == 200
    watched.until('gpustack:num_requests_running{model_name="gone"}')
    watched.until('gpustack:gateway_requests_total{model_name="gone"}')
    assert one.call("DELETE", f"/v1/models/{number}")[0] == 200
    watched.until_gone('{model_name="gone"}')


def test_our_alerts_are_loaded_and_none_fires_for_a_cluster_that_is_well(watched: Prometheus) -> None:
    def groups() -> list[dict[str, Any]]:
        (group,) = watched._get("rules")["data"]["groups"]
        return list(group["rules"])

    watched.watched.until(
        lambda: all(rule["health"] == "ok" for rule in groups()), "the alerts are evaluated"
    )
    assert not [rule["name"] for rule in groups() if rule["state"] == "firing"]


@pytest.mark.parametrize("role", ["server", "worker"])
def test_promtool_finds_nothing_but_the_colons(watched: Prometheus, role: str) -> None:
    """Dashboards for GPUStack know the names with their colon; all else that promtool looks at is as it wants it."""
    promtool = requires("promtool", apt="prometheus")
    page = scraped(watched.watched.exporter(role))
    assert series(page)
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode().splitlines()
    assert [line for line in said if not line.endswith("metric names should not contain ':'")] == []
    plain = page.replace(b"gpustack:", b"gpustack_")
    subprocess.run([promtool, "check", "metrics"], input=plain, capture_output=True, timeout=60, check=True)


def test_what_engines_say_is_there_as_they_say_it(watched: Prometheus) -> None:
    page = scraped(watched.watched.exporter("worker"), "/metrics/raw")
    names = {name for name, _ in series(page)}
    assert "llamacpp:requests_processing" in names
    assert all(("model_name", "tiny") in labels for _, labels in series(page) if "gone" not in str(labels))


def scraped(url: str, path: str = "/metrics") -> bytes:
    with urllib.request.urlopen(url + path, timeout=WITHIN) as answer:
        page: bytes = answer.read()
    return page
