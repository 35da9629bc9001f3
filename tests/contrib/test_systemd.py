from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gpustack.config.rendering import env_file

FOLDER = Path(__file__).parents[2] / "contrib" / "systemd"
UNITS = ["gpustack.service", "gpustack-worker.service"]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; without it a run for a merge fails, and any other says what to install."""
    program = shutil.which("systemd-analyze")
    if program is None:
        message = "systemd-analyze is missing: apt-get install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the unit whose program is there."""
    text = (FOLDER / request.param).read_text()
    text, changed = re.subn(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text, flags=re.M)
    assert changed == 1
    copy = tmp_path / str(request.param)
    copy.write_text(text)
    return copy


def test_systemd_understands_every_line_of_the_units(unit: Path) -> None:
    """Its exit status is 0 even for keys that it does not know, so nothing may be said at all."""
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_key_that_systemd_does_not_know_would_be_seen(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nKillMood=process"))
    assert "KillMood" in analyze("verify", "--man=no", str(unit)).stderr


def test_the_units_are_closed_to_what_they_do_not_need(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=30", str(unit))
    assert done.returncode == 0, done.stdout


def settings(name: str) -> dict[str, str]:
    lines = (FOLDER / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.parametrize("name", UNITS)
def test_engines_outlive_a_daemon_that_crashes_or_reloads(name: str) -> None:
    found = settings(name)
    assert found["KillMode"] == "process"
    assert "PrivateTmp" not in found
    assert found["ExecReload"].endswith("kill -HUP $MAINPID")
    assert found["Restart"] == "always"
    assert found["RestartPreventExitStatus"] == "2"


@pytest.mark.parametrize("name", UNITS)
def test_systemd_watches_the_daemon_and_lets_engines_compile(name: str) -> None:
    found = settings(name)
    assert found["Type"] == "notify"
    assert int(found["WatchdogSec"]) > 0
    assert "MemoryDenyWriteExecute" not in found
    assert (found["User"], found["StateDirectory"]) == ("gpustack", "gpustack")


def test_only_a_server_may_bind_low_ports() -> None:
    assert settings("gpustack.service")["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
    assert "AmbientCapabilities" not in settings("gpustack-worker.service")
    assert settings("gpustack-worker.service")["CapabilityBoundingSet"] == ""


def test_the_environment_file_is_the_one_that_is_written() -> None:
    """Run ``gpustack config --format env > contrib/systemd/gpustack.env`` after changing an option."""
    assert (FOLDER / "gpustack.env").read_text() == env_file()


def test_the_readme_names_every_file_beside_it() -> None:
    readme = (FOLDER / "README.md").read_text()
    for path in FOLDER.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in readme
