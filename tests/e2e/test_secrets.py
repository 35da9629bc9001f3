"""Secrets that we know are given to a daemon, everything is done with it, and then they are looked for everywhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import psutil
import pytest

from gpustack.api.resource import all_routes
from tests.child import ROOT
from tests.daemon import WITHIN, Daemon, daemon
from tests.options.stream import endless_model

GIVEN = {
    "token": "walk-cluster-token-4f9a",
    "bootstrap password": "Walk-Bootstrap-7c2d!",
    "hub token": "hf_walkHubToken81",
    "secret key": "walk0jwt0secret0key0" * 3,
    "user password": "Walk_User_Passw0rd",
    "other user password": "Walk_Other_Passw0rd",
    "parameter of an engine": "walk-engine-parameter-55",
}
OF_MODEL = "walk-env-of-a-model-93"
"""Administrators and the worker that runs it see this one: they can change it, or need it."""


@attrs.frozen
class Walk:
    """The daemon after everything was done, and the secrets that it made or was given."""

    daemon: Daemon
    secrets: Mapping[str, str]
    bob: str

    def found_in(self, text: str, *, beside: tuple[str, ...] = ()) -> list[str]:
        return [what for what, secret in self.secrets.items() if what not in beside and secret in text]

    def get(self, path: str, bearer: str | None = None) -> str:
        """As the administrator on this machine, or as somebody from elsewhere."""
        headers = {}
        if bearer is not None:
            headers = {"authorization": f"Bearer {bearer}", "x-forwarded-for": "192.0.2.1"}
        status, answer = self.daemon.call("GET", path, headers=headers)
        return f"{status} {answer if isinstance(answer, str) else json.dumps(answer)}"

    def command(self, *argv: str, **env: str) -> str:
        """All that a command prints."""
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("GPUSTACK_", "HF_"))
        }
        ran = subprocess.run(
            [sys.executable, "-m", "gpustack", *argv],
            env={**clean, "GPUSTACK_DATA_DIR": str(self.daemon.data_dir), "PYTHONPATH": str(ROOT), **env},
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    env = {
        "GPUSTACK_TOKEN": GIVEN["token"],
        "GPUSTACK_BOOTSTRAP_PASSWORD": GIVEN["bootstrap password"],
        "HF_TOKEN": GIVEN["hub token"],
        "GPUSTACK_JWT_SECRET_KEY": GIVEN["secret key"],
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    with daemon(tmp_path_factory.mktemp("secrets") / "data", "--debug", env=env) as one:
        yield Walk(one, *everything(one))


def everything(one: Daemon) -> tuple[Mapping[str, str], str]:
    """Do what can be done, well and badly; the secrets that came of it, and a user's key."""
    made = {}
    status, bob = one.call("POST", "/v1/users", {"username": "bob", "password": GIVEN["user password"]})
    assert status == 200, bob
    one.call("POST", "/v1/users", {"username": "bob", "password": GIVEN["user password"]})
    one.call("POST", "/v1/users", {"username": 7, "password": GIVEN["user password"]})
    one.call("PUT", f"/v1/users/{bob['id']}", {"password": GIVEN["other user password"]})
    as_bob = {"authorization": basic("bob", GIVEN["other user password"])}
    status, key = one.call("POST", "/v1/api-keys", {"name": "k"}, as_bob)
    assert status == 200, key
    made["api key"] = key["value"]
    one.call("GET", "/v1/users", headers={"authorization": basic("bob", GIVEN["user password"])})
    one.call("POST", "/v1/models", {}, {"authorization": f"Bearer {key['value']}"})
    request = urllib.request.Request(
        f"{one.url}/auth/login",
        json.dumps({"username": "admin", "password": GIVEN["bootstrap password"]}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WITHIN) as answer:
        made["session"] = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
    cookie = {"cookie": f"gpustack_session={made['session']}"}
    change = {"current_password": "wrong", "new_password": GIVEN["user password"]}
    one.call("POST", "/auth/update-password", change, cookie)
    model = endless_model("--api-key", GIVEN["parameter of an engine"])
    model["env"] = {**model["env"], "WALK": OF_MODEL}
    model["command"] = model["command"].replace(f" --api-key {GIVEN['parameter of an engine']}", "")
    model["backend_parameters"] = []
    status, deployed = one.call("POST", "/v1/models", model)
    assert status == 200, deployed
    one.running(model["name"])
    one.call("POST", "/v1/models", {**model, "env": {"9": OF_MODEL}, "name": "odd"})
    odd = {**model, "name": "odd", "replicas": 0, "backend": None, "command": None, "health_path": None}
    parameters = ["--api-key", GIVEN["parameter of an engine"], f"--token={GIVEN['parameter of an engine']}"]
    one.call("POST", "/v1/models", {**odd, "backend": "llama-box", "backend_parameters": parameters})
    body = {"source": "huggingface", "huggingface_repo_id": "a/b", "huggingface_filename": "c.gguf"}
    one.call("POST", "/v1/model-files", {**body, "worker_id": 1})
    join = {"name": "other", "worker_uuid": "u-other", "ip": "127.0.0.9"}
    bearer = {"authorization": f"Bearer {GIVEN['token']}"}
    status, other = one.call("POST", "/v1/workers", join, bearer)
    assert status == 200, other
    made.update({"credential": other["credential"], "forward key": other["forward_key"]})
    one.call("POST", f"/v1/workers/{other['id']}/bar", {})
    one.call("POST", "/v1/workers", join, bearer)
    kept = one.until(lambda: own_credential(one), "the worker's credential")
    made["worker's credential"] = kept
    return {**GIVEN, **made, "environment of a model": OF_MODEL}, str(key["value"])


def own_credential(one: Daemon) -> str:
    file = one.data_dir / "worker_credential"
    return file.read_text().strip() if file.is_file() else ""


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.mark.attack("secret")
def test_no_log_holds_a_secret(walk: Walk) -> None:
    assert "DEBUG" in walk.daemon.log
    assert walk.found_in(walk.daemon.log) == []
    logs = [path for path in (walk.daemon.data_dir / "log").rglob("*") if path.is_file()]
    assert logs
    for path in logs:
        # Beside a log stands what its engine was started with, as administrators see it.
        beside = ("environment of a model",) if path.name.endswith(".launch.json") else ()
        assert walk.found_in(path.read_text(errors="replace"), beside=beside) == [], path


@pytest.mark.attack("secret")
def test_no_command_line_holds_a_secret_and_no_engine_has_those_of_the_daemon(walk: Walk) -> None:
    me = psutil.Process(walk.daemon.process.pid)
    (instance,) = walk.daemon.running("endless")
    engine = psutil.Process(instance["pid"])
    for process in (me, *me.children(recursive=True), engine, *engine.children(recursive=True)):
        assert walk.found_in(" ".join(process.cmdline())) == []
    told = Path(f"/proc/{engine.pid}/environ").read_bytes().decode()
    assert OF_MODEL in told
    assert walk.found_in(told, beside=("environment of a model",)) == []
    for process in (me, engine):  # its owner and root alone
        assert Path(f"/proc/{process.pid}/environ").stat().st_mode & 0o077 == 0


ENDLESS = "text/event-stream"  # tests/api/test_changes.py looks at what is in it
GETS = [
    route.path
    for route in all_routes()
    if route.method == "GET" and not route.path.endswith("/proxy") and route.answer_type != ENDLESS
]


@pytest.mark.attack("secret")
@pytest.mark.parametrize("path", GETS)
def test_no_answer_to_a_user_holds_a_secret_and_to_an_administrator_only_of_models(
    walk: Walk, path: str
) -> None:
    where = path.replace("{id}", "1")
    for bearer in ("nothing", walk.bob):
        assert walk.found_in(walk.get(where, bearer)) == []
    beside: tuple[str, ...] = ()
    if path.startswith("/v1/models"):
        beside = ("environment of a model", "parameter of an engine")
    elif path.endswith(("/launch", "/v1/manifests")):
        # Variables without the name of a secret, as administrators see them of the model.
        beside = ("environment of a model",)
    assert walk.found_in(walk.get(where), beside=beside) == []


@pytest.mark.attack("secret")
@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_the_audit_trail_holds_no_secret(walk: Walk, form: str) -> None:
    text = walk.get(f"/v1/audit-events/export?format={form}")
    for action in (
        "user.create",
        "auth.login",
        "model.create",
        "worker.join",
        "worker.bar",
        "api-key.create",
    ):
        assert action in text
    assert walk.found_in(text) == []


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    "argv",
    [
        ("doctor",),
        ("workers",),
        ("workers", "-o", "json"),
        ("ps", "-o", "json"),
        ("audit",),
        ("audit", "-o", "yaml", "--since", "1h", "--actor", "admin"),
        ("audit", "-o", "csv", "--action", "user."),
        ("explain", "endless"),
        ("logs", "endless"),
    ],
    ids=" ".join,
)
def test_no_command_prints_a_secret(walk: Walk, argv: tuple[str, ...]) -> None:
    text = walk.command(*argv)
    assert text.strip()
    assert "does not understand" not in text
    assert walk.found_in(text) == []


