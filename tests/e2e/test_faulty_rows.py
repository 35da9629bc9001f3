"""What one row holds, or one word of the environment, ends no daemon: not now, not at the next start, not the next
server that leads."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, daemon
from tests.databases import Server

BROKEN = 6
"""More than a service may fail before its daemon gives up."""
_FAILED = re.compile(r"Service \S+ failed")


def deploy(one: Daemon, name: str, path: Path | str, **more: object) -> None:
    document = {"name": name, "source": "local_path", "local_path": str(path), **more}
    status, answer = one.call("POST", "/v1/models", document)
    assert status == 200, answer


def deploy_broken(one: Daemon, folder: Path) -> None:
    """Files that are no models: what the scheduler says of their instances is final."""
    for number in range(BROKEN):
        path = folder / f"broken-{number}.gguf"
        path.write_bytes(b"this is no model")
        deploy(one, f"broken-{number}", path)


def given_up(one: Daemon) -> bool:
    found = [item for item in one.instances() if item["model_name"].startswith("broken")]
    return len(found) == BROKEN and all(item["state"] == "error" for item in found)


def is_sound(one: Daemon) -> bool:
    return one.process.poll() is None and not _FAILED.search(one.log) and "Traceback" not in one.log


def test_a_restart_with_broken_models_starts_and_serves(tmp_path: Path, tiny_model: Path) -> None:
    with daemon(tmp_path / "data") as first:
        deploy_broken(first, tmp_path)
        deploy(first, "tiny", tiny_model, backend_parameters=["-c", "512"])
        first.running("tiny")
        first.until(lambda: given_up(first), "the verdict on the broken ones")
        assert first.stop() == 0
    with daemon(tmp_path / "data") as second:
        second.running("tiny")
        second.until(lambda: given_up(second), "the same verdict")
        deploy(second, "late", tiny_model, backend_parameters=["-c", "512"])
        second.running("late")
        assert given_up(second), "it is not taken back while the files are read again"
        assert is_sound(second), second.log


@pytest.fixture(params=["postgresql"])
def url(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Iterator[str]:
    server = servers(request.param)
    made = server.create()
    yield made
    server.drop(made)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(
    request: pytest.FixtureRequest, servers: Callable[[str], Server], tmp_path: Path
) -> Iterator[tuple[dict[str, str], Callable[[str], None]]]:
    """The environment of a daemon, and how to do to its database what it would never do."""
    if request.param == "sqlite":

        def lite(statement: str) -> None:
            with contextlib.closing(sqlite3.connect(tmp_path / "data/database.db")) as raw, raw:
                raw.execute(statement)

        yield {}, lite
        return
    server = servers(request.param)
    made = server.create()
    name = made.rpartition("/")[2]
    yield {"GPUSTACK_DATABASE_URL": made}, lambda statement: server.execute(statement, database=name)
    server.drop(made)


def test_rows_that_cannot_be_read_are_left_out_and_the_others_serve(
    tmp_path: Path, tiny_model: Path, database: tuple[dict[str, str], Callable[[str], None]]
) -> None:
    env, execute = database
    with daemon(tmp_path / "data", env=env) as first:
        for name in ("tiny", "spoilt", "odd"):
            deploy(first, name, tiny_model, backend_parameters=["-c", "512"])
            first.running(name)
        assert first.stop() == 0
    execute("update models set backend_parameters = '[' where name = 'spoilt'")
    execute("update models set placement_strategy = 'sideways' where name = 'odd'")
    execute("update workers set status = '{\"memory\": 12}'")
    execute("update model_files set source = 'null'")
    with daemon(tmp_path / "data", env=env) as second:
        second.running("tiny")
        listed = second.call("GET", "/v1/models")[1]["items"]
        assert [item["name"] for item in listed] == ["tiny"]
        deploy(second, "late", tiny_model, backend_parameters=["-c", "512"])
        second.running("late")
        status, refused = second.call(
            "POST", "/v1/models", {"name": "odd", "source": "local_path", "local_path": str(tiny_model)}
        )
        assert (status, "exists already" in str(refused)) == (409, True)
        assert len(second.instances("spoilt")) == 1, (
            "what it was to be is not known, and not taken for nothing"
        )
        assert second.log.count("cannot be read and is left out") == 3, second.log
        assert is_sound(second), second.log


def leads(one: Daemon) -> bool:
    items = one.call("GET", "/v1/servers")[1]["items"]
    return any(item["is_leading"] and item["url"] == one.url for item in items)


def test_the_next_server_that_leads_goes_on_with_broken_models(
    tmp_path: Path, url: str, tiny_model: Path
) -> None:
    env = {"GPUSTACK_DATABASE_URL": url}
    with daemon(tmp_path / "one", "--disable-worker", env=env) as one:
        one.until(lambda: leads(one), "a leader")
        deploy_broken(one, tmp_path)
        one.until(lambda: given_up(one), "the verdict on the broken ones")
        with daemon(tmp_path / "two", "--disable-worker", env=env) as two:
            one.process.send_signal(signal.SIGKILL)
            one.process.wait()
            two.until(lambda: leads(two), "the next leader")
            deploy(two, "tiny", tiny_model)
            said = lambda: [i["state_message"] for i in two.instances("tiny") if i["state"] == "pending"]  # noqa: E731
            two.until(lambda: "worker" in "".join(said()), "what the good one waits for")
            assert given_up(two)
            assert is_sound(two), two.log


def test_a_model_whose_name_is_no_text_is_told_of_and_others_run(tmp_path: Path, tiny_model: Path) -> None:
    """Of two models in a folder none is chosen; the sentence that lists them has to be stored and shown."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in (b"tea.gguf", b"caf\xe9.gguf"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(tiny_model.read_bytes())
    with daemon(tmp_path / "data") as one:
        deploy(one, "odd", folder)
        deploy(one, "tiny", tiny_model, backend_parameters=["-c", "512"])
        one.running("tiny")
        one.until(lambda: [i for i in one.instances("odd") if i["state_message"]], "what is wrong with it")
        assert one.process.poll() is None
        assert not _FAILED.search(one.log), one.log


