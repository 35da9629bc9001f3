"""Environments of engines that are Python packages, one for each version: made, listed and removed."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from gpustack import durable_file
from gpustack.artifacts.disk import NoSpace, disk, free_bytes, is_full
from gpustack.artifacts.file_lock import FileLocks
from gpustack.artifacts.install_run import (
    InstallJournal,
    InstallProgress,
    Tell,
    end_former_commands,
    run_command,
)
from gpustack.artifacts.installer import (
    NO_INSTALLER,
    Installer,
    PipxFolders,
    PythonInstallation,
    installer_environment,
)
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import BuildPresence, EngineBuild
from gpustack.engines.program import EngineProgram, PythonPackage, environment_name
from gpustack.errors import Unavailable
from gpustack.nursery.log_file import LogFile
from gpustack.text import said_by

log = logging.getLogger(__name__)

ORIGIN = "an environment that this worker made"
_MARK = "ready.json"
"""Written last. A folder without it is half made: it is never used, and removed before the next try."""
_PLAN = "plan.json"
"""Written first: what is to be here, so that what is half made can be recognised and removed."""
_NOTE_LIMIT = 64 << 10
_DEADLINE = 4 * 3600.0
"""Seconds that one command of an installation may take: several GB over a slow line."""


@attrs.frozen(kw_only=True)
class EnvironmentPlan:
    """The environment of an engine in a version, with what a deployment wanted beside it."""

    engine: str
    program: EngineProgram
    version: str
    wanted: tuple[str, ...] = ()

    @property
    def package(self) -> PythonPackage:
        assert self.program.package is not None, "only an engine with a package has environments"
        return self.program.package

    @property
    def shown(self) -> str:
        return f"{self.engine} {self.version}"

    @property
    def name(self) -> str:
        return environment_name(self.version, self.wanted)


@attrs.define(eq=False, repr=False)
class PythonEnvironments:
    """Owner of ``root``: a folder for each engine, in it one for each version (and set of requirements).

    Environments are made one at a time. ``find_installer`` is asked at each use: pipx or uv may be installed meanwhile.
    """

    root: Path
    pipx: PipxFolders
    find_installer: Callable[[], Installer | None]
    env: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ), repr=False)
    free: Callable[[Path], int] = free_bytes
    """Free bytes of the disk of a folder. Blocking."""
    clock: Callable[[], float] = trio.current_time
    deadline: float = _DEADLINE
    _turn: trio.Lock = attrs.field(factory=trio.Lock)
    _current: str = ""
    """What is being installed."""
    _locks: FileLocks = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._locks = FileLocks(self.root / ".claims")

    async def made(self) -> tuple[EngineBuild, ...]:
        """The environments that are whole, sorted; what their programs say of themselves is not asked."""
        return await disk.run(self._read_all)

    async def unable(self) -> str | None:
        """Why no environment can be made here, a clause; ``None`` when they can."""
        return None if await disk.run(self.find_installer) is not None else NO_INSTALLER

    async def make(
        self, plan: EnvironmentPlan, *, tell: Tell, log_file: LogFile | None = None
    ) -> EngineBuild:
        """The environment, made if it is not there. Takes minutes; what the installer writes goes to ``log_file``.

        Raises Unavailable (NoSpace) or NotFound with a sentence. Cancellable at any time: the installer is ended with
        all that it started, and what is half made is never used.
        """
        folder = self.root / plan.engine / plan.name
        if (found := await disk.run(_read, folder)) is not None:
            await disk.run(self.touch, found)
            return found
        if self._turn.locked():
            tell(f"Waiting to install {plan.shown}: {self._current} is being installed")
        async with self._turn:
            self._current = plan.shown
            try:
                async with self._locks.hold(folder):
                    found = await disk.run(_read, folder)
                    return found or await self._install(plan, folder, tell, log_file)
            except OSError as error:
                if is_full(error):
                    raise NoSpace(f"The disk of {self.root} is full: free some space") from error
                raise Unavailable(
                    f"{plan.shown} cannot be installed in {self.root}: {said_by(error)}"
                ) from error
            finally:
                self._current = ""

    async def remove(self, build: EngineBuild, *, unused_since: float) -> bool:
        """Remove an environment that ``made`` told of, unless it was used after ``unused_since`` (Unix time).

        Whoever calls this knows that no process runs from it. Returns whether it was removed.
        """
        folder = self.folder_of(build)
        async with self._locks.hold(folder):
            if await disk.run(self.used_at, build) > unused_since:
                return False
            await disk.run(self._clear, folder)
        return True

    async def remove_remains(self) -> None:
        """End what a former daemon was installing, and remove what is half made. Does nothing while one is made."""
        if self._turn.locked():
            return
        async with self._turn:
            await end_former_commands(self._states)
            for folder in await disk.run(self._half_made):
                async with self._locks.hold(folder):
                    await disk.run(self._clear, folder)

    def folder_of(self, build: EngineBuild) -> Path:
        """The folder of an environment that ``made`` told of."""
        return self.root / build.engine / environment_name(build.version or "", build.requirements)

    def touch(self, build: EngineBuild) -> None:
        """Note that the environment is in use now. Blocking."""
        mark = self.folder_of(build) / _MARK
        try:
            os.utime(mark)
        except OSError as error:
            log.debug("An environment cannot be marked as used: file=%s reason=%s", mark, error.strerror)

    def used_at(self, build: EngineBuild) -> float:
        """When it was last used or made (Unix time). Blocking."""
        mark = self.folder_of(build) / _MARK
        try:
            return mark.stat().st_mtime
        except OSError:
            return 0.0

    # --- making one

    async def _install(
        self, plan: EnvironmentPlan, folder: Path, tell: Tell, log_file: LogFile | None
    ) -> EngineBuild:
        installer = await disk.run(self.find_installer)
        if installer is None:
            raise Unavailable(f"{plan.shown} cannot be installed here: {NO_INSTALLER}")
        await end_former_commands(self._states)
        await disk.run(self._clear, folder)
        await self._check_space(plan)
        wanted = PythonInstallation(
            program=plan.program.name,
            requirements=plan.package.requirements(plan.version, plan.wanted),
            suffix=plan.name,
            folder=folder,
        )
        await disk.run(_begin, wanted)
        log.info(
            "Installing an engine: engine=%s version=%s with=%s", plan.engine, plan.version, installer.name
        )
        progress = InstallProgress(f"Installing {plan.shown} ({installer.name})", tell, self.clock)
        env = installer_environment(self.env, folder / "tmp")
        with log_file.opened() if log_file is not None else nullcontext(None) as log_fd:
            journal = InstallJournal(progress, log_fd)
            for command in installer.commands(wanted):
                if how := await run_command(command, env, journal, self._state_file(plan), self.deadline):
                    await disk.run(self._clear, folder)
                    how = f"{installer.name} {how}"
                    raise progress.output.failure(plan.shown, plan.package.name, str(self.root), how)
        program = installer.program(wanted)
        if not await trio.Path(program).exists():
            raise Unavailable(
                f"{plan.shown} cannot be installed: {plan.package.name} {plan.version} has no program "
                f"{plan.program.name}"
            )
        build = await disk.run(_mark, plan, folder, program)
        log.info(
            "Installed an engine: engine=%s version=%s seconds=%.0f bytes=%d",
            plan.engine,
            plan.version,
            progress.seconds,
            build.disk or 0,
        )
        return build

    async def _check_space(self, plan: EnvironmentPlan) -> None:
        free = await disk.run(self.free, self.root)
        if free < plan.package.disk:
            raise NoSpace(
                f"{plan.shown} cannot be installed: it takes about {human_bytes(plan.package.disk)}, and "
                f"{human_bytes(free)} are free in {self.root}; free some space, or move the data directory"
            )

    # --- the folder. Blocking.

    @property
    def _states(self) -> Path:
        return self.root / ".run"

    def _state_file(self, plan: EnvironmentPlan) -> Path:
        return self._states / f"{plan.engine}-{plan.name}.json"

    def _read_all(self) -> tuple[EngineBuild, ...]:
        found = (_read(mark.parent) for mark in sorted(self.root.glob(f"[!.]*/[!.]*/{_MARK}")))
        return tuple(build for build in found if build is not None)

    def _half_made(self) -> list[Path]:
        begun = (plan.parent for plan in self.root.glob(f"[!.]*/[!.]*/{_PLAN}"))
        return [folder for folder in begun if not folder.is_symlink() and _read(folder) is None]

    def _clear(self, folder: Path) -> None:
        """Remove the folder, its mark first, and what pipx has of it elsewhere."""
        (folder / _MARK).unlink(missing_ok=True)
        plan = _note(folder / _PLAN)
        if isinstance(package := plan.get("package"), str):
            self.pipx.clear(package, folder.name)
        shutil.rmtree(folder, ignore_errors=True)

    def __repr__(self) -> str:
        return f"<PythonEnvironments {self.root}: {self._current or 'nothing'} being installed>"


def _begin(wanted: PythonInstallation) -> None:
    """Make the folder, with the note of what is to be in it."""
    (wanted.folder / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
    package = re.match(r"[A-Za-z0-9._-]*", wanted.requirements[0])
    told = {"package": package[0] if package else "", "requirements": list(wanted.requirements)}
    durable_file.write(wanted.folder / _PLAN, json.dumps(told, indent=1) + "\n")


def _mark(plan: EnvironmentPlan, folder: Path, program: Path) -> EngineBuild:
    """Write the note that makes the environment whole."""
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    venv = Path(os.path.realpath(program)).parent.parent  # of pipx it lies elsewhere
    told = {
        "version": plan.version,
        "path": str(program),
        "requirements": list(plan.wanted),
        "disk": _size(venv),
    }
    durable_file.write(folder / _MARK, json.dumps(told, indent=1) + "\n")
    build = _read(folder)
    assert build is not None, "it was just written"
    return build


def _read(folder: Path) -> EngineBuild | None:
    """The environment in ``folder``, if it is whole."""
    told = _note(folder / _MARK)
    version, path, disk_used, wanted = (
        told.get(name) for name in ("version", "path", "disk", "requirements")
    )
    if not isinstance(version, str) or not isinstance(path, str) or not isinstance(wanted, list):
        return None
    if not Path(path).exists():
        return None
    return EngineBuild(
        engine=folder.parent.name,
        version=version,
        origin=ORIGIN,
        path=path,
        presence=BuildPresence.ISOLATED,
        requirements=tuple(str(one) for one in wanted),
        disk=disk_used if isinstance(disk_used, int) else None,
    )


def _note(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is none."""
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_NOTE_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _size(folder: Path) -> int:
    """The bytes on disk of all files below ``folder``."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += Path(place, name).lstat().st_blocks * 512
    return found
