"""``--dry-run``: every command that changes something has it, and nothing is written with it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpustack.cli.backup_file import DATABASE, Manifest, digest, pack, settle_database
from gpustack.cli.common_option import read_common
from gpustack.cli.failure import UsageError
from gpustack.cli.main import main, names
from gpustack.cli.session import DRY_RUN_VARIABLE
from gpustack.cli.vocabulary import vocabulary
from tests.cli.anything_api import AnythingApi, anything_api

CHANGES = {
    "apply": ["apply -f {file}"],
    "backends": ["backends add -f {backend}", "backends rm x"],
    "context": ["context add y http://127.0.0.1:1 --no-key --no-check", "context use x", "context rm x"],
    "explain": ["explain --apply=label x"],
    "files": ["files copy --detach 7 x", "files rm 7", "files pin 7", "files unpin 7", "files evict"],
    "keys": ["keys create y", "keys enable x", "keys disable x", "keys rm x"],
    "limits": [f"limits set {kind} x requests_per_minute=5" for kind in ("key", "user", "model")],
    "pull": ["pull --detach a/b:Q4_0"],
    "reset-admin-password": ["reset-admin-password"],
    "rm": ["rm x"],
    "launch": ["launch aider --model=x", "launch zed --model=x"],
    "rollback": ["rollback x"],
    "run": ["run --detach --replicas=2 x", "run --detach --timeout=1 --name=y {file}"],
    "scale": ["scale x 3"],
    "stop": ["stop x"],
    "users": [
        "users create y",
        *(f"users {verb} x" for verb in ("enable", "disable", "promote", "demote", "reset-password", "rm")),
    ],
    "workers": [
        "workers label x a=b",
        "workers taint x a:NoSchedule",
        *(f"workers {verb} x" for verb in ("cordon", "uncordon", "bar")),
        *(f"workers {verb} --force x" for verb in ("admit", "rm")),
        "workers drain --no-wait x",
    ],
    "backup": ["backup {home}/new.backup"],
    "restore": ["restore {backup}"],
    "db": ["db migrate-from sqlite:///{database} --to=sqlite:///{home}/new.db"],
    "download-tools": ["download-tools --load-archive={file} --bin-dir={home}/bin"],
}
"""Every kind of change that each command makes."""

READS = {
    *(
        "audit",
        "bench",
        "chat",
        "completion",
        "config",
        "debug",
        "diff",
        "doctor",
        "draw",
        "estimate",
        "events",
    ),
    *(
        "export",
        "gpus",
        "hardware",
        "import",
        "logs",
        "ls",
        "plan",
        "ps",
        "revisions",
        "servers",
        "show",
        "version",
    ),
    "wait",
}
"""Commands that change nothing; what they write is the result that they are asked for."""
DAEMON = {"start"}


@pytest.fixture(scope="module")
def api() -> Iterator[AnythingApi]:
    with anything_api() as one:
        yield one


@pytest.fixture
def home(tmp_path: Path, stored: Path) -> Path:
    """A home with all that the examples name."""
    home = tmp_path / "home"
    shutil.copytree(stored, home)
    return home


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:

    home = tmp_path_factory.mktemp("stored")
    (home / "data").mkdir(mode=0o700)
    with closing(sqlite3.connect(home / "data" / DATABASE)) as database:
        database.execute("CREATE TABLE t (x)")
    settle_database(home / "data" / DATABASE)
    (home / "data" / "token").write_text("t")
    files = {name: digest(home / "data" / name) for name in (DATABASE, "token")}
    manifest = Manifest(
        version="1",
        schema="1",
        made_at=datetime(2026, 1, 1, tzinfo=UTC),
        source="sqlite",
        revision=1,
        rows={"t": 0},
        files=files,
    )
    pack(home / "data", manifest, home / "x.backup")
    shutil.copy(home / "data" / DATABASE, home / "from.db")
    (home / "model.gguf").write_text("kind: Model\nname: y\nsource: local_path\nlocal_path: /y.gguf\n")
    (home / "backend.yaml").write_text("name: y\ndefault_version: '1'\nversions: {'1': {run_command: y}}\n")
    (home / "gpustack").mkdir(mode=0o700)
    (home / "programs").mkdir()
    for name in ("aider", "zed"):
        (home / "programs" / name).write_text("#!/bin/sh\n")
        (home / "programs" / name).chmod(0o755)
    contexts = {"current": "local", "contexts": {"x": {"url": "http://127.0.0.1:1"}}}
    (home / "gpustack" / "contexts.json").write_text(json.dumps(contexts))
    (home / "gpustack" / "contexts.json").chmod(0o600)
    return home


def _env(home: Path, url: str = "") -> dict[str, str]:
    named = {"GPUSTACK_SERVER_URL": url} if url else {}
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "GPUSTACK_DATA_DIR": str(home / "data")}
    own["PATH"] = f"{home}/programs:/bin:/usr/bin"
    return {**own, **named}


def _argv(example: str, home: Path) -> list[str]:
    places = {"file": home / "model.gguf", "backend": home / "backend.yaml", "home": home}
    places |= {"backup": home / "x.backup", "database": home / "from.db"}
    return example.format(**places).split()


def _content(home: Path) -> Mapping[str, bytes]:
    """Every file of the home; what SQLite keeps beside a database while it is read is no change."""
    return {
        str(path.relative_to(home)): path.read_bytes() if path.is_file() else b""
        for path in sorted(home.rglob("*"))
        if not path.name.endswith(("-wal", "-shm"))
    }


LOCAL = ("backup", "restore", "db", "download-tools", "context")
"""Commands that change this machine."""
EXAMPLES = [example for examples in CHANGES.values() for example in examples]


@pytest.mark.parametrize("example", EXAMPLES)
def test_nothing_is_written_and_what_would_be_is_told(
    example: str, api: AnythingApi, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, before = _argv(example, home), _content(home)
    api.sent.clear()
    env = _env(home, "" if argv[0] in LOCAL else api.url)
    assert main([*argv, "--dry-run"], env) == 0, capsys.readouterr().err
    assert api.sent == []
    assert _content(home) == before
    said = capsys.readouterr().out
    assert "would" in said or argv[0] in ("apply", "files", "rollback", "workers"), said


SENT = [examples[-1] for name, examples in CHANGES.items() if name not in LOCAL]


@pytest.mark.parametrize("example", SENT)
def test_without_it_the_last_example_of_a_command_changes_something(
    example: str, api: AnythingApi, home: Path
) -> None:
    api.sent.clear()
    main(_argv(example, home), _env(home, api.url))
    assert api.sent != []


@pytest.mark.parametrize("example", CHANGES["context"])
def test_without_it_the_same_command_line_changes_files(example: str, home: Path) -> None:
    before = _content(home)
    assert main(_argv(example, home), _env(home)) == 0
    assert _content(home) != before


def test_every_command_is_one_that_changes_or_one_that_reads() -> None:
    changing = {one.command for one in vocabulary() if any(o.name == "--dry-run" for o in one.options)}
    assert changing == {*CHANGES}
    assert {*names()} <= changing | READS | DAEMON and not changing & READS


def test_every_verb_of_a_changing_command_is_tried() -> None:
    reading = {"show", "ls", "key", "user", "model"}
    for one in vocabulary():
        if one.command in CHANGES:
            verbs = {verb for step in one.steps for verb in step.verbs} - reading
            tried = {word for example in CHANGES[one.command] for word in example.split()[1:]}
            assert verbs <= tried, one.command


@pytest.mark.parametrize(
    ("argv", "is_dry", "left"),
    [
        ("x --dry-run", True, "x --dry-run"),
        ("--dry-run x", True, "--dry-run x"),
        ("--dry x", True, "--dry x"),
        ("-- --dry-run", False, "-- --dry-run"),
        ("x", False, "x"),
    ],
)
def test_a_dry_run_is_seen_wherever_the_command_might_see_it(argv: str, is_dry: bool, left: str) -> None:
    common = read_common("rm", argv.split(), {DRY_RUN_VARIABLE: "table"})
    assert (DRY_RUN_VARIABLE in common.env, common.argv) == (is_dry, left.split())


def test_the_form_of_the_results_is_that_of_the_command_line() -> None:
    for argv in (["-o", "json", "--dry-run"], ["--dry-run", "--output=json"], ["-qo", "json", "--dry-run"]):
        assert read_common("keys", argv, {}).env[DRY_RUN_VARIABLE] == "json"


def test_a_context_is_taken_out_and_the_variables_of_another_server_with_it() -> None:
    env = {"GPUSTACK_SERVER_URL": "http://other", "GPUSTACK_API_KEY": "k", "HOME": "/h"}
    for argv in (["--context", "prod", "-q"], ["-q", "--context=prod"]):
        common = read_common("ls", argv, env)
        assert (common.argv, common.env) == (["-q"], {"GPUSTACK_CONTEXT": "prod", "HOME": "/h"})
    kept = read_common("run", ["-p", "--context=5", "m", "--", "--context"], env)
    assert kept.argv == ["-p", "--context=5", "m", "--", "--context"] and kept.env == env


def test_a_context_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(UsageError, match="talks to no server"):
        read_common("backup", ["--context=prod"], {})
    with pytest.raises(UsageError, match="needs a name"):
        read_common("ls", ["--context"], {})


@pytest.mark.attack("secret")
def test_no_secret_is_shown_of_what_would_be_sent(
    api: AnythingApi, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "run",
        "-d",
        "--name=y",
        "-e",
        "HF_TOKEN=Hunter2",
        "-p",
        "api-key=Hunter2",
        "-p",
        "hf-token Hunter2",
        str(home / "model.gguf"),
    ]
    assert main([*argv, "--dry-run"], _env(home, api.url)) == 0
    said = capsys.readouterr().out
    assert "HF_TOKEN" in said and "--hf-token ***" in said and "Hunter2" not in said
