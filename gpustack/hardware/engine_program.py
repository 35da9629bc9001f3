"""Finds the programs of engines on this machine, and asks each for its version and the devices that it is built for."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from gpustack.domain.worker import BuildPresence, EngineBuild
from gpustack.engines.program import EngineProgram
from gpustack.hardware.child import run_child
from gpustack.nursery.limiter import threads
from gpustack.text import printable

_SHEBANG_LIMIT = 4096
_VERSION_LIMIT = 4096
_files = threads("engine versions", 1)
_VERSION = re.compile(r"\d+(?:\.\d+)+[0-9A-Za-z.+!_-]*")

_PYTHON_QUESTION = """
import sys
sys.path[:] = [place for place in sys.path if place]
import importlib.metadata as metadata, importlib.util as util, json, os, runpy

program, package = sys.argv[1:3]
names = [entry.dist.name for entry in metadata.entry_points(group="console_scripts", name=program) if entry.dist]
version = None
for name in [*names, package]:
    try:
        version = metadata.version(name)
        break
    except metadata.PackageNotFoundError:
        pass
torch = None
spec = util.find_spec("torch")
if spec and spec.submodule_search_locations:
    told = runpy.run_path(os.path.join(spec.submodule_search_locations[0], "version.py"))
    torch = {name: told.get(name) for name in ("__version__", "cuda", "hip", "xpu")}
plugins = [name for name in ("torch_npu", "torch_musa", "torch_mlu") if util.find_spec(name)]
json.dump({"version": version, "torch": torch, "plugins": plugins}, sys.stdout)
"""
"""Reads what torch says of its own build without importing it, which would load the libraries of the GPUs."""

_AS_CUDA: Mapping[str, str] = {"corex": "corex", "metax": "maca", "maca": "maca", "ppu": "ppu"}
"""Word in the version of a torch that takes itself for one of CUDA → device type. Iluvatar's and MetaX's are as their
wheels are named; T-Head's is taken from its type of device and not confirmed."""

_PLUGINS: Mapping[str, str] = {"torch_npu": "npu", "torch_musa": "musa", "torch_mlu": "mlu"}


BY_HAND = (
    "install a build for the CPU by hand, and have it on PATH or name it with --engine-path (docs/engines.md)"
)


class BuildError(Exception):
    """A build cannot be used; ``str()`` is a sentence without a full stop."""


class EnvironmentSource(Protocol):
    """Who makes environments for engines on this worker."""

    async def made(self) -> Sequence[EngineBuild]:
        """The environments that are whole."""

    async def unable(self) -> str | None:
        """Why none can be made here, a clause; ``None`` when they can."""


@attrs.frozen
class FoundProgram:
    """A file that may be the program of an engine, and where it was found, in words."""

    path: str
    origin: str


def find_programs(
    name: str, configured: Path | None, path_env: str, beside: Path, places: Sequence[str] = ()
) -> list[FoundProgram]:
    """Where a program is: configured (itself, or the folder of its environment), ``beside`` GPUStack's own Python, on
    PATH, in the ``places`` of its installer; each file once. Blocking."""
    found: list[FoundProgram] = []
    if configured is not None:
        is_folder = os.path.isdir(configured)  # noqa: PTH112  # Path.is_dir raises where a folder above is closed to us
        found.append(
            FoundProgram(str(configured / "bin" / name if is_folder else configured), f"{name} as configured")
        )
    own = beside / name
    if own.is_file():
        found.append(FoundProgram(str(own), f"{name} beside gpustack"))
    on_path = shutil.which(name, path=path_env) if path_env else None
    if on_path is not None:
        found.append(FoundProgram(on_path, f"{name} on PATH"))
    installed = shutil.which(name, path=os.pathsep.join(places)) if places else None
    if installed is not None:
        found.append(FoundProgram(installed, f"{name} as installed"))
    seen: set[str] = set()
    return [one for one in found if not (one.path in seen or seen.add(one.path))]  # type: ignore[func-returns-value]


async def ask_program(
    engine: str,
    program: EngineProgram,
    found: FoundProgram,
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
) -> EngineBuild:
    """The build that lies at ``found``. Raises ``BuildError``. Takes ``deadline`` seconds at most. Cancellable."""
    if program.package is None:
        if program.version_file is not None:
            said = await _files.run(_text_of, Path(found.path).parent / program.version_file)
        else:
            said = await answer((found.path, *program.version_arguments), deadline=deadline, env=env)
        version = _VERSION.search(said)
        return EngineBuild(
            engine=engine,
            version=version[0] if version else None,
            origin=found.origin,
            path=found.path,
            drives=program.drives,
            on_cpu=program.on_cpu or not program.drives,
        )
    python = _python_of(found.path)
    command = (python, "-c", _PYTHON_QUESTION, program.name, program.package.name)
    said = await answer(command, deadline=deadline, env=env)
    try:
        told = json.loads(said.splitlines()[-1])
        version, drives = told["version"], _torch_drives(told["torch"], told["plugins"])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BuildError(f"{found.path} cannot be used: its Python does not say what it is") from error
    if version is None:
        raise BuildError(f"{found.path} cannot be used: its Python has no package {program.package.name}")
    return EngineBuild(
        engine=engine,
        version=printable(str(version), 64),
        origin=found.origin,
        path=found.path,
        drives=drives,
        on_cpu=program.on_cpu or not drives,
        advice=program.advice[:1].upper() + program.advice[1:],
        python=python,
    )


