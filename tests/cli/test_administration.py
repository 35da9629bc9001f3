"""Keys, accounts, limits and model files by command, against a real daemon and a hub on loopback."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import yaml

from gpustack.cli.commands import limits
from gpustack.domain.access import KeyScope, Limits
from tests.cli.shell import Shell
from tests.fakes.hub import Hub


def test_a_key_is_not_made_where_its_value_could_not_be_shown(shell: Shell) -> None:
    assert shell("keys", "create", "lost", "-o", "jsn").returncode == 2
    assert "lost" not in shell("keys").stdout


def test_a_key_is_made_shown_once_switched_off_and_removed(shell: Shell) -> None:
    assert "gpustack keys create NAME makes one" in shell("keys").stderr
    made = shell(
        "keys", "create", "ci", "--scope=read", "--scope=inference", "--model=tiny", "--expires-in=3"
    )
    value = made.stdout.strip()
    assert made.returncode == 0 and value.startswith("gpustack_") and "shown once" in made.stderr
    (key,) = json.loads(shell.good("keys", "-o", "json"))
    assert key["scopes"] == ["inference", "read"] and key["allowed_model_names"] == ["tiny"]
    assert "value" not in key
    head, row = shell.good("keys").splitlines()
    assert head.split()[:3] == ["NAME", "STATE", "SCOPES"] and row.split()[:2] == ["ci", "works"]
    head, row = shell.good("keys", "--all").splitlines()
    assert head.split()[:2] == ["OWNER", "NAME"] and row.split()[:2] == ["admin", "ci"]
    asked = {"authorization": f"Bearer {value}"}
    assert shell.daemon.call("GET", "/v1/models", headers=asked)[0] == 200
    assert shell.good("keys", "disable", "ci") == "ci is switched off\n"
    assert shell.daemon.call("GET", "/v1/models", headers=asked)[0] == 401
    assert "off" in shell.good("keys")
    assert shell.good("keys", "enable", "ci") == "ci works again\n"
    assert yaml.safe_load(shell.good("keys", "create", "-o", "yaml", "other"))["value"].startswith(
        "gpustack_"
    )
    assert "did you mean ci?" in shell.bad("keys", "rm", "other", "cci"), "and nothing is removed"
    assert shell.good("keys", "-q").split() == ["other", "ci"]
    shell.good("keys", "rm", "ci", "other")
    assert shell.good("keys", "-q") == ""


def test_a_scope_that_is_none_is_refused(shell: Shell) -> None:
    ran = shell("keys", "create", "--scope=all", "x")
    assert ran.returncode == 2
    assert f"--scope must be one of {', '.join(('inference', 'read', 'management'))}" in ran.stderr
    assert {scope.value for scope in KeyScope} == {"inference", "read", "management"}


def test_the_doctor_tells_whether_the_server_takes_a_workers_token(shell: Shell, tmp_path: Path) -> None:
    def said(token: str) -> list[tuple[str, str]]:
        argv = ("-s", shell.daemon.url, "--token", token, "--data-dir", str(tmp_path), "--worker-port=0")
        found = json.loads(shell("doctor", "-o", "json", "--", *argv).stdout)
        return [(one["verdict"], one["message"]) for one in found if "token" in one["message"]]

    assert said("a-wrong-token-of-some-length") == [("failed", "the server refuses the token of this worker")]
    token = (shell.daemon.data_dir / "token").read_text().strip()
    assert said(token) == [("ok", "the server takes the token of this worker")]
    (tmp_path / "worker_credential").write_text("kept")
    ((verdict, message),) = said("a-wrong-token-of-some-length")
    assert verdict == "note" and "has joined before" in message


def login(shell: Shell, name: str, password: str) -> tuple[int, object]:
    basic = base64.b64encode(f"{name}:{password}".encode()).decode()
    return shell.daemon.call("GET", "/v1/users/me", headers={"authorization": f"Basic {basic}"})


def test_accounts_are_made_changed_and_removed(shell: Shell) -> None:
    told = shell.good("users", "create", "ann", "--full-name=Ann B").strip()
    assert told.startswith("The password of ann is: ")
    status, me = login(shell, "ann", told.rpartition(" ")[2])
    assert status == 200 and isinstance(me, dict) and me["require_password_change"] is True
    password = "Chosen_by_hand_1"
    told = shell.good("users", "reset-password", "--password-stdin", "ann", stdin=f"{password}\nrest")
    assert told == "The password of ann is changed\n"
    status, me = login(shell, "ann", password)
    assert status == 200 and isinstance(me, dict) and me["require_password_change"] is False
    assert shell.good("users", "disable", "ann") == "ann is switched off\n"
    assert login(shell, "ann", password)[0] == 401
    shell.good("users", "enable", "ann")
    shell.good("users", "promote", "ann")
    assert "admin" in next(line for line in shell.good("users").splitlines() if line.startswith("ann"))
    shell.good("users", "demote", "ann")
    assert "last administrator" in shell.bad("users", "rm", "admin")
    assert "There is no user 'bob'" in shell.bad("users", "rm", "ann", "bob")
    assert shell.good("users", "rm", "ann") == "ann is removed\n"
    assert shell.good("users", "-q") == "admin\n"


def test_a_password_is_never_taken_from_nothing(shell: Shell) -> None:
    ran = shell("users", "create", "--password-stdin", "carl")
    assert ran.returncode == 2 and "no password on the first line" in ran.stderr
    assert shell.good("users", "-q") == "admin\n"


def test_limits_are_set_one_by_one_and_shown_with_what_is_left(shell: Shell) -> None:
    shell.good("keys", "create", "limited")
    shell.good("limits", "set", "key", "limited", "requests-per-minute=5", "tokens_per_day=100")
    shell.good("limits", "set", "key", "limited", "requests_per_minute=none", "concurrent_requests=0")
    found = json.loads(shell.good("limits", "-o", "json", "key", "limited"))
    assert {name: value for name, value in found["limits"].items() if value is not None} == {
        "tokens_per_day": 100,
        "concurrent_requests": 0,
    }
    assert found["day"]["remaining"] == 100
    rows = {
        line.split()[0]: line.split()[1:3] for line in shell.good("limits", "key", "limited").splitlines()
    }
    assert rows["tokens_per_day"] == ["100", "100"] and rows["concurrent_requests"] == ["0", "-"]
    shell.good("limits", "set", "user", "admin", "tokens_per_month=7")
    assert json.loads(shell.good("limits", "-o", "json"))["month"]["limit"] == 7, "one's own"
    shell.good("limits", "set", "user", "admin", "tokens_per_month=none")
    for wrong, said in (
        ("tokns_per_day=1", "did you mean tokens_per_day?"),
        ("tokens_per_day=x", "whole number"),
    ):
        ran = shell("limits", "set", "key", "limited", wrong)
        assert ran.returncode == 2 and said in ran.stderr
    shell.good("keys", "rm", "limited")


def test_every_limit_can_be_set() -> None:
    import attrs

    assert set(limits.LIMITS) == {field.name for field in attrs.fields(Limits)}
    assert all(name in (limits.__doc__ or "") for name in limits.LIMITS)


def test_files_are_fetched_ahead_listed_and_removed(hub: Hub, shell: Shell, tiny_model: Path) -> None:
    assert "gpustack pull SOURCE fetches some" in shell("files").stderr
    hub.add("a/b-GGUF", {"b-Q4_K_M.gguf": tiny_model, "b-Q8_0.gguf": tiny_model})
    ran = shell("pull", "a/b-GGUF:q8_0")
    assert ran.returncode == 0, ran.stderr
    (path,) = map(Path, ran.stdout.splitlines())
    assert path.read_bytes() == tiny_model.read_bytes()
    assert shell("pull", "a/b-GGUF:q8_0").returncode == 0, "it is there already"
    assert hub.full_downloads("b-Q8_0.gguf") == 1
    head, row = shell.good("files").splitlines()
    assert head.split()[:4] == ["ID", "SOURCE", "WORKER", "STATE"]
    assert row.split()[1] == "a/b-GGUF:*Q8_0*.gguf" and "ready" in row
    number = shell.good("files", "-q").strip()
    assert "are being removed" in shell.good("files", "rm", number)
    shell.daemon.until(lambda: not path.exists(), "the removal")
    assert "does not exist" in shell.bad("files", "rm", "999")


def test_what_is_pinned_stays_when_what_nobody_uses_is_evicted(
    hub: Hub, shell: Shell, tiny_model: Path
) -> None:
    hub.add("e/kept-GGUF", {"kept-Q8_0.gguf": tiny_model})
    hub.add("e/gone-GGUF", {"gone-Q8_0.gguf": tiny_model})
    kept, gone = (Path(shell.good("pull", f"e/{name}-GGUF").strip()) for name in ("kept", "gone"))
    files = json.loads(shell.good("files", "-o", "json"))
    numbers = {file["huggingface_repo_id"]: str(file["id"]) for file in files}
    shell.good("files", "pin", numbers["e/kept-GGUF"])
    would = shell.good("files", "evict", "--dry-run")
    assert "e/gone-GGUF" in would and "would go" in would and "e/kept-GGUF" not in would
    assert gone.exists()
    told = shell.good("files", "evict")
    assert "e/gone-GGUF" in told and " goes\n" in told and "freed" in told and "e/kept-GGUF" not in told
    shell.daemon.until(lambda: not gone.exists(), "the eviction")
    assert kept.exists()
    assert "There is no worker 'nobody'" in shell.bad("files", "evict", "--worker=nobody")
    assert "does not exist" in shell.bad("files", "pin", "999")
    assert shell("files", "pin", "e/kept-GGUF").returncode == 2
    shell.good("files", "unpin", numbers["e/kept-GGUF"])
    assert "0 B freed (all that nobody uses is " in shell.good("files", "evict", "--free=1")
    assert kept.exists()
    shell.good("files", "evict")
    shell.daemon.until(lambda: not kept.exists(), "the eviction of what is no longer pinned")
    shell.daemon.until(lambda: shell.good("files", "-q") == "", "that nothing is listed any more")


def test_what_cannot_be_fetched_is_told(hub: Hub, shell: Shell, tiny_model: Path) -> None:
    assert "is a path: what lies there need not be fetched" in shell.bad("pull", str(tiny_model))
    assert "There is no repository no/such" in shell.bad("pull", "no/such")
    assert "names nothing that can be fetched" in shell.bad("pull", "tiny")
    hub.add("a/c-GGUF", {"c-Q8_0.gguf": tiny_model})
    assert "There is no worker 'nobody'" in shell.bad("pull", "--worker=nobody", "a/c-GGUF")


def test_a_local_file_is_kept_and_that_is_said(shell: Shell, tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(tiny_model.read_bytes())
    shell.good("run", "-d", str(path))
    shell.good("rm", "mine")
    shell.daemon.until(lambda: not shell.daemon.instances("mine"), "the end of the instance")
    files = json.loads(shell.good("files", "-o", "json"))
    (number,) = (file["id"] for file in files if file.get("local_path") == str(path))
    status, told = shell.daemon.call("DELETE", f"/v1/model-files/{number}?cleanup=true")
    assert (status, told["kept"]) == (200, True)
    assert told["message"] == f"{path} is kept: only what we have fetched is removed"
    assert path.exists()
