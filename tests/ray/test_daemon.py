"""A daemon with Ray, seen from outside: its dashboard for administrators, and its metrics through our exporters."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import WITHIN, Daemon, daemon
from tests.databases import Server
from tests.fakes.ray_program import RayProgram
from tests.nursery.programs import is_running
from tests.options.test_ray import PORTS
from tests.ports import free_ports, free_range

PASSWORD = "Adas_1_password"


def arguments() -> list[str]:
    ports = zip(PORTS, free_ports(len(PORTS)), strict=True)
    single = [text for option, port in ports for text in (f"--{option.replace('_', '-')}", str(port))]
    return ["--enable-ray", *single, "--ray-worker-port-range", free_range(20)]


def path_with(program: RayProgram) -> dict[str, str]:
    return {"PATH": f"{program.folder}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> RayProgram:
    return RayProgram.within(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def one(program: RayProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    data = tmp_path_factory.mktemp("ray") / "data"
    with daemon(data, "--force-auth-localhost", *arguments(), env=path_with(program)) as running:
        running.until(lambda: "Ray is up" in running.log, "Ray")
        yield running


def read(url: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=WITHIN) as answer:
            return (
                answer.status,
                {name.lower(): value for name, value in answer.headers.items()},
                answer.read(),
            )
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


@pytest.fixture(scope="module")
def admin(one: Daemon) -> dict[str, str]:
    password = (one.data_dir / "initial_admin_password").read_text().strip()
    basic = {"authorization": _basic("admin", password)}
    new = {"current_password": password, "new_password": PASSWORD}
    assert one.call("POST", "/auth/update-password", new, basic)[0] == 200
    return {"authorization": _basic("admin", PASSWORD)}


def _basic(name: str, password: str) -> str:
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


def test_the_dashboard_is_there_for_administrators_alone(one: Daemon, admin: dict[str, str]) -> None:
    status, headers, page = read(f"{one.url}/ray", admin)  # its addresses are relative: /ray becomes /ray/
    assert (status, page) == (200, b"<p>ray</p>")
    assert headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert one.call("POST", "/v1/users", {"username": "ada", "password": PASSWORD}, admin)[0] == 200
    user = {"authorization": _basic("ada", PASSWORD)}
    assert read(f"{one.url}/ray/")[0] == 401
    assert {read(f"{one.url}/ray/{path}", user)[0] for path in ("", "api/version")} == {403}


def test_rays_token_is_added_and_ours_stay_here(
    one: Daemon, admin: dict[str, str], program: RayProgram
) -> None:
    token = program.calls[0]["env"]["RAY_AUTH_TOKEN"]
    status, seen = one.call("GET", "/ray/api/v0/nodes?limit=3&f=a%20b", headers={**admin, "cookie": "x=y"})
    assert status == 200
    assert seen == {
        "path": "/api/v0/nodes?limit=3&f=a+b",
        "asked_by": f"Bearer {token}",
        "cookie": None,
        "agent": "Mozilla/5.0 (GPUStack)",  # so that Ray leaves out the secrets of runtime environments
        "mode": "cors",
    }


def test_nothing_is_changed_through_it_and_no_log_is_a_page_of_ours(
    one: Daemon, admin: dict[str, str]
) -> None:
    """Ray's ``POST /api/jobs/`` runs any program."""
    assert one.call("POST", "/ray/api/jobs/", {"entrypoint": "id"}, admin)[0] == 405
    status, headers, page = read(f"{one.url}/ray/logs/raylet.out", admin)
    assert (status, page) == (200, b"<p>ray</p>")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    "path",
    [
        *("task/cpu_profile", "worker/gpu_profile?pid=1", "memory_profile", "worker/traceback?pid=1"),
        *("api/v0/delay/1000", "test/dump", "api/packages/gcs/x.zip"),
        *("/test/dump", "api//packages/gcs/x", "memory%5Fprofile", "memory_profile/", "worker/traceback/."),
    ],
)
def test_reading_sets_nothing_going_on_a_machine(one: Daemon, admin: dict[str, str], path: str) -> None:
    assert one.call("GET", f"/ray/{path}", headers=admin)[0] == 404


def test_the_metrics_of_ray_are_passed_on_by_our_exporters(one: Daemon) -> None:
    for role in ("server", "worker"):
        status, headers, page = read(f"{one.exporter(role)}/metrics/ray")
        assert (status, page) == (200, b"ray_node_up 1\n")
        assert headers["content-type"].startswith("text/plain")
    url = f"{one.exporter('server')}/metrics/targets/ray"
    port = one.exporter("worker").rpartition(":")[2]
    found = one.until(lambda: _targets(url), "the target")
    assert [target.rpartition(":")[2] for target in found[0]["targets"]] == [port]
    assert found[0]["labels"]["__metrics_path__"] == "/metrics/ray"


def _targets(url: str) -> Any:
    found = json.loads(read(url)[2])
    return found if found[0]["targets"] else None


def test_the_worker_says_how_its_ray_is(one: Daemon, admin: dict[str, str]) -> None:
    (worker,) = one.call("GET", "/v1/workers", headers=admin)[1]["items"]
    assert worker["status"]["ray"]["state"] in ("starting", "up")


def test_without_ray_there_is_no_dashboard_and_what_was_left_of_it_is_ended(tmp_path: Path) -> None:
    program = RayProgram.within(tmp_path / "bin")
    with daemon(tmp_path / "data", *arguments(), env=path_with(program)) as former:
        former.until(lambda: "Ray is up" in former.log, "Ray")
        former.process.kill()
        former.process.wait(WITHIN)
    (call,) = program.calls
    assert is_running(call["pid"])
    with daemon(tmp_path / "data") as one:
        assert not is_running(call["pid"])
        assert not (tmp_path / "data/run/ray.json").exists()
        status, problem = one.call("GET", "/ray/")
        assert status == 404
        assert problem["message"] == "Ray is off: start the servers and workers with --enable-ray"


def test_the_next_leader_takes_the_head_over(tmp_path: Path, servers: Callable[[str], Server]) -> None:
    """Its worker was a node of the former head, and becomes the head itself."""
    database = servers("postgresql")
    url = database.create()
    one_ray, other_ray = RayProgram.within(tmp_path / "one-bin"), RayProgram.within(tmp_path / "other-bin")
    try:
        with ExitStack() as stack:

            def server(name: str, program: RayProgram) -> Daemon:
                env = {"GPUSTACK_DATABASE_URL": url, **path_with(program)}
                given = [*arguments(), "--worker-ip", "127.0.0.1", "--worker-name", name]
                return stack.enter_context(daemon(tmp_path / name, *given, env=env))

            one = server("one", one_ray)
            one.until(lambda: "Ray is up: part=head" in one.log, "the head")
            other = server("other", other_ray)
            other.until(lambda: "Ray is up: part=node" in other.log, "the node")
            status, problem = other.call("GET", "/ray/")
            assert status == 503
            assert problem["message"] == f"Ray's dashboard is at the server that leads: {one.url}"
            one.stop()
            other.until(lambda: "Ray is up: part=head" in other.log, "the head at the next leader")
            assert other.call("GET", "/ray/api/version")[0] == 200
    finally:
        database.drop(url)
    assert ["--head" in call["argv"] for call in other_ray.calls] == [False, True]
