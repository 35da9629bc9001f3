"""Programs are pointed at the server and brought back: every one that is described, with a program that shows what it
would read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpustack.cli.client_program import ClientProgram, clients, read_client
from gpustack.cli.launch_record import records
from gpustack.cli.main import main
from gpustack.errors import GpustackError
from tests.cli.anything_api import ITEM, AnythingApi, anything_api

OURS = clients({})
KEY = "gpustack_a_b"
BEFORE = {
    "json": '{\n  // mine\n  "theme": "One",\n  "providers": {"a": {"b": 1}},\n}\n',
    "yaml": "# mine\nname: Mine\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: a # fast\n",
    "toml": '# mine\nx = 1\n\n[[models]]\nname = "a"\n',
}
SHOW = """#!/bin/sh
out="$HOME/seen"
{ echo "argv $*"; env; cat $(cat "$HOME/paths"); stat -c "mode %a" $(cat "$HOME/paths"); } > "$out"
exit ${CODE:-0}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[AnythingApi]:
    with anything_api() as one:
        yield one


@pytest.fixture
def api(server: AnythingApi) -> AnythingApi:
    server.sent.clear()
    server.keys.clear()
    return server


@pytest.fixture
def env(tmp_path: Path, api: AnythingApi) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "paths").write_text("/dev/null")
    for client in OURS.values():
        for name in client.programs:
            (tmp_path / "bin" / name).write_text(SHOW)
            (tmp_path / "bin" / name).chmod(0o755)
    own = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/bin:/usr/bin", "GPUSTACK_SERVER_URL": api.url}
    return {**own, "GPUSTACK_API_KEY": "gpustack_mine_Hunter2"}


def files_of(client: ClientProgram, home: str) -> dict[Path, str]:
    """The files of a client, as somebody has them."""
    found = {}
    for file in client.files:
        text = "# mine\n- model_id: a\n" if file.form == "yaml" and not file.at else BEFORE[file.form]
        place = file.path.replace("{home}", home).replace("{config}", f"{home}/.config")
        found[Path(place)] = text
    return found


def seen(env: dict[str, str]) -> str:
    return (Path(env["HOME"]) / "seen").read_text()


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("is_new", [True, False])
def test_a_program_reads_the_server_and_all_is_as_before(
    name: str, is_new: bool, env: dict[str, str], api: AnythingApi, capsys: pytest.CaptureFixture[str]
) -> None:
    client, home = OURS[name], Path(env["HOME"])
    files = files_of(client, env["HOME"])
    for path, text in files.items() if not is_new else ():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o640)
    (home / "paths").write_text(" ".join(map(str, files)) or "/dev/null")
    assert main(["launch", name, "--model=x"], {**env, "CODE": "3"}) == 3, capsys.readouterr().err
    argv, _, read = seen(env).partition("\n")
    assert api.url in argv + read and KEY in read and KEY not in argv
    assert re.search(r"\bx\b", argv + read) and "Hunter2" not in argv + read
    if not is_new:
        assert all(text.splitlines()[1] in read for text in files.values())
    if not client.stays:
        assert main(["launch", name, "--restore"], env) == 0
    for path, text in files.items():
        assert (
            not path.exists() if is_new else path.read_text() == text and path.stat().st_mode & 0o777 == 0o640
        )
    assert not records(env) and api.sent == ["POST /v1/api-keys", "DELETE /v1/api-keys/8"]
    (key,) = api.keys
    assert (key["scopes"], key["allowed_model_names"]) == (["inference"], ["x"])
    assert key["name"].startswith(f"launch-{name}-")


@pytest.mark.attack("secret")
@pytest.mark.parametrize("name", [name for name, one in OURS.items() if "{key}" in str(one.files)])
def test_a_file_that_others_may_read_is_shut_while_the_key_is_in_it(name: str, env: dict[str, str]) -> None:
    files = files_of(OURS[name], env["HOME"])
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o664)
    (Path(env["HOME"]) / "paths").write_text(" ".join(map(str, files)))
    assert main(["launch", name, "--model=x"], env) == 0
    modes = dict(zip(files, re.findall(r"^mode (\d+)$", seen(env), re.M), strict=True))
    assert "600" in modes.values() and KEY in seen(env)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o664}


@pytest.mark.parametrize("name", OURS)
def test_every_description_is_complete_and_bears_no_key_in_arguments(name: str) -> None:
    client = OURS[name]
    assert client.title and client.programs and client.install and client.page.startswith("https://")
    assert client.environment or client.files


