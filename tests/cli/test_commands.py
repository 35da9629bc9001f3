"""The commands against a real daemon, as people call them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.shell import SENTENCE, Shell, at_terminal
from tests.daemon import WITHIN, daemon
from tests.models.tiny_lora import make_tiny_lora
from tests.options.stream import endless_model


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("shell")
    with daemon(folder / "data") as one:
        yield Shell(one, folder)


@pytest.fixture(scope="module")
def tiny(shell: Shell, tiny_model: Path) -> str:
    shell.good("run", "--name=tiny", "-p", "ctx-size=512", str(tiny_model), "Who are you?")
    return "tiny"


def test_run_deploys_what_is_absent_shows_each_step_and_answers(shell: Shell, tiny_model: Path) -> None:
    ran = shell("run", "--name=first", str(tiny_model), "Who", "are", "you?")
    assert (ran.returncode, ran.stdout) == (0, f"{SENTENCE}\n"), ran.stderr
    steps = [line.split()[0] for line in ran.stderr.splitlines()]
    assert steps[0] == "deployed" and steps[-1] == "ready"
    again = shell("run", "first", stdin="Who are you?")
    assert (again.returncode, again.stdout) == (0, f"{SENTENCE}\n")
    assert "deployed" not in again.stderr
    assert shell.good("rm", "first") == "first is removed\n"


def test_run_takes_adapters_that_answer_by_names_of_their_own(shell: Shell, tiny_model: Path) -> None:
    make_tiny_lora(shell.cwd / "at.gguf", "@")
    make_tiny_lora(shell.cwd / "hash.gguf", "#")
    adapters = ("--lora", "at=./at.gguf", f"--lora=hash={shell.cwd / 'hash.gguf'}")
    assert shell.good("run", "--name=base", *adapters, str(tiny_model), "Who are you?") == f"{SENTENCE}\n"
    assert shell.good("chat", "base:at", stdin="Who are you?") == f"@{SENTENCE}\n"
    assert shell.good("chat", "base:hash", "Who are you?") == f"#{SENTENCE}\n"
    assert "There is no model 'base:no'" in shell.bad("chat", "base:no", "Who are you?")
    (model,) = [one for one in json.loads(shell.good("ls", "-o", "json")) if one["name"] == "base"]
    assert [(one["name"], one["local_path"]) for one in model["lora_adapters"]] == [
        ("at", str(shell.cwd / "at.gguf")),
        ("hash", str(shell.cwd / "hash.gguf")),
    ]
    ran = shell("run", "--name=other", "--lora=./at.gguf", str(tiny_model))
    assert ran.returncode == 2 and "--lora must be NAME=VALUE" in ran.stderr
    assert shell.good("rm", "base") == "base is removed\n"


def test_ls_and_ps_show_what_runs(shell: Shell, tiny: str) -> None:
    head, row = shell.good("ls").splitlines()
    assert head.split() == ["NAME", "SOURCE", "READY", "BACKEND", "CATEGORIES", "AGE"]
    assert "PRIORITY" in shell.good("ls", "-o", "wide")
    assert row.split()[0] == "tiny" and "1/1" in row and "llm" in row
    head, row = shell.good("ps", "tiny").splitlines()
    assert row.split()[1] == "running" and "CPU" in row and row.startswith("tiny-")
    assert shell.good("ls", "-q") == "tiny\n"
    assert [item["name"] for item in json.loads(shell.good("ls", "-o", "json"))] == ["tiny"]
    assert yaml.safe_load(shell.good("ps", "-o", "yaml"))[0]["model_name"] == "tiny"
    assert "ready" in shell.good("workers")
    head, row = shell.good("servers").splitlines()
    assert head.split() == ["ADDRESS", "STATE", "LEADS", "VERSION", "HEARD"]
    assert row.split()[1:3] == ["ready", "yes"] and row.startswith(shell.good("servers", "-q").strip())


def test_a_list_that_is_watched_is_left_by_a_key_and_stays_on_the_terminal(shell: Shell, tiny: str) -> None:
    for argv in (("ps", "--watch"), ("workers", "-w"), ("gpus", "top")):
        code, shown = at_terminal(shell, argv, [("q ends it", b"q")])
        screen, _, left = shown.partition("\x1b[?1049l")
        assert code == 0 and screen.startswith("\x1b[?1049h") and "\x1b[?25h" in screen
        assert left.strip()
    code, shown = at_terminal(shell, ("ls", "-w"), [("q ends it", b"\x03")])
    assert code == 130 and "tiny" in shown.partition("\x1b[?1049l")[2] and "Traceback" not in shown
    ran = shell("ls", "--watch", "-q")
    assert ran.returncode == 2 and "--watch and --quiet exclude each other" in ran.stderr


def test_gpus_of_a_machine_without_any_are_an_empty_list(shell: Shell, tiny: str) -> None:
    ran = shell("gpus", "top")
    assert (ran.returncode, ran.stdout) == (0, "") and "No worker has a GPU" in ran.stderr
    assert json.loads(shell.good("gpus", "-o", "json")) == []


def test_show_explain_and_logs_tell_of_an_instance(shell: Shell, tiny: str) -> None:
    assert yaml.safe_load(shell.good("show", "tiny"))["backend_parameters"] == ["--ctx-size=512"]
    instance = shell.good("ps", "-q").strip()
    assert json.loads(shell.good("show", instance, "-o", "json"))["state"] == "running"
    assert "placed on worker" in shell.good("explain", "tiny")
    assert json.loads(shell.good("explain", instance, "-o", "json"))[0]["fits"] is True
    assert 0 < len(shell.good("logs", "--tail=2", "tiny").splitlines()) <= 2
    assert "has no log of an earlier run" in shell.bad("logs", "--previous", "tiny")


def test_draw_keeps_the_image_and_says_where(shell: Shell, tiny: str) -> None:
    shell.daemon.call("POST", "/v1/models", {**endless_model(), "name": "painter", "categories": ["image"]})
    shell.daemon.running("painter")
    told = shell.good("draw", "painter", "A lighthouse,", "at night in the rain").strip()
    assert re.fullmatch(r"A_lighthouse_at_night_[0-9]{8}_[0-9]{6}\.png", Path(told).name)
    assert Path(told).read_bytes().startswith(b"\x89PNG")
    options = ("--output=mine.png", "--size=64x32", "--seed=7", "--cfg-scale=1.5", "--negative-prompt=fog")
    assert shell.good("draw", *options, "painter", "A lighthouse") == "mine.png\n"
    (instance,) = shell.daemon.instances("painter")
    with urllib.request.urlopen(f"http://127.0.0.1:{instance['port']}/_control", timeout=WITHIN) as answer:
        asked = json.load(answer)["last"]["body"]
    assert asked == {
        "model": "painter",
        "prompt": "A lighthouse",
        "n": 1,
        "size": "64x32",
        "response_format": "b64_json",
        "negative_prompt": "fog",
        "seed": 7,
        "cfg_scale": 1.5,
    }
    assert "no model named 'nobody'" in shell.bad("draw", "nobody", "A lighthouse")
    assert "cannot be written to" in shell.bad("draw", "--output=no/folder.png", "painter", "A lighthouse")
    ran = shell("draw", "--size=large", "painter", "A lighthouse")
    assert ran.returncode == 2 and "--size must be WIDTHxHEIGHT" in ran.stderr
    assert shell.good("rm", "painter") == "painter is removed\n"


def test_chat_takes_its_prompt_from_a_pipe(shell: Shell, tiny: str) -> None:
    assert shell.good("chat", "tiny", stdin="Who are you?") == f"{SENTENCE}\n"


def test_an_adapter_is_talked_with_by_its_name(shell: Shell, tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_tiny_lora(tmp_path / "at.gguf", "@")
    shell.good("run", "-d", "--name=base", "-p", "ctx-size=512", f"--lora=at={adapter}", str(tiny_model))
    assert shell.good("chat", "base:at", "Who are you?") == f"@{SENTENCE}\n"
    refused = shell("run", "base:at", "Who are you?")
    assert refused.returncode == 1 and "talk with it by gpustack chat base:at" in refused.stderr
    none = shell("chat", "base:none", "Who are you?")
    assert none.returncode == 1 and "There is no model 'base:none'" in none.stderr
    shell.good("rm", "base")


def test_bench_measures_levels_and_draws_them_within_eighty_columns(shell: Shell, tiny: str) -> None:
    asked = ("bench", tiny, "--concurrency=1,2", "--seconds=1", "--tokens=4", "--prompt-words=3")
    ran = shell(*asked)
    assert ran.returncode == 0, ran.stderr
    assert "warmed up" in ran.stderr and "What limits it: " in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80
    head, one, two, *_ = ran.stdout.splitlines()
    assert head.startswith("AT ONCE  REQUESTS/S") and [one.split()[0], two.split()[0]] == ["1", "2"]
    found = json.loads(shell.good(*asked, "--requests=3", "--seed=0", "-o", "json"))
    assert found["seed"] == 0
    assert [(one["concurrency"], one["errors"]) for one in found["levels"]] == [(1, {}), (2, {})]
    assert all(one["completed"] <= 3 and one["tokens_per_second"] > 0 for one in found["levels"])
    assert "--concurrency must be numbers" in shell(*asked[:2], "--concurrency=1,x").stderr


def test_scale_and_stop_change_the_replicas(shell: Shell, tiny_model: Path) -> None:
    shell.good("run", "--name=moved", "-d", str(tiny_model))
    assert "from 1 to 2 replicas" in shell.good("scale", "moved", "2")
    assert "is at 2 replicas already" in shell.good("scale", "moved", "2")
    assert "did you mean moved?" in shell.bad("run", "Moved") and "did you mean moved?" in shell.bad(
        "run", "mvoed"
    )
    shell.daemon.running("moved", 2)
    assert "moved stops" in shell.good("stop", "moved")
    shell.daemon.until(lambda: not shell.daemon.instances("moved"), "the end of the instances")
    assert "it is stopped" in shell.bad("explain", "moved")
    ran = shell("run", "-d", "moved")
    assert ran.returncode == 0 and "from 0 to 1 replicas" in ran.stderr
    shell.good("rm", "moved")


def test_an_embedding_model_says_how_it_is_called(shell: Shell, embedder_model: Path) -> None:
    ran = shell("run", "--name=vectors", str(embedder_model))
    assert ran.returncode == 0, ran.stderr
    assert f"curl {shell.daemon.url}/v1/embeddings" in ran.stderr
    assert shell("chat", "vectors", "hi").returncode == 1
    shell.good("rm", "vectors")


def test_what_can_never_fit_ends_at_once_and_leaves_nothing_in_the_way(shell: Shell, tmp_path: Path) -> None:
    from tests.models import SHAPES, make_hollow

    big = tmp_path / "big.gguf"
    make_hollow(big, next(shape for name, shape in SHAPES.items() if "70b" in name))
    parameters = ("-p", "ctx-size=100000000")
    ran = shell("run", *parameters, str(big))
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    *_, removed, last = ran.stderr.splitlines()
    assert last.startswith("gpustack: big cannot run here: Needs ") and "short by" in last
    assert removed == "big is removed again."
    assert "big" not in shell.good("ls", "-q").split()
    model = {"name": "stays", "source": "local_path", "local_path": str(big)}
    model["backend_parameters"] = ["--ctx-size=100000000"]  # type: ignore[assignment]
    assert shell.daemon.call("POST", "/v1/models", model)[0] == 200
    ran = shell("run", "stays")
    assert ran.returncode == 1 and "stays stays deployed" in ran.stderr, "what was there before is left"
    assert "short by" in shell.good("ps", "stays")
    (told,) = json.loads(shell.good("explain", "stays", "-o", "json"))
    assert told["final"] is True
    changes = {change["kind"]: change for change in told["changes"]}
    assert not changes["machine"]["by_api"] and changes["machine"]["added"]["ram"] > 1 << 30
    shown = shell.good("explain", "stays")
    assert max(map(len, shown.splitlines())) < 80
    assert f"Smallest change: {changes['machine']['sentence'][:20]}" in shown
    for wanted, why in (("machine", "not for the server to do"), ("nonsense", "no change 'nonsense'")):
        ran = shell("explain", "stays", f"--apply={wanted}")
        assert ran.returncode == 2 and why in ran.stderr
    shell.good("rm", "stays")


def test_a_change_that_explain_tells_is_made_and_the_replica_runs(shell: Shell, tiny_model: Path) -> None:
    model = {"name": "lonely", "source": "local_path", "local_path": str(tiny_model)}
    model |= {"backend_parameters": ["--ctx-size=512"], "worker_selector": {"zone": "b"}}  # type: ignore[dict-item]
    assert shell.daemon.call("POST", "/v1/models", model)[0] == 200
    shell.daemon.until(lambda: "is not labelled zone=b" in shell.good("ps", "lonely"), "says why")
    assert "* label: label worker" in shell.good("explain", "lonely")
    done = shell.good("explain", "lonely", "--apply=label")
    assert done.startswith("Done: label worker") and ". Changed: labels of " in done
    shell.good("run", "lonely", "Who are you?")
    assert "Scores " in shell.good("explain", "lonely")
    shell.good("rm", "lonely")


@pytest.mark.parametrize("content", [b"", b"junk", b"GGUF" + b"\xff" * 64])
def test_a_file_that_is_no_model_ends_run_and_leaves_nothing(
    shell: Shell, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "odd.gguf").write_bytes(content)
    ran = shell("run", str(tmp_path / "odd.gguf"))
    assert ran.returncode == 1 and "gpustack: odd cannot run" in ran.stderr
    assert "gpustack logs" not in ran.stderr, "no engine has written any"
    assert "odd" not in shell.good("ls", "-q").split()


def test_who_waits_only_so_long_gets_an_exit_code_of_its_own(shell: Shell, tiny_model: Path) -> None:
    command = "sh -c 'exec sleep 100' {port} {model_path}"
    ran = shell("run", "--name=slow", "--timeout=1", "--command", command, str(tiny_model))
    assert ran.returncode == 124
    assert "slow stays deployed" in ran.stderr and "within 1 s (--timeout)" in ran.stderr
    shell.good("rm", "slow")


def test_no_model_is_no_path(shell: Shell) -> None:
    for nothing in ("", "  "):
        assert "MODEL is empty" in shell.bad("run", nothing)


def test_the_backend_that_is_seen_is_stored(shell: Shell, tiny_model: Path) -> None:
    """Other programs show it, and choose by it."""
    folder = shell.cwd / "only"
    folder.mkdir()
    (folder / "m.gguf").symlink_to(tiny_model)
    for name, source in (("file", tiny_model), ("only", folder)):
        shell.good("run", f"--name={name}", str(source), "hi")
        assert json.loads(shell.good("show", "-o", "json", name))["backend"] == "llama-box"
        assert shell("run", f"--name={name}", str(source), "hi").returncode == 0, "asked for again"
        shell.good("rm", name)


def test_a_path_that_is_nowhere_is_refused_before_anything_is_deployed(shell: Shell) -> None:
    """All workers are this machine, so a file that is not here is on none of them."""
    assert "There is no /nowhere/model.gguf" in shell.bad("run", "/nowhere/model.gguf", "Hello")
    assert "nowhere" not in shell.good("ls", "-o", "json")


def test_an_instance_that_fails_ends_run_with_its_message_and_log(shell: Shell, tiny_model: Path) -> None:
    ran = shell("run", "--name=broken", "-p", "no-such-flag", str(tiny_model), "hi")
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    *_, wrote, removed, last = ran.stderr.splitlines()
    assert last.startswith("gpustack: broken-") and " failed: " in last
    assert "no-such-flag" in wrote and removed == "broken is removed again."
    assert shell.good("run", "--name=broken", str(tiny_model), "hi") == f"{SENTENCE}\n", "nothing in the way"
    shell.good("rm", "broken")


def test_failures_name_what_to_do(shell: Shell, tiny: str, tiny_model: Path, embedder_model: Path) -> None:
    assert "did you mean tiny?" in shell.bad("rm", "tinny")
    assert "deployed are tiny" in shell.bad("run", "nothing")
    assert "remove it first with gpustack rm tiny" in shell.bad("run", "tiny", "--cpu")
    assert "choose another with --name" in shell.bad("run", str(embedder_model), "--name=tiny")
    assert "GPUSTACK_API_KEY" in shell.bad("ls", GPUSTACK_SERVER_URL="http://192.0.2.7")
    refused = shell.bad("ls", GPUSTACK_SERVER_URL=shell.daemon.url, GPUSTACK_API_KEY="gpustack_a_b")
    assert refused.startswith(
        f"gpustack: The server {shell.daemon.url} (of GPUSTACK_SERVER_URL) does not accept the key of GPUSTACK_API_KEY"
    )


def test_an_engine_that_ends_at_once_is_told_wherever_one_looks(shell: Shell, tiny_model: Path) -> None:
    crash = "/bin/sh -c 'echo the driver is too old >&2; exit 3' {port}"
    source = {"source": "local_path", "local_path": str(tiny_model)}
    model = {"name": "crash", "backend": "custom", "command": crash, "health_path": "/health", **source}
    assert shell.daemon.call("POST", "/v1/models", model)[0] == 200
    cause = "The engine exited with code 3 before it was ready; its log ends: the driver is too old"
    ran = shell("run", "crash", "hi")
    assert ran.returncode == 1 and cause in ran.stderr
    # Now and then it is tried once more, and then not in error for a moment.
    shell.daemon.until(lambda: f"error: {cause}" in shell.good("explain", "crash"), "the cause in explain")
    assert cause in shell.good("ps", "crash")
    argv = [sys.executable, "-m", "gpustack", "chat", "crash", "hi"]
    with subprocess.Popen(argv, env=shell.env(), cwd=shell.cwd, stderr=subprocess.PIPE, text=True) as chat:
        assert chat.stderr is not None
        first = chat.stderr.readline()
        chat.kill()
    assert first.startswith("No running instances available for 'crash'")
    assert first.endswith("; asking again\n")
    shell.good("rm", "crash")


def test_a_limit_that_waiting_does_not_help_is_told_at_once(shell: Shell, tiny: str) -> None:
    shell.good("limits", "set", "model", "tiny", "tokens_per_day=1")
    told = shell.bad("chat", "tiny", "hi")
    shell.good("limits", "set", "model", "tiny", "tokens_per_day=none")
    assert "may use 1 tokens a day" in told and "asking again" not in told


def test_the_admin_password_is_reset_and_holds(shell: Shell) -> None:
    import base64

    told = shell.good("reset-admin-password").strip()
    assert told.startswith("The new password of admin is: ")
    password = told.rpartition(" ")[2]
    basic = base64.b64encode(f"admin:{password}".encode()).decode()
    status, me = shell.daemon.call("GET", "/v1/users/me", headers={"authorization": f"Basic {basic}"})
    assert status == 200 and me["require_password_change"] is True
    refused = shell.bad(
        "reset-admin-password", GPUSTACK_SERVER_URL=shell.daemon.url, GPUSTACK_API_KEY="gpustack_a_b"
    )
    assert "administrator" in refused


def test_the_doctor_finds_a_running_daemon_well(shell: Shell) -> None:
    port = shell.daemon.url.rpartition(":")[2]
    found = json.loads(
        shell("doctor", "-o", "json", "--", "--host=127.0.0.1", f"--port={port}", "--worker-port=0").stdout
    )
    told = {(one["check"], one["verdict"]) for one in found}
    assert {("server", "ok"), ("ports", "ok"), ("configuration", "ok"), ("disk", "ok")} <= told
    assert [one for one in found if one["check"] == "ports" and "held by the daemon" in one["message"]]


def test_at_a_terminal_one_talks_until_one_leaves(shell: Shell, tiny: str) -> None:
    code, shown = at_terminal(
        shell,
        ["run", "tiny"],
        [(">>> ", b"Who are you?\r"), (f"{SENTENCE}\r\n", b"\\c\r"), ("Forgotten.", b"\\q\r")],
    )
    assert code == 0, shown


def test_ctrl_c_while_it_waits_says_what_stays_and_ends_with_130(shell: Shell, tiny_model: Path) -> None:
    assert shell.daemon.call("PUT", "/v1/workers/1", {"cordoned": True})[0] == 200
    run = ["run", "--name=waits", str(tiny_model), "-p", "ctx-size=512"]  # it would fit: so it is waited for
    code, shown = at_terminal(shell, run, [("cordoned", b"\x03")])
    assert code == 130, shown
    assert "waits stays deployed: gpustack ps waits shows it" in shown
    told = shell.bad("logs", "waits")
    assert "has no log, as no engine was started for it: it is pending (" in told and "cordoned" in told
    shell.good("rm", "waits")
    assert shell.daemon.call("PUT", "/v1/workers/1", {"cordoned": False})[0] == 200


def test_a_taint_keeps_away_what_does_not_tolerate_it(shell: Shell, tiny_model: Path) -> None:
    name = shell.good("workers", "-q").strip()
    assert (
        shell.good("workers", "taint", name, "gpu=a100:NoSchedule").strip() == f"{name}: gpu=a100:NoSchedule"
    )
    assert "tainted gpu=a100:NoSchedule" in shell.good("workers")
    told = shell("run", "--name=kept-away", "--timeout=5", str(tiny_model), "-p", "ctx-size=512").stderr
    assert "has the taint gpu=a100:NoSchedule, which the deployment does not tolerate" in told
    models = shell.daemon.call("GET", "/v1/models?search=kept-away")[1]["items"]
    tolerant = {"tolerations": [{"key": "gpu", "operator": "Exists"}]}
    assert shell.daemon.call("PUT", f"/v1/models/{models[0]['id']}", tolerant)[0] == 200
    shell.good("run", "--timeout=60", "kept-away", "Who are you?")
    shell.good("rm", "kept-away")
    told = shell.bad("workers", "taint", name, "gpu-", "gup:NoSchedule-")
    assert f"Worker {name} has no taint gup:NoSchedule; it has gpu=a100:NoSchedule" in told
    assert shell.good("workers", "taint", name, "gpu-").strip() == f"{name}: no taints"
    assert "has no label nosuch" in shell.bad("workers", "label", name, "nosuch-")


def test_colours_show_at_a_terminal(shell: Shell, tiny: str) -> None:
    assert "\x1b[32mrunning\x1b[0m" in at_terminal(shell, ["ps"], [])[1]


def test_a_cluster_is_kept_in_files_planned_and_taken_one_step_back(shell: Shell, tiny_model: Path) -> None:
    text = f"kind: Model\nname: kept\nsource: local_path\nlocal_path: {tiny_model}\nenv: {{A_TOKEN: t0p}}\n"
    file = shell.cwd / "kept.yaml"
    file.write_text(text)
    assert shell.good("apply", "-f", "kept.yaml") == "Model/kept created\n"
    shell.good("export", "Model/kept", "-f", "all.yaml")
    exported = (shell.cwd / "all.yaml").read_text()
    assert "t0p" not in exported and "secrets_kept:\n  - env.A_TOKEN" in exported
    assert shell.good("apply", "-f", "all.yaml") == "Model/kept unchanged\n"
    file.write_text(exported + "replicas: 3\n")
    differs = shell("diff", "-f", "kept.yaml", "--exit-code")
    assert (differs.returncode, differs.stdout) == (3, "Model/kept\n- replicas: 1\n+ replicas: 3\n")
    (shell.cwd / "bad.yaml").write_text(text + "replicsa: 3\nbackend_version: 1.10\n")
    bad = shell("apply", "-f", "kept.yaml", "-f", "bad.yaml")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.splitlines() == [
        "bad.yaml:6: replicsa: is not known; did you mean replicas?",
        "bad.yaml:7: backend_version: must be text (without quotes, 1.10 is no text in YAML)",
        "bad.yaml:2: name: Model kept is described a second time; the first is at kept.yaml:1",
        "Nothing was changed.",
    ]
    planned = shell.good("plan", "-f", "kept.yaml", "--out", "plan.json")
    assert planned.count("runs  kept (a new instance)") == 2 and "then" not in planned.splitlines()[0]
    assert (shell.cwd / "plan.json").stat().st_mode & 0o777 == 0o600
    assert shell.good("apply", "--plan", "plan.json") == "Model/kept changed\n  replicas: 1 -> 3\n"
    assert "model kept (changed)" in shell.bad("apply", "--plan", "plan.json")
    again = ("plan", "-f", "kept.yaml", "--out", "plan.json")
    assert "gpustack apply --plan plan.json carries it out" in shell(*again).stderr
    assert "it is a question" in shell(*again, "--add-worker", "1x24GiB").stderr
    assert shell.good("rollback", "kept") == "kept is as at revision 1\n  replicas: 3 -> 1\n"
    rows = [line.split()[:1] for line in shell.good("revisions", "kept").splitlines()[1:]]
    assert rows == [["3"], ["2"], ["1"]]
    shell.good("rm", "kept")


def test_logs_of_all_instances_of_a_model_and_a_wait_for_them(shell: Shell, tiny: str) -> None:
    shell.good("scale", "tiny", "2")
    told = shell.good("wait", "--for=ready", "--timeout=60", "tiny", "worker/1")
    assert sorted(told.splitlines()) == ["tiny is ready", "worker/1 is ready"]  # each when it is
    names = shell.good("ps", "-q", "tiny").split()
    lines = shell.good("logs", "--tail=1", "tiny").splitlines()
    assert {line.split(" | ")[0].strip() for line in lines} == {*names}
    code, shown = at_terminal(shell, ["logs", "-f", "--tail=1", "tiny"], [("tiny-", b""), ("tiny-", b"\x03")])
    assert code == 130 and "Traceback" not in shown
    shell.good("scale", "tiny", "1")
    late = shell("wait", "--for=gone", "--timeout=1", "tiny")
    assert (late.returncode, late.stdout) == (124, "") and "tiny is not gone after 1 s" in late.stderr
    assert "is never drained" in shell.bad("wait", "--for=drained", "tiny")
    assert shell.good("wait", "--for=gone", "nobody") == "nobody is gone\n"


def test_events_tell_what_happened_to_what_is_there_and_to_what_is_gone(
    shell: Shell, tiny: str, tiny_model: Path
) -> None:
    told = shell.good("events", "tiny")
    assert "  tiny  " in told and "Runs" in told
    assert json.loads(shell.good("events", "-n", "1", "-o", "json", "tiny"))[0]["model_id"]
    code, shown = at_terminal(shell, ["events", "-f", "tiny"], [("Runs", b"\x03")])
    assert code == 130 and "Traceback" not in shown
    shell.good("run", "-d", "--name=brief", str(tiny_model), "-p", "ctx-size=512")
    shell.good("rm", "brief")
    assert "Deleted by" in shell.good("events", "brief", "--since", "1h")
    assert "no event of it is kept" in shell.bad("events", "nobody")
    assert shell("events", "--since", "soon").returncode == 2