@pytest.mark.parametrize(
    "env",
    [
        pytest.param({"ALL_PROXY": "socks5://127.0.0.1:9"}, marks=pytest.mark.slow),
        {"HTTPS_PROXY": "127.0.0.1:9", "HTTP_PROXY": "127.0.0.1:9", "HF_ENDPOINT": "http://127.0.0.2:9"},
        {"HF_TOKEN": "hf_secret0123456789\n", "HF_ENDPOINT": "http://127.0.0.1:9"},
        pytest.param(
            {"GPUSTACK_TOKEN": "a-token-of-many-letters\n", "HF_ENDPOINT": "http://127.0.0.1:9"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["socks", "proxy-without-scheme", "hub-token", "token"],
)
def test_a_word_of_the_environment_that_a_client_cannot_use_harms_only_what_needs_it(
    tmp_path: Path, tiny_model: Path, env: dict[str, str]
) -> None:
    with daemon(tmp_path / "data", env=env, wait=False) as one:
        if not _has_started(one):
            assert one.process.wait() == 2, "it may be refused, but then in a sentence"
            assert "Traceback" not in one.log
            return
        hub = {"source": "huggingface", "huggingface_repo_id": "o/r", "huggingface_filename": "r.gguf"}
        status, answer = one.call("POST", "/v1/models", {"name": "far", **hub})
        assert status == 200, answer
        deploy(one, "tiny", tiny_model, backend_parameters=["-c", "512"])
        one.running("tiny")
        waits = lambda: [i for i in one.instances("far") if i["state"] == "pending" and i["state_message"]]  # noqa: E731
        (far,) = one.until(waits, "why the far one waits")
        assert "hf_secret" not in far["state_message"]
        assert "hf_secret" not in one.log
        assert not _FAILED.search(one.log), one.log


def _has_started(one: Daemon) -> bool:
    """Wait until it serves, or has ended."""
    try:
        one.url = one.until(lambda: _text(one.data_dir / "server_url"), "the address file")
        one.until(lambda: _serves(one), "readiness")
    except AssertionError:
        if one.process.poll() is None:
            raise
        return False
    return True


def _serves(one: Daemon) -> bool:
    try:
        return one.call("GET", "/readyz")[0] == 200
    except OSError:
        return False


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
