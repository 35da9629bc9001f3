"""What the doctor finds on machines that are not well."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from gpustack.cli.check import CheckContext, CheckStatus, Finding
from gpustack.cli.checks import configuration, database, disk, engine, ports, proxy, server, sign_on
from gpustack.cli.main import main
from tests.databases import Server
from tests.fakes.issuer import running_issuer
from tests.hardware.test_engine_program import python_environment


def context(data: Path, *argv: str, **env: str) -> CheckContext:
    ports = (
        "--worker-port=0",
        "--metrics-port=0",
        "--worker-metrics-port=0",
    )  # this machine may run one already
    start = ["--data-dir", str(data), "--host=127.0.0.1", *ports, *argv]
    return CheckContext.of(start, {"GPUSTACK_SERVER_URL": "http://127.0.0.1:9", **env})


def failures(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.status is CheckStatus.FAILED]


async def test_every_fault_of_the_configuration_is_a_finding(tmp_path: Path) -> None:
    found = failures(await configuration.look(context(tmp_path, "--port=x", "--prot=1")))
    assert [one.sentence for one in found] == [
        "flag --prot: is not known; did you mean --port?",
        "flag --port: port must be a whole number, not 'x'",
    ]
    assert all(one.fix for one in found)


async def test_the_variable_of_the_commands_makes_no_worker_of_a_server(tmp_path: Path) -> None:
    env = {"GPUSTACK_SERVER_URL": "http://127.0.0.1:9"}
    alone, joining = context(tmp_path, **env), context(tmp_path, **env, GPUSTACK_TOKEN="t")
    assert alone.loaded is not None and alone.loaded.role == "server+worker"
    assert joining.loaded is not None and joining.loaded.role == "worker"


async def test_a_port_that_is_taken_is_named_with_its_option(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (found,) = failures(await ports.look(context(tmp_path, f"--port={port}")))
        assert str(port) in found.sentence and "--port" in found.fix
    assert not failures(await ports.look(context(tmp_path, f"--port={port}")))


async def test_a_worker_port_that_is_taken_at_another_address_is_free(tmp_path: Path) -> None:
    """A worker beside its own server listens on the loopback address alone."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not failures(await ports.look(context(tmp_path, "--port=0", f"--worker-port={port}")))


async def test_a_provider_that_people_cannot_sign_in_at_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    back = "--oidc-redirect-uri=http://127.0.0.1/auth/oidc/callback"
    with running_issuer(lambda: 0.0) as issuer:
        here = context(tmp_path, f"--oidc-issuer={issuer.url}", "--oidc-client-id=c", back)
        (found,) = await sign_on.look(here)
        assert (found.status, found.sentence) == (CheckStatus.GOOD, f"people can sign in at {issuer.url}")
        issuer.published = []
        (found,) = failures(await sign_on.look(here))
        assert "publishes no key" in found.sentence
        issuer.document = {"issuer": "https://another.example"}
        (found,) = failures(await sign_on.look(here))
        assert "https://another.example" in found.sentence and "--oidc-issuer" in found.fix
    (found,) = failures(await sign_on.look(here))
    assert "cannot be reached" in found.sentence
    assert not await sign_on.look(context(tmp_path))


async def test_secrets_that_others_can_read_come_with_the_command_that_mends_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    (found,) = failures(await disk.look(context(tmp_path)))
    assert found.fix == f"chmod go-r {token}"
    token.chmod(0o600)
    assert not failures(await disk.look(context(tmp_path)))


async def test_a_damaged_database_is_found(tmp_path: Path) -> None:
    (absent,) = await database.look(context(tmp_path))
    assert (absent.status, absent.sentence.endswith("is not there yet; the first start makes it")) == (
        "note",
        True,
    )
    file = tmp_path / "database.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE a(b)")
        connection.executemany("INSERT INTO a VALUES (?)", [("x" * 500,)] * 1000)
    connection.close()
    (sound,) = await database.look(context(tmp_path))
    assert (sound.status, sound.sentence.endswith(" is sound")) == ("ok", True)
    content = bytearray(file.read_bytes())
    content[8192:16384] = b"\xff" * 8192
    file.write_bytes(content)
    (damaged,) = failures(await database.look(context(tmp_path)))
    assert str(file) in damaged.sentence and "backup" in damaged.fix
    file.write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    (foreign,) = failures(await database.look(context(tmp_path)))
    assert "file is not a database" in foreign.sentence
    assert not await database.look(context(tmp_path, "--server-url=http://127.0.0.1:9", "--token=t"))