def test_arguments_take_the_place_of_those_that_are_given_without(env: dict[str, str]) -> None:
    assert main(["launch", "goose", "--model=x"], env) == 0
    assert seen(env).startswith("argv session\n")
    assert main(["launch", "goose", "--model=x", "--", "run", "--restore"], env) == 0
    assert seen(env).startswith("argv run --restore\n")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"backend": "llama-box"}, "the window of x is 8192: give it --ctx-size=32768 at least"),
        (
            {"backend": "vllm", "backend_parameters": ["--max-model-len=16k"]},
            "16000: give it --max-model-len=32768",
        ),
        ({"backend": "llama-box", "backend_parameters": ["--ctx-size", "32768"]}, None),
        ({"backend": "llama-box", "backend_parameters": ["-c", "65536", "-np", "4"]}, "x is 16384"),
        (
            {"backend": "SGLang"},
            None,
        ),  # as long as the model's own configuration says, which is not known here
        ({"backend": "of-an-administrator"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_a_window_that_the_instructions_of_the_program_fill_is_told(
    model: dict[str, object],
    told: str | None,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in model.items():
        monkeypatch.setitem(ITEM, name, value)
    assert main(["launch", "claude", "--model=x"], env) == 0
    said = capsys.readouterr().err
    assert ("before your first word" in said) is (told is not None)
    assert told is None or told in said
    assert main(["launch", "llm", "--model=x"], env) == 0
    assert "before your first word" not in capsys.readouterr().err, "how much it sends is not known"


def test_what_is_left_of_a_crash_is_brought_back_by_the_next_launch(
    env: dict[str, str], api: AnythingApi
) -> None:
    path = Path(env["HOME"]) / ".config/zed/settings.json"
    path.parent.mkdir(parents=True)
    path.write_text(BEFORE["json"])
    for _ in range(2):
        assert main(["launch", "zed", "--model=x"], env) == 0
    (record,) = records(env)
    assert record.files[0].before == BEFORE["json"] and path.read_text() != BEFORE["json"]
    folder = Path(env["HOME"]) / ".local/state/gpustack/launch"
    assert all(one.stat().st_mode & 0o077 == 0 for one in folder.iterdir())
    path.write_text(path.read_text().replace('"One"', '"Two"'))
    assert main(["launch", "--restore"], env) == 0
    assert path.read_text() == BEFORE["json"].replace('"One"', '"Two"') and not records(env)


def test_what_cannot_be_brought_back_is_said_and_kept_on_record(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(env["HOME"]) / ".config/zed/settings.json"
    assert main(["launch", "zed", "--model=x"], env) == 0
    path.write_text("{}")
    assert main(["launch", "zed", "--restore"], env) == 1
    assert "take what names GPUStack out of it" in capsys.readouterr().err
    assert path.read_text() == "{}" and records(env)
    assert main(["launch", "zed", "--restore", "--forget"], env) == 1
    assert not records(env)


def test_a_file_that_cannot_be_changed_is_left_and_no_key_is(
    env: dict[str, str], api: AnythingApi, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(env["HOME"]) / ".continue/config.yaml"
    path.parent.mkdir()
    path.write_text("models: [a, b]\n")
    assert main(["launch", "continue", "--model=x"], env) == 1
    assert f"{path} is left as it is: " in capsys.readouterr().err
    assert path.read_text() == "models: [a, b]\n" and api.sent == []


def test_a_program_that_is_not_installed_is_told_with_how_it_is(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", "claude"], {**env, "PATH": "/nowhere"}) == 1
    assert "Claude Code is not installed (claude is not on PATH): npm install" in capsys.readouterr().err
    assert main(["launch", "cluade"], env) == 1
    assert "did you mean claude?" in capsys.readouterr().err


def test_a_list_shows_what_is_installed_and_those_of_the_user(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(env["HOME"]) / ".config/gpustack/clients"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("title: Mine\nprograms: [no-such-program]\ninstall: make it\n")
    assert main(["launch"], env) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80 and re.search(r"claude +Claude Code +yes", told)
    assert re.search(r"mine +Mine +-", told)
    main(["launch", "-o", "json"], env)
    assert {one["name"] for one in json.loads(capsys.readouterr().out)} == {*OURS, "mine"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "no mapping"),
        ("title: T\ninstall: x\nprograms: x", "programs must be a list"),
        (
            "title: T\ninstall: x\nprograms: [x]\nprompt_tokens: 0",
            "prompt_tokens must be a whole number, 1 at least",
        ),
        ("title: T\ninstall: x", "programs must name one"),
        ("title: T\ninstall: x\nprograms: [x]\nspeak: y", "no field 'speak'"),
        ("title: T\ninstall: x\nprograms: [x]\nspeaks: y", "speaks must be one of"),
        ("title: T\ninstall: x\nprograms: [x]\narguments: ['--key={key}']", "everybody on the machine sees"),
        (
            "title: T\ninstall: x\nprograms: [x]\nfiles: [{path: /etc/x, form: json, value: 1}]",
            "must begin with",
        ),
        (
            "title: T\ninstall: x\nprograms: [x]\nfiles: [{path: '{home}/x', form: ini, value: 1}]",
            "form must be",
        ),
        ("title: T\ninstall: x\nprograms: [x]\nfiles: [{path: '{home}/x'}]", "has path, form and value"),
        ("title: T\ninstall: x\nprograms: [x]\nenvironment: {A: 1}", "environment must have"),
    ],
)
def test_a_description_with_a_fault_is_refused(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(GpustackError, match=re.escape(fault)):
        read_client(path)


def test_a_launch_that_still_runs_is_not_brought_back(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", "zed", "--model=x"], env) == 0
    (path,) = (Path(env["HOME"]) / ".local/state/gpustack/launch").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "stays": True, "pid": os.getppid()}))
    assert main(["launch", "--restore"], env) == 0
    assert "still runs" in capsys.readouterr().err and records(env)