SHOWN_BY_CONFIG = {
    "GPUSTACK_TOKEN": GIVEN["token"],
    "GPUSTACK_BOOTSTRAP_PASSWORD": GIVEN["bootstrap password"],
    "HF_TOKEN": GIVEN["hub token"],
    "GPUSTACK_JWT_SECRET_KEY": GIVEN["secret key"],
    "GPUSTACK_DATABASE_URL": "postgresql://me:walk-database-password@127.0.0.1:9/x?sslpassword=walk-database-password",
    "GPUSTACK_OIDC_CLIENT_SECRET": "walk-oidc-client-secret",
    "GPUSTACK_SAML_SP_PRIVATE_KEY": "walk-saml-private-key",
}


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    "argv", [("config",), ("config", "--format", "env"), ("config", "--format", "yaml"), ("doctor",)]
)
def test_what_a_configuration_is_shown_as_holds_no_secret(walk: Walk, argv: tuple[str, ...]) -> None:
    text = walk.command(*argv, **SHOWN_BY_CONFIG)
    secrets = [*SHOWN_BY_CONFIG.values(), "walk-database-password", "walk-oidc", "walk-saml"]
    assert text.strip()
    assert [secret for secret in secrets if secret in text] == []


@pytest.mark.attack("secret")
def test_every_file_with_a_secret_is_its_owners_alone(walk: Walk) -> None:
    holding = []
    for path in walk.daemon.data_dir.rglob("*"):
        if path.is_file() and walk.found_in(path.read_bytes().decode("latin-1")):
            holding.append(path.name)
            assert path.stat().st_mode & 0o077 == 0, path
    assert "worker_credential" in holding
    assert walk.daemon.data_dir.stat().st_mode & 0o077 == 0