async def test_a_database_of_a_server_answers_or_says_why_not(
    tmp_path: Path, servers: Callable[[str], Server], free_port: int
) -> None:
    running = servers("postgresql")
    url = running.create()
    (found,) = await database.look(context(tmp_path, GPUSTACK_DATABASE_URL=url))
    assert (found.status, found.sentence.endswith("answers, and can be used")) == ("ok", True)
    running.drop(url)
    wrong = {
        running.url("postgres", password="hush-hush"): "refuses user and password",
        running.url("nowhere"): "does not exist",
        running.url("postgres", port=free_port): "cannot be reached",
    }
    for url, words in wrong.items():
        (found,) = failures(await database.look(context(tmp_path, GPUSTACK_DATABASE_URL=url)))
        assert words in found.sentence and found.fix
        assert "hush-hush" not in found.sentence


async def test_a_data_directory_that_is_a_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (found,) = failures(await disk.look(context(file)))
    assert "--data-dir" in found.fix


async def test_a_server_that_is_not_there_is_told_with_the_variable(tmp_path: Path, free_port: int) -> None:
    lost = context(tmp_path, GPUSTACK_SERVER_URL=f"http://127.0.0.1:{free_port}")
    with trio.fail_after(60):
        (found,) = failures(await server.look(lost))
    assert "Connection refused" in found.sentence and "GPUSTACK_SERVER_URL" in found.fix


def test_it_ends_with_1_when_something_failed_and_tells_programs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {"PATH": "", "GPUSTACK_DATA_DIR": str(tmp_path), "GPUSTACK_PORT": "many"}
    assert main(["doctor", "-o", "json"], env) == 1
    found = json.loads(capsys.readouterr().out)
    assert {one["check"] for one in found} >= {
        "clock",
        "configuration",
        "driver",
        "engine",
        "open files",
        "server",
    }
    assert [one for one in found if one["verdict"] == "failed" and "GPUSTACK_PORT" in one["message"]]
    assert all(one["fix"] for one in found if one["verdict"] == "failed")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("socks4://127.0.0.1:1080", "ALL_PROXY names a proxy of SOCKS 4"),
        ("http://me:Hunter2/x@proxy", "ALL_PROXY has a / ? or #"),
        (
            "http://me:Hunter2@127.0.0.1:{free}",
            "the proxy http://127.0.0.1:{free} of ALL_PROXY cannot be reached",
        ),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_found(
    tmp_path: Path, text: str, told: str, free_port: int
) -> None:
    here = context(tmp_path, ALL_PROXY=text.format(free=free_port), NO_PROXY="10.0.0.0/99")
    misread, found = await proxy.look(here)
    assert misread.status is CheckStatus.NOTE and misread.sentence.startswith("NO_PROXY has '10.0.0.0/99'")
    assert found.status is CheckStatus.FAILED and found.sentence.startswith(told.format(free=free_port))
    assert found.fix and "Hunter2" not in found.sentence


async def test_a_proxy_that_answers_is_told_without_its_password(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        (found,) = await proxy.look(context(tmp_path, https_proxy=f"socks://me:Hunter2@{address}"))
    assert found == Finding(CheckStatus.GOOD, f"the proxy socks5://{address} of https_proxy answers")
    (none,) = await proxy.look(context(tmp_path))
    assert none.status is CheckStatus.GOOD


async def test_engines_that_are_here_that_can_be_installed_and_that_are_missing_are_told(
    tmp_path: Path,
) -> None:
    """As ``--engine-path`` and the environments of the worker say; without GPUs nothing built for them is offered."""
    folder = tmp_path / "data/venvs/vllm/0.30.0"
    made = python_environment(folder / "venv", "0.30.0")
    told = {"version": "0.30.0", "path": str(made), "requirements": [], "disk": 3 << 30}
    (folder / "ready.json").write_text(json.dumps(told))
    mine = python_environment(tmp_path / "mine", "0.32.0")
    here = context(tmp_path / "data", "--engine-path", f"vLLM={mine.parent.parent}")
    found = {one.sentence: one for one in await engine.look(here)}
    assert found["vllm 0.32.0 (vllm as configured), on the CPU"].status is CheckStatus.GOOD
    assert (
        found["vllm 0.30.0 (an environment that this worker made), 3.0 GiB, on the CPU"].status
        is CheckStatus.GOOD
    )
    offered = [
        one for sentence, one in found.items() if sentence.startswith("transformers-serve is installed when")
    ]
    assert [one.status for one in offered] == [CheckStatus.GOOD]
    missing = found["sglang is not here"]
    assert missing.status is CheckStatus.NOTE
    assert "its package is built for cuda, and this worker has no GPU" in missing.fix
