from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from gpustack.config.environment import Environment
from gpustack.config.loader import Configuration
from gpustack.config.option import table
from gpustack.config.options import Options
from gpustack.config.rendering import effective, env_file, markdown, yaml_file
from gpustack.config.url import mask_url
from tests.config.loading import loaded


def test_the_docs_page_has_every_option_and_variable() -> None:
    page = markdown()
    for option in (*table(Options), *table(Environment)):
        assert f"`{option.env}`" in page
        assert option.flag is None or f"`{option.flag}" in page or option not in table(Options)


def test_the_docs_page_names_what_shows_an_effect_where_it_is_told() -> None:
    assert "Shown by" not in markdown()
    lines = markdown({"port": "tests/a.py::test_b"}).splitlines()
    assert next(line for line in lines if line.startswith("| `--port N`")).endswith(
        "| `tests/a.py::test_b` |"
    )
    assert next(line for line in lines if line.startswith("| `--host TEXT`")).endswith("| nothing yet |")


def set_lines(text: str, separator: str) -> dict[str, str]:
    """The names and lines of a sample whose comment signs are taken away."""
    found = re.findall(rf"^#(\w+){separator}(.*)$", text, flags=re.M)
    return dict(found)


def test_the_sample_yaml_has_every_option_and_reads_back_as_the_defaults(tmp_path: Path) -> None:
    lines = set_lines(yaml_file(), ": ")
    options = [option for option in table(Options) if option.name != "config_file"]
    assert list(lines) == [option.name for option in options]
    (tmp_path / "sample.yaml").write_text(yaml_file())
    assert set(loaded(f"--config-file={tmp_path}/sample.yaml").origins.values()) > {loaded().origins["port"]}
    plain = [option for option in options if option.default not in (None, ()) and option.mask is None]
    text = "".join(f"{option.name}: {lines[option.name]}\n" for option in plain)
    (tmp_path / "c.yaml").write_text(text)
    found = loaded(f"--config-file={tmp_path}/c.yaml")
    for option in plain:
        assert found.origins[option.name].kind == "file"
        assert getattr(found.options, option.name) == option.default


def test_the_sample_environment_has_every_variable_and_reads_back_as_the_defaults() -> None:
    lines = set_lines(env_file(), "=")
    options = table(Options)
    assert list(lines) == [option.env for option in (*options, *table(Environment))]
    plain = [option for option in options if option.default not in (None, ()) and option.mask is None]
    found = loaded(env={option.env: lines[option.env].strip("'") for option in plain})
    for option in plain:
        assert found.origins[option.name].kind == "environment"
        assert getattr(found.options, option.name) == option.default


ARGV = [
    "--port=8081",
    "--debug",
    "--allow-origins=https://a",
    "--rpc-server-args=--log-colors",
    '--system-reserved={"ram": 0}',
    "--service-port-range=41000-41010",
    "--saml-idp-x509-cert=-----BEGIN\n'quoted' \"$x\" `y` \\\n-----END",
    "--worker-name=null",
    "--external-auth-name=#claim",
    "--heartbeat-interval=2.5",
    "--reschedule-grace=123456.75",
    "--server-url=http://10.0.0.1:8080/",
    "--token=hunter2",
]
RESOURCES = {"GPUSTACK_RESOURCES": '{"cpu": {"total": 4}, "gpu_devices": []}'}


def same_where_set(before: Configuration, after: Configuration, kind: str) -> None:
    for option in table(Options):
        if before.origins[option.name].kind != "default" and option.mask is None:
            assert getattr(after.options, option.name) == getattr(before.options, option.name)
            assert after.origins[option.name].kind == kind


def test_what_is_set_is_written_as_yaml_that_reads_back(tmp_path: Path) -> None:
    before = loaded(*ARGV, env=RESOURCES)
    (tmp_path / "c.yaml").write_text(yaml_file(before))
    same_where_set(before, loaded(f"--config-file={tmp_path}/c.yaml", "--token=x"), "file")


def test_what_is_set_is_written_as_an_environment_that_a_shell_reads_back(tmp_path: Path) -> None:
    before = loaded(*ARGV, env=RESOURCES)
    (tmp_path / "e").write_text(env_file(before))
    command = ["env", "-i", "/bin/sh", "-c", f"set -a; . {tmp_path}/e; exec /usr/bin/env -0"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    env = dict(line.split("=", 1) for line in out.split("\0") if line)
    same_where_set(before, loaded("--token=x", env=env), "environment")


def test_secrets_are_written_nowhere() -> None:
    env = {option.env: "hunter2" for option in table(Options) if option.mask}
    env |= {"GPUSTACK_DATABASE_URL": "mysql://u:hunter2@h/d?password=hunter2"}
    found = loaded(env=env)
    for text in (effective(found), yaml_file(found), env_file(found)):
        assert "hunter2" not in text
    assert "mysql://u:***@h/d?password=***" in effective(found)
    assert re.search(r"^token +\*\*\* +GPUSTACK_TOKEN$", effective(found), flags=re.M)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:p@ss/w:rd@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("sqlite:////var/lib/gpustack/database.db", "sqlite:////var/lib/gpustack/database.db"),
        ("mysql://h/d?user=u&password=p&x=y", "mysql://h/d?user=u&password=***&x=y"),
    ],
)
def test_a_url_loses_its_password_only(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_the_table_has_every_value_and_its_origin() -> None:
    text = effective(loaded("--port=81", "-shttp://s", env={"GPUSTACK_TOKEN": "x"}))
    assert text.startswith("role: worker\n")
    assert re.search(r"^port +81 +flag --port$", text, flags=re.M)
    assert re.search(r"^worker_port +10150 +default$", text, flags=re.M)
    assert {line.split()[0] for line in text.splitlines()[3:] if line} == {
        option.name for option in table(Options)
    }