KNOWN_HERE = (
    *("token", "bootstrap password", "hub token", "secret key", "worker's credential", "api key"),
    "environment of a model",
)
"""Secrets that the machine can know: those of users are in no file and no variable of it."""
WRITTEN = {
    "header in a log": "walk-header-in-a-log-17",
    "cookie in a log": "walkCookieInALog23",
    "password of an address": "walk-url-passw0rd-29",
    "flag in a log": "walk-flag-in-a-log-31",
    "password of a proxy": "walk-proxy-passw0rd-37",
    "key of a context": "gpustack_walkcontext_key41",
    "variable of the shell": "walk-shell-variable-43",
}


@pytest.mark.attack("secret")
def test_a_debug_bundle_holds_no_secret(walk: Walk, tmp_path: Path) -> None:
    """Known secrets, and secrets that only their form gives away, in logs that nobody has washed."""
    lines = [
        f"Authorization: Bearer {WRITTEN['header in a log']}",
        f"{{'x-api-key': '{WRITTEN['header in a log']}', 'Cookie': 'a=b; c={WRITTEN['cookie in a log']}'}}",
        f"GET https://me:{WRITTEN['password of an address']}@example.com/x",
        f"running: engine --api-key {WRITTEN['flag in a log']} ['--hf-token', '{WRITTEN['flag in a log']}']",
        *(f"the engine says {walk.secrets[what]}" for what in KNOWN_HERE),
    ]
    (walk.daemon.data_dir / "log" / "unwashed.log").write_text("\n".join(lines))
    contexts = tmp_path / "gpustack" / "contexts.json"
    contexts.parent.mkdir()
    contexts.write_text(
        json.dumps({"contexts": {"a": {"url": "http://a", "key": WRITTEN["key of a context"]}}})
    )
    contexts.chmod(0o600)
    env = {
        "XDG_CONFIG_HOME": str(tmp_path),
        "HTTPS_PROXY": f"http://me:{WRITTEN['password of a proxy']}@127.0.0.1:9",
        "MY_ACCESS_TOKEN": WRITTEN["variable of the shell"],
    }
    told = walk.command("debug", "bundle", str(tmp_path / "bundle.tar.gz"), "-o", "json", **env)
    with tarfile.open(tmp_path / "bundle.tar.gz") as tar:
        files = {one.name.partition("/")[2]: tar.extractfile(one) for one in tar.getmembers()}
        texts = {name: file.read().decode() for name, file in files.items() if file is not None}
    assert {"versions.json", "options.txt", "hardware.json", "logs/daemon.log", "server/tasks.txt"} <= {
        *texts
    }
    assert {"records/models.json", "records/instances.json", "server/events.json", "README.txt"} <= {*texts}
    assert "the engine says ***" in texts["logs/engines/unwashed.log"]
    assert '"WALK": "***"' in texts["records/models.json"]
    every = {**walk.secrets, **WRITTEN}
    for name, text in {**texts, "what it prints": told}.items():
        assert [what for what, secret in every.items() if secret in text] == [], name
