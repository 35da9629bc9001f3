"""Environments of engines: made by real tools from a folder of wheels, side by side, and never used half made."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from gpustack.artifacts.disk import NoSpace
from gpustack.artifacts.environment import EnvironmentPlan, PythonEnvironments
from gpustack.artifacts.installer import Installer, PipxFolders, PipxInstaller, VenvInstaller, find_installer
from gpustack.domain.unit import GIB
from gpustack.domain.worker import BuildPresence
from gpustack.engines.program import EngineProgram, PythonPackage
from gpustack.errors import NotFound, Unavailable
from gpustack.nursery.log_file import LogFile
from gpustack.nursery.process_identity import read_stat
from tests.child import environment
from tests.fakes.wheels import index_environment, make_wheel

PACKAGE = PythonPackage(name="vllm", disk=1 << 20, pins=(("0.10.0", ("extra==1.0",)),))
PROGRAM = EngineProgram(name="vllm", package=PACKAGE)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("0.9.2", "0.10.1", "0.11.0", "0.12.0", "0.13.0"):
        make_wheel(folder, "vllm", version, program="vllm", requires=("extra",))
    for version in ("1.0", "2.0"):
        make_wheel(folder, "extra", version)
    make_wheel(folder, "noprogram", "1.0")
    return folder


def environments(folder: Path, env: dict[str, str], **changes: Any) -> PythonEnvironments:
    pipx = PipxFolders(folder / "pipx", folder / "bin")
    made = PythonEnvironments(
        folder / "venvs", pipx, VenvInstaller, env={**environment(), **env}, free=lambda _: 100 * GIB
    )
    return attrs.evolve(made, **changes)


def plan(version: str, *wanted: str, package: PythonPackage = PACKAGE) -> EnvironmentPlan:
    return EnvironmentPlan(
        engine="vllm", program=attrs.evolve(PROGRAM, package=package), version=version, wanted=wanted
    )


def version_of(program: str | None) -> str:
    ran = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout.strip()


def packages(folder: Path) -> set[str]:
    """Names and versions of what is installed in an environment."""
    found = folder.glob("venv/lib/*/site-packages/*.dist-info")
    return {path.name.removesuffix(".dist-info") for path in found}


async def test_versions_stand_side_by_side_with_what_each_requires(tmp_path: Path, index: Path) -> None:
    one, told = environments(tmp_path, index_environment(index)), list[str]()
    log_file = LogFile(tmp_path / "log/7.log")
    older = await one.make(plan("0.9.2"), tell=told.append, log_file=log_file)
    newer = await one.make(plan("0.11.0"), tell=told.append)
    other = await one.make(plan("0.11.0", "extra<2"), tell=told.append)
    assert [version_of(build.path) for build in (older, newer, other)] == ["0.9.2", "0.11.0", "0.11.0"]
    # Old versions are pinned, and what a deployment names replaces that.
    assert packages(one.folder_of(older)) == {"vllm-0.9.2", "extra-1.0"}
    assert packages(one.folder_of(newer)) == {"vllm-0.11.0", "extra-2.0"}
    assert packages(one.folder_of(other)) == {"vllm-0.11.0", "extra-1.0"}
    assert set(await one.made()) == {older, newer, other}
    assert (older.presence, older.version, older.requirements) == (BuildPresence.ISOLATED, "0.9.2", ())
    assert other.requirements == ("extra<2",)
    assert older.disk is not None and 0 < older.disk < 1 << 20
    assert told[0] == "Installing vllm 0.9.2 (venv and pip): beginning, 0 s so far"
    assert "Successfully installed extra-1.0 vllm-0.9.2" in log_file.path.read_text()
    # Another daemon finds them, and makes none again.
    (tmp_path / "no").mkdir()
    again = environments(tmp_path, index_environment(tmp_path / "no"))
    assert await again.make(plan("0.9.2"), tell=told.append) == older


async def test_two_that_want_the_same_environment_wait_for_one_installation(
    tmp_path: Path, index: Path
) -> None:
    one, told, found = environments(tmp_path, index_environment(index)), list[str](), []

    async def make(version: str) -> None:
        found.append(await one.make(plan(version), tell=told.append))

    async with trio.open_nursery() as nursery:
        for version in ("0.11.0", "0.11.0", "0.12.0"):
            nursery.start_soon(make, version)
    assert sorted(str(build.version) for build in found) == ["0.11.0", "0.11.0", "0.12.0"]
    assert sum(sentence.endswith("beginning, 0 s so far") for sentence in told) == 2
    assert any(sentence.startswith("Waiting to install vllm 0.1") for sentence in told)


@pytest.mark.parametrize(
    ("version", "wanted", "sentence"),
    [
        (
            "0.11.7",
            (),
            "vllm 0.11.7 cannot be installed: the package index has no such version; the nearest are "
            "0.10.1, 0.11.0, 0.12.0, 0.13.0",
        ),
        (
            "0.11.0",
            ("extra==9.0",),
            "vllm 0.11.0 cannot be installed: it needs extra==9.0, and the package index has 1.0, 2.0",
        ),
        (
            "0.11.0",
            ("absent",),
            "vllm 0.11.0 cannot be installed: the package index has no absent; PIP_INDEX_URL",
        ),
    ],
)
async def test_what_the_index_does_not_have_is_told(
    tmp_path: Path, index: Path, version: str, wanted: tuple[str, ...], sentence: str
) -> None:
    one = environments(tmp_path, index_environment(index))
    with pytest.raises(NotFound) as refused:
        await one.make(plan(version, *wanted), tell=lambda _: None)
    assert str(refused.value).startswith(sentence)
    assert await one.made() == ()
    assert not (tmp_path / "venvs/vllm" / version).exists()


async def test_an_index_out_of_reach_is_told_and_its_password_is_not(tmp_path: Path) -> None:
    env = {
        "PIP_INDEX_URL": "http://me:s3cret@127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    log_file = LogFile(tmp_path / "log/7.log")
    one = environments(tmp_path, env)
    with pytest.raises(Unavailable) as refused:
        await one.make(plan("0.11.0"), tell=lambda _: None, log_file=log_file)
    assert str(refused.value).startswith(
        "vllm 0.11.0 cannot be installed: could not reach the package index (Connection refused); PIP_INDEX_URL"
    )
    assert "127.0.0.1:9" in log_file.path.read_text()
    assert "s3cret" not in log_file.path.read_text() + str(refused.value)


async def test_too_little_disk_is_refused_before_anything_is_fetched(tmp_path: Path, index: Path) -> None:
    one = environments(tmp_path, index_environment(index), free=lambda _: 3 * GIB)
    large = attrs.evolve(PACKAGE, disk=12 * GIB)
    with pytest.raises(
        NoSpace, match=r"it takes about 12\.0 GiB, and 3\.0 GiB are free in .*venvs; free some space"
    ):
        await one.make(plan("0.11.0", package=large), tell=lambda _: None)
    assert not (tmp_path / "venvs/vllm").exists()


async def test_a_package_without_the_program_is_refused(tmp_path: Path, index: Path) -> None:
    one = environments(tmp_path, index_environment(index))
    with pytest.raises(Unavailable, match=r"noprogram 1\.0 has no program vllm"):
        await one.make(plan("1.0", package=PythonPackage(name="noprogram", disk=1)), tell=lambda _: None)
    assert await one.made() == ()


def stub(folder: Path, text: str) -> Path:
    """An installer that does what ``text`` says, with the arguments of each call in ``calls``."""
    program = folder / "installer"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nenv >> {folder}/env\n{text}\n')
    program.chmod(0o755)
    return program


@attrs.frozen
class StubInstaller(VenvInstaller):
    """Runs the stub in place of pip."""

    program_path: str = ""

    def commands(self, wanted: Any) -> Any:
        first, second = super().commands(wanted)
        return first, attrs.evolve(second, argv=(self.program_path, *second.argv))


@pytest.mark.parametrize(
    ("output", "kind", "sentence"),
    [
        (
            "echo 'ERROR: Could not install: [Errno 28] No space left on device'; exit 1",
            NoSpace,
            "the disk of ",
        ),
        ("echo 'ERROR: ResolutionImpossible: for help'; exit 1", Unavailable, "does not go together"),
        ("echo 'error: subprocess-exited-with-error'; exit 1", Unavailable, "could not be built"),
        ("kill -9 $$", Unavailable, "venv and pip failed (ended by SIGKILL); it said nothing"),
        ("echo odd; exit 3", Unavailable, "venv and pip failed (exit code 3); odd"),
        ("sleep 600", Unavailable, "did not end within 1 s"),
    ],
)
async def test_what_went_wrong_is_told_in_a_sentence(
    tmp_path: Path, output: str, kind: type[Exception], sentence: str
) -> None:
    installer = StubInstaller(program_path=str(stub(tmp_path, output)))
    one = environments(
        tmp_path, {}, find_installer=lambda: installer, deadline=1.0 if "sleep" in output else 60.0
    )
    with pytest.raises(kind) as refused:
        await one.make(plan("0.11.0"), tell=lambda _: None)
    assert sentence in str(refused.value)


async def until(look: Callable[[], bool]) -> None:
    with trio.fail_after(180):
        while not look():  # noqa: ASYNC110  other processes set no event
            await trio.sleep(0.02)


def runs(pid_file: Path) -> bool:
    """Whether the process whose pid is in the file is there and has not ended."""
    written = pid_file.read_text().strip() if pid_file.exists() else ""
    stat = read_stat(int(written)) if written else None
    return stat is not None and not stat.dead


async def test_cancelled_midway_the_installer_ends_with_all_that_it_started_and_nothing_half_made_is_used(
    tmp_path: Path, index: Path
) -> None:
    child = tmp_path / "child"
    program = stub(tmp_path, f"sleep 600 & echo $! > {child}; wait")
    installers: list[Installer] = [StubInstaller(program_path=str(program))]
    one = environments(tmp_path, index_environment(index), find_installer=lambda: installers[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: one.make(plan("0.11.0"), tell=lambda _: None))
        await until(lambda: runs(child))
        nursery.cancel_scope.cancel()
    assert not runs(child)
    assert await one.made() == ()
    assert (tmp_path / "venvs/vllm/0.11.0/venv").exists()
    await one.remove_remains()
    assert not (tmp_path / "venvs/vllm/0.11.0").exists()
    installers[0] = VenvInstaller()
    assert version_of((await one.make(plan("0.11.0"), tell=lambda _: None)).path) == "0.11.0"


async def test_what_a_killed_daemon_was_installing_is_ended_by_the_next(tmp_path: Path) -> None:
    child = tmp_path / "child"
    program = stub(tmp_path, f"sleep 600 & echo $! > {child}; wait")
    script = f"""