def _text_of(path: Path) -> str:
    """The beginning of a file; empty if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_VERSION_LIMIT)
    except OSError:
        return ""


def offer(
    engine: str, program: EngineProgram, device_types: Sequence[str], unable: str | None
) -> EngineBuild | None:
    """The build that this worker can install, or the one it lacks and why; ``None`` for an engine without package."""
    package = program.package
    if package is None:
        return None
    system, machine = platform.system(), platform.machine()
    why = None
    if system not in package.systems or machine not in package.machines:
        known = f"{_listed(package.systems)} on {_listed(package.machines)}"
        why = f"its package is for {known}, this is {system} {machine}"
    elif not program.on_cpu and not set(package.drives) & set(device_types):
        here = ", ".join(sorted(set(device_types)))
        why = f"its package is built for {_listed(package.drives)}, and this worker has {here or 'no GPU'}"
        advice = program.advice if here else BY_HAND
        why += f"; {advice}" if advice else ""
    elif unable is not None:
        why = unable
    if why is not None:
        return EngineBuild(engine=engine, presence=BuildPresence.MISSING, advice=why)
    return EngineBuild(
        engine=engine,
        version=package.default_version,
        origin="installed when needed",
        presence=BuildPresence.INSTALLABLE,
        drives=package.drives,
        on_cpu=program.on_cpu or not package.drives,
        advice=program.advice[:1].upper() + program.advice[1:],
    )


async def answer(argv: Sequence[str], *, deadline: float, env: Mapping[str, str] | None) -> str:
    """What a program wrote on both streams; raises ``BuildError`` when it failed."""
    said = await run_child(argv, deadline=deadline, env=env, limit=1 << 20)
    output = (said.err + b"\n" + said.out).decode("utf-8", "replace")
    if said.fault is not None or said.code != 0:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
        why = said.fault or f"exit code {said.code}" + (f", {printable(last, 200)}" if last else "")
        raise BuildError(f"{argv[0]} cannot be used: {' '.join(argv[1:2])} {why}")
    return output


def _torch_drives(torch: Mapping[str, str | None] | None, plugins: Sequence[str]) -> tuple[str, ...]:
    """The device types of a build of torch, as the detectors call them."""
    found = {_PLUGINS[name] for name in plugins}
    if torch is None:
        return tuple(sorted(found))
    version = str(torch["__version__"])
    if torch["hip"]:
        found.add("dcu" if "das" in version or "dtk" in version else "rocm")
    elif torch["cuda"]:
        found.add(next((kind for word, kind in _AS_CUDA.items() if word in version), "cuda"))
    if torch["xpu"]:
        found.add("xpu")
    if sys.platform == "darwin":
        found.add("mps")
    return tuple(sorted(found))


def _python_of(program: str) -> str:
    """The Python that runs a console script: beside the script itself, or named in its first line. Blocking, short."""
    folder = Path(os.path.realpath(program)).parent
    for name in ("python", "python3"):
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    try:
        with Path(program).open("rb") as file:
            first = file.read(_SHEBANG_LIMIT).split(b"\n", 1)[0].decode("utf-8", "replace")
    except OSError as error:
        raise BuildError(f"{program} cannot be used: {error.strerror}") from error
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    if words and Path(words[0]).name == "env":
        words = words[1:]
    python = shutil.which(words[0]) if words else None
    if python is None and words and (why := _closed(Path(words[0]))):
        raise BuildError(f"{program} cannot be used: {words[0]}, which runs it: {why}")
    if python is None or not Path(python).name.startswith(("python", "pypy")):
        raise BuildError(f"{program} cannot be used: it is no program of a Python environment")
    return python


def _closed(program: Path) -> str | None:
    """Why a program that is named by its path cannot be run by this user; ``None`` where nothing is known of it."""
    if not program.is_absolute():
        return None
    try:
        program.stat()
    except OSError as error:
        return error.strerror
    return None if os.access(program, os.X_OK) else os.strerror(errno.EACCES)


def _listed(words: Sequence[str]) -> str:
    return " or ".join(words) if words else "none"
