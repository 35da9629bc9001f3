"""Several servers by name."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gpustack.cli.main import main
from gpustack.cli.server_context import ContextRegistry, contexts_file, load_contexts
from gpustack.cli.session import find_server
from gpustack.errors import GpustackError, NotFound, Unauthorized

KEY = "gpustack_aa_Hunter2"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    env = {"HOME": str(tmp_path)}
    assert main(["context", "add", "--no-check", "--key-file", str(key), "prod", "gpus.example"], env) == 0
    return env


def test_a_command_talks_to_the_context_in_use_with_its_key(env: dict[str, str]) -> None:
    main(["context", "use", "prod"], env)
    found = find_server(env)
    assert (found.url, found.key, found.origin) == ("http://gpus.example", KEY, "context prod")


def test_the_environment_goes_before_the_context_in_use(env: dict[str, str]) -> None:
    main(["context", "use", "prod"], env)
    assert find_server({**env, "GPUSTACK_API_KEY": "k"}).key == "k"
    found = find_server({**env, "GPUSTACK_SERVER_URL": "http://127.0.0.1:9"})
    assert (found.url, found.key) == ("http://127.0.0.1:9", None), "no key goes to another server"


def test_a_context_of_the_environment_goes_before_the_one_in_use(env: dict[str, str]) -> None:
    assert find_server({**env, "GPUSTACK_CONTEXT": " prod\n"}).url == "http://gpus.example"
    with pytest.raises(NotFound, match="no context 'prd'; did you mean prod"):
        find_server({**env, "GPUSTACK_CONTEXT": "prd"})


def test_the_file_is_for_its_owner_alone_and_refused_when_it_is_not(env: dict[str, str]) -> None:
    path = contexts_file(env)
    assert path is not None and path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    path.chmod(0o640)
    with pytest.raises(GpustackError, match="open to others: take that away with chmod 600"):
        load_contexts(env)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"contexts": {"a": {}}}', b'{"contexts": {"a": 5}}', b"\xff"]
)
def test_a_damaged_file_is_told(content: bytes, env: dict[str, str]) -> None:
    path = contexts_file(env)
    assert path is not None
    path.write_bytes(content)
    with pytest.raises(GpustackError, match="is damaged: mend it"):
        load_contexts(env)


def test_without_a_home_there_are_no_contexts() -> None:
    assert load_contexts({}) == ContextRegistry()


@pytest.mark.parametrize("name", ["local", "", "-x", "a b", "../x", "x" * 64])
def test_a_name_that_is_none_is_refused(
    name: str, env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["context", "add", "--no-check", "--no-key", "--", name, "x"], env) in (1, 2)
    assert list(load_contexts(env).contexts) == ["prod"]


def test_a_key_comes_from_stdin_and_not_from_the_command_line(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\n"))
    assert main(["context", "add", "--no-check", "--key-stdin", "--use", "b", "https://b"], env) == 0
    assert load_contexts(env).current == "b" and load_contexts(env).contexts["b"].key == KEY
    assert main(["context", "add", "--no-check", "c", "https://c"], env) == 2
    assert "give --key-file, --key-stdin or --no-key" in capsys.readouterr().err
    assert main(["context", "add", "--key", KEY, "c", "https://c"], env) == 2


@pytest.mark.attack("secret")
def test_no_key_is_ever_shown(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["context", "add", "--no-check", "--no-key", "url", "http://me:Hunter2@x"], env)
    for form in ("table", "json", "yaml"):
        main(["context", "-o", form], env)
    main(["context", "use", "url"], env)
    main(["context", "ls"], env)
    out, err = capsys.readouterr()
    assert "prod" in out and "Hunter2" not in out + err
    assert "Hunter2" not in repr(load_contexts(env))


def test_a_removed_context_is_used_no_more(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["context", "use", "prod"], env)
    assert main(["context", "rm", "prod", "nothere"], env) == 1
    assert list(load_contexts(env).contexts) == ["prod"], "all names are looked up first"
    assert main(["context", "rm", "prod"], env) == 0
    assert load_contexts(env) == ContextRegistry()
    assert "commands talk to the one on this machine now" in capsys.readouterr().err


def test_an_error_names_the_context_of_its_server(
    env: dict[str, str], free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["context", "add", "--no-key", "down", f"127.0.0.1:{free_port}"], env) == 1
    assert "cannot be reached" in capsys.readouterr().err, "and it is not kept"
    main(["context", "add", "--no-key", "--no-check", "down", f"127.0.0.1:{free_port}"], env)
    assert main(["ls", "--context", "down"], env) == 1
    assert capsys.readouterr().err.endswith("[context down]\n")
    assert main(["--context=down", "rm", "x"], env) == 1
    assert capsys.readouterr().err.endswith("[context down]\n")


def test_a_list_in_other_forms_tells_which_is_in_use(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["context", "use", "prod"], env)
    capsys.readouterr()
    main(["context", "ls", "-o", "json"], env)
    local, prod = json.loads(capsys.readouterr().out)
    assert (local["name"], local["current"]) == ("local", False)
    assert prod == {"name": "prod", "url": "http://gpus.example", "has_key": True, "current": True}


def test_another_machine_without_a_key_is_still_refused_without_a_context() -> None:
    with pytest.raises(Unauthorized, match="gpustack context add"):
        find_server({"GPUSTACK_SERVER_URL": "http://10.0.0.5"})