import trio
from pathlib import Path
from tests.artifacts.test_environment import *
installer = StubInstaller(program_path={str(program)!r})
one = environments(Path({str(tmp_path)!r}), {{}}, find_installer=lambda: installer)
trio.run(lambda: one.make(plan("0.11.0"), tell=lambda _: None))
"""
    daemon = await trio.lowlevel.open_process([sys.executable, "-c", script], env=environment())
    try:
        await until(lambda: runs(child))
    finally:
        daemon.kill()
        await daemon.wait()
    assert runs(child)
    await environments(tmp_path, {}).remove_remains()
    await until(lambda: not runs(child))
    assert not (tmp_path / "venvs/vllm/0.11.0").exists()


PIPX = """
while [ $# -gt 1 ]; do
  case "$1" in --suffix) suffix=$2; shift;; esac
  shift
done
home="$PIPX_HOME/venvs/vllm$(echo "$suffix" | tr '_.' '--')"
mkdir -p "$home/bin" "$PIPX_BIN_DIR"
echo '#!/bin/sh' > "$home/bin/vllm"; chmod +x "$home/bin/vllm"
ln -s "$home/bin/vllm" "$PIPX_BIN_DIR/vllm$suffix"
echo "installing $1 from spec '$1'..."
"""


async def test_pipx_installs_by_version_with_its_programs_in_bin_dir(tmp_path: Path) -> None:
    program = stub(tmp_path, PIPX)
    folders = PipxFolders(tmp_path / "pipx", tmp_path / "bin")
    one = environments(
        tmp_path, {"SECRET_OF_THE_DAEMON": "x"}, find_installer=lambda: PipxInstaller(str(program), folders)
    )
    older = await one.make(plan("0.9.2"), tell=lambda _: None)
    newer = await one.make(plan("0.11.0"), tell=lambda _: None)
    assert older.path == f"{tmp_path}/bin/vllm_0.9.2"
    python = f"--python {sys.executable}"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"install --force {python} --suffix _0.9.2 --pip-args extra==1.0 vllm==0.9.2",
        f"install --force {python} --suffix _0.11.0 vllm==0.11.0",
    ]
    assert "SECRET_OF_THE_DAEMON" not in (tmp_path / "env").read_text()
    assert await one.remove(older, unused_since=time.time() + 60)
    assert await one.made() == (newer,)
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["vllm_0.11.0"]
    assert [path.name for path in (tmp_path / "pipx/venvs").iterdir()] == ["vllm-0-11-0"]


async def test_one_that_was_used_since_is_not_removed(tmp_path: Path, index: Path) -> None:
    one = environments(tmp_path, index_environment(index))
    build = await one.make(plan("0.11.0"), tell=lambda _: None)
    assert not await one.remove(build, unused_since=one.used_at(build) - 1)
    assert await one.remove(build, unused_since=one.used_at(build))
    assert await one.made() == ()


async def test_a_mark_that_nobody_wrote_is_no_environment(tmp_path: Path) -> None:
    folder = tmp_path / "venvs/vllm/0.1"
    folder.mkdir(parents=True)
    for told in ("{", "[]", "{}", json.dumps({"version": 1, "path": "/bin/sh", "requirements": []})):
        (folder / "ready.json").write_text(told)
        assert await environments(tmp_path, {}).made() == ()


def test_pipx_goes_before_uv_and_uv_before_venv(tmp_path: Path) -> None:
    folders = PipxFolders(tmp_path / "pipx", tmp_path / "bin")

    def found(configured: Path | None = None) -> str:
        installer = find_installer(configured, str(tmp_path), folders, python=f"{tmp_path}/none/python")
        return "none" if installer is None else installer.name

    assert found() == "venv and pip"
    stub(tmp_path, "").rename(tmp_path / "uv")
    assert found() == "uv"
    stub(tmp_path, "").rename(tmp_path / "pipx")
    assert found() == "pipx"
    (tmp_path / "pipx").unlink()
    assert found(tmp_path / "elsewhere") == "pipx"
