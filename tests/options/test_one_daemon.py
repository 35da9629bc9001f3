"""Options of a server with a worker, given in each spelling to one daemon, each seen from outside."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpustack.cli.checks.ports import ports_of
from gpustack.identity.derived_keys import DerivedKeys
from tests.daemon import WITHIN
from tests.e2e.test_handover import ending, holder
from tests.fakes.cas import running_cas
from tests.fakes.hub import running_hub
from tests.fakes.mirror import TAG, llama_server, running_mirror, tarball
from tests.fakes.registry import MODEL, running_registry
from tests.nursery.programs import is_running
from tests.options.spelling import SPELLINGS
from tests.options.stream import endless_model, stream_of
from tests.options.world import ADDRESS, HUB_TOKEN, PASSWORD, TOKEN, World, world

GIB = 1 << 30
LARGE = 40 << 20
KEPT = bytes(range(256)) * (44 << 10)


@pytest.fixture(scope="module", params=SPELLINGS)
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp(f"by-{request.param}")
    with (
        running_hub() as hub,
        running_mirror() as mirror,
        running_cas() as cas,
        running_registry() as registry,
    ):
        registry.add("me/small:7b", {MODEL: KEPT})
        hub.tokens[HUB_TOKEN] = {"me/gated"}
        hub.add("me/kept", {"kept.gguf": KEPT})
        cas.files[hashlib.sha256(KEPT).hexdigest()] = KEPT
        hub.xet = cas.headers
        hub.add("me/gated", {"large.gguf": bytes(LARGE)}, gated=True)
        for arch in ("x64", "arm64"):
            for link, version in (("", "4713"), ("static-", "4712")):
                archive = tarball({"llama-server": llama_server(version)})
                mirror.add(f"llama-{TAG}-bin-ubuntu-{link}{arch}.tar.gz", archive)
        mirror.add_hashes()
        with world(request.param, folder, hub, mirror, cas, registry) as made:
            yield made


def test_data_dir_holds_the_identity(one: World) -> None:
    held = {path.name for path in (one.folder / "data").iterdir()}
    assert {"lock", "worker_uuid", "server_url"} <= held


def test_advertise_url_is_where_workers_reach_it(one: World) -> None:
    """Servers that share a database tell it to workers: ``tests/e2e/test_servers.py``."""
    (server,) = one.call("GET", "/v1/servers")[1]["items"]
    assert server["url"] == "https://one.example:8443"
    assert server["is_live"] is server["is_leading"] is True


def test_database_url_of_a_file_keeps_the_records_there(one: World) -> None:
    with sqlite3.connect(f"file:{one.folder}/own.db?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (1,)
    connection.close()
    assert not (one.folder / "data/database.db").exists()


def test_debug_logs_more(one: World) -> None:
    assert " - DEBUG - " in one.daemon.log


def test_host_and_port_are_where_it_listens(one: World) -> None:
    assert one.daemon.url == f"http://127.0.0.1:{one.values['port']}"
    assert one.values["port"] in ports_of(one.daemon.process.pid)


def test_token_lets_workers_join_and_no_other_does(one: World) -> None:
    assert one.joined["name"] == "silent"
    assert one.daemon.call("POST", "/v1/workers", {}, {"authorization": "Bearer another"})[0] == 401
    assert not (one.folder / "data/token").exists()


def test_bootstrap_password_is_the_first_of_admin(one: World) -> None:
    status, me = one.call("GET", "/v1/users/me")
    assert (status, me["username"], me["require_password_change"]) == (200, "admin", False)
    assert not (one.folder / "data/initial_admin_password").exists()
    assert PASSWORD not in one.daemon.log


def test_force_auth_localhost_leaves_no_caller_unasked(one: World) -> None:
    assert one.daemon.call("GET", "/v1/users/me")[0] == 401


def test_jwt_secret_key_is_used_and_none_is_made(one: World) -> None:
    """What is kept of an API key was made with it, and could not have been without."""
    assert not (one.folder / "data/jwt_secret_key").exists()
    _, made = one.call("POST", "/v1/api-keys", {"name": "of the tests"})
    with sqlite3.connect(f"file:{one.folder}/own.db?mode=ro", uri=True) as connection:
        (kept,) = connection.execute("SELECT secret_hash FROM api_keys").fetchone()
    connection.close()
    assert kept == DerivedKeys.of(one.values["jwt_secret_key"]).api_hash(made["value"].rpartition("_")[2])


def test_heartbeat_interval_is_told_to_who_joins(one: World) -> None:
    assert one.joined["heartbeat_interval"] == 0.5


def test_worker_name_is_the_name_of_its_record(one: World) -> None:
    assert one.worker()["name"] == one.values["worker_name"]


def test_worker_ip_and_worker_port_are_where_it_is_reached(one: World) -> None:
    record = one.worker()
    assert (record["ip"], record["port"]) == (ADDRESS, one.values["worker_port"])
    assert one.values["worker_port"] in ports_of(one.daemon.process.pid)


def test_system_reserved_is_left_to_the_system(one: World) -> None:
    assert one.worker()["system_reserved"] == {"ram": 3 * GIB, "vram": 0}


def test_resources_are_believed(one: World) -> None:
    def cores() -> bool:
        return bool(one.worker()["status"]["cpu"]["total"] == 7)

    one.daemon.until(cores, "the cores as told")


def test_llama_server_path_is_the_first_build(one: World) -> None:
    def first() -> Any:
        engines = one.worker()["status"].get("engines") or [{}]
        return engines[0].get("path")

    assert one.daemon.until(first, "the builds") == str(one.values["llama_server_path"])


def test_cache_dir_holds_what_is_fetched_with_huggingface_token_in_the_ranges_of_hf_transfer(
    one: World,
) -> None:
    record = one.fetched("me/gated", "large.gguf")
    (path,) = record["resolved_paths"]
    assert path == str(one.folder / "cache/huggingface/me/gated/large.gguf")
    assert Path(path).stat().st_size == LARGE
    asked = one.hub.bodies("*large.gguf")
    assert len({request.range for request in asked}) == 3  # one of 64 MiB without the option
    assert HUB_TOKEN not in one.daemon.log


def test_enable_hf_xet_fetches_by_xet_what_the_hub_keeps_there(one: World) -> None:
    record = one.fetched("me/kept", "kept.gguf")
    assert Path(record["resolved_paths"][0]).read_bytes() == KEPT
    assert "block" in one.cas.log
    assert not one.hub.bodies("*kept.gguf")


def test_ollama_library_base_url_is_where_its_models_are_fetched_from(one: World) -> None:
    record = one.brought({"source": "ollama_library", "ollama_library_model_name": "me/small:7b"})
    assert record["resolved_paths"] == [str(one.folder / "cache/ollama/me/small/7b/model.gguf")]
    assert Path(record["resolved_paths"][0]).read_bytes() == KEPT


def test_tools_download_base_url_is_fetched_from_and_bin_dir_holds_it(one: World) -> None:
    """The static build, as GPUSTACK_DISABLE_DYNAMIC_LINK_LLAMA_BOX says."""
    program = one.folder / "bin/llama.cpp/llama-server"
    one.daemon.until(program.is_file, "the program")
    assert "version: 4712 " in program.read_text()
    assert one.mirror.sent(".tar.gz") > 0

    def origins() -> bool:
        found = {build.get("path") for build in one.worker()["status"].get("engines") or ()}
        return str(program) in found

    one.daemon.until(origins, "the fetched build in the worker's status")


def test_heartbeat_timeout_and_reschedule_grace_judge_who_is_silent(one: World) -> None:
    """It was ready when it joined; by default it would be given up after five minutes."""

    def state() -> bool:
        record = one.call("GET", f"/v1/workers/{one.silent_id}")[1]
        return bool(record["state"] == "unreachable" or record["unreachable"])

    one.daemon.until(state, "the silent worker given up")


def test_audit_retention_days_is_how_long_the_trail_is_kept(one: World) -> None:
    """Both events were found at the start; by default both would be kept."""

    def kept() -> set[str]:
        items = one.call("GET", "/v1/audit-events?action=tests.")[1]["items"]
        return {item["action"] for item in items}

    one.daemon.until(lambda: kept() == {"tests.young"}, "only the young event")


def test_engines_live_where_options_say_and_end_when_they_say(one: World) -> None:
    """The last of these tests: it hands over to another daemon and stops that.

    By default a stream keeps the old daemon for five minutes, one gets 10 s at a stop, and an engine that will not go
    10 s more: each is longer than we wait.
    """
    status, answer = one.call("POST", "/v1/models", endless_model("--ignore-term"))
    assert status == 200, answer

    def running() -> dict[str, object] | None:
        items = one.call("GET", "/v1/model-instances?perPage=100")[1]["items"]
        return next((item for item in items if item["state"] == "running"), None)

    instance = one.daemon.until(running, "a running instance")
    first, last = map(int, one.values["service_port_range"].split("-"))
    assert first <= instance["port"] <= last
    assert (one.folder / f"log/serve/{instance['id']}.log").is_file()
    asked = {"authorization": one.credentials}
    data = one.folder / "data"
    with ending(data):
        with stream_of(one.daemon.url, asked) as stream:
            assert stream.readline().startswith(b"data:")
            one.daemon.process.send_signal(signal.SIGHUP)
            assert one.daemon.process.wait(WITHIN) == 0
        second = holder(data)
        with stream_of(one.daemon.url, asked) as stream:
            assert stream.readline().startswith(b"data:")
            os.kill(second, signal.SIGTERM)
            end = time.monotonic() + 9
            while is_running(second) and time.monotonic() < end:
                time.sleep(0.05)
        assert not is_running(second)
    assert not is_running(instance["pid"])
    assert TOKEN not in one.daemon.log
    assert json.dumps(PASSWORD) not in one.daemon.log
