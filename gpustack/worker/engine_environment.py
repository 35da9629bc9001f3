"""The builds that instances run on: what is installed here, or an environment made when it is first needed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.disk import NoSpace
from gpustack.artifacts.environment import EnvironmentPlan, PythonEnvironments
from gpustack.artifacts.install_run import Tell
from gpustack.domain.model import Model
from gpustack.domain.worker import BuildPresence, EngineBuild, choose_build
from gpustack.engines.program import EngineProgram, environment_faults, requirements_of, version_of
from gpustack.errors import Invalid, Unavailable
from gpustack.hardware.engine_build import BuildFinder
from gpustack.hardware.engine_program import BuildError
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import LogFile
from gpustack.nursery.quarantine import Quarantine
from gpustack.worker.assignment_watcher import AssignmentWatcher

log = logging.getLogger(__name__)

KEEP = 86400.0
"""Seconds for which an environment is kept that no assigned deployment names. The worker does not see deployments that
run elsewhere or are stopped, and to fetch many GB again because one was stopped over night helps nobody."""
_LOOK_EVERY = 600.0
_READ_AT_MOST = 16 << 20
_threads = threads("engine environments", 2)


@attrs.define(eq=False, repr=False, kw_only=True)
class EngineEnvironments:
    """A service: gives instances their builds, and removes environments that no deployment here names any more."""

    environments: PythonEnvironments
    finder: BuildFinder
    builds: Callable[[], Awaitable[tuple[EngineBuild, ...]]]
    """Waits until the machine has been measured."""
    assignments: AssignmentWatcher
    now: Callable[[], datetime]
    keep: float = KEEP
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("engine-environments", clock=time.monotonic))
    name: str = "engine-environments"

    async def build_for(
        self, engine: str, model: Model, *, tell: Tell, log_file: LogFile | None = None
    ) -> EngineBuild:
        """The build that ``model`` runs on; a version that is not here yet is installed, which takes minutes.

        ``tell`` is told in sentences how far that is, and what the installer writes goes to ``log_file``. Raises a
        GpustackError with a sentence: not here and not installable, no such version, no space, no way to the index.
        Cancellable at any time.
        """
        program = self.finder.programs.get(engine)
        if faults := environment_faults(model, program):
            raise Invalid(*faults)
        version, wanted = version_of(model.backend_version), requirements_of(model, program)
        builds = await self.builds()
        found = choose_build(builds, engine, version, wanted)
        if found is None:
            raise Unavailable(_why_none(engine, version, builds))
        if found.presence is BuildPresence.ISOLATED:
            await _threads.run(self.environments.touch, found)
        if found.presence is not BuildPresence.INSTALLABLE:
            return found
        assert program is not None and found.version is not None, "an offer has a package and a version"
        plan = EnvironmentPlan(engine=engine, program=program, version=found.version, wanted=wanted)
        return await self._asked(await self._make(plan, tell, log_file))

    async def _make(self, plan: EnvironmentPlan, tell: Tell, log_file: LogFile | None) -> EngineBuild:
        """Make it; where the disk is short, what nobody uses goes first."""
        try:
            return await self.environments.make(plan, tell=tell, log_file=log_file)
        except NoSpace:
            if not await self.remove_unused(keep=0.0):
                raise
        return await self.environments.make(plan, tell=tell, log_file=log_file)

    async def _asked(self, made: EngineBuild) -> EngineBuild:
        """What the program in a new environment says of itself; at the next measurement all see it."""
        assert made.path is not None, "an environment has a program"
        try:
            asked = await self.finder.ask(made.engine, made.path, made.origin)
        except BuildError as fault:
            raise Unavailable(str(fault)) from fault
        return attrs.evolve(
            asked,
            version=made.version,
            presence=made.presence,
            requirements=made.requirements,
            disk=made.disk,
        )

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        revision = -1
        while True:
            revision, assigned = await self.assignments.latest.changed(revision)
            if not assigned.synced:
                continue
            with self._faults.row("what is half made"):
                await self.environments.remove_remains()
            with self._faults.row("unused"):
                await self.remove_unused(keep=self.keep)
            await trio.sleep(_LOOK_EVERY)

    async def remove_unused(self, *, keep: float) -> int:
        """Remove the environments that were not used for ``keep`` seconds; returns how many.

        Used is one that a deployment assigned here names, and one from which a process runs.
        """
        removed = 0
        made, unused = await self.environments.made(), []
        for build in made:
            if self._is_named(build):
                await _threads.run(self.environments.touch, build)
            else:
                unused.append(build)
        before = self.now().timestamp() - keep
        old = [build for build in unused if await _threads.run(self.environments.used_at, build) <= before]
        folders = {build: _folders(self.environments.folder_of(build), build) for build in old}
        running = await _threads.run(in_use, {folder for found in folders.values() for folder in found})
        for build in old:
            with self._faults.row((build.engine, build.version, build.requirements)):
                if running.isdisjoint(folders[build]) and await self.environments.remove(
                    build, unused_since=before
                ):
                    removed += 1
                    log.info(
                        "Removed an engine that no deployment here names: engine=%s version=%s bytes=%d",
                        build.engine,
                        build.version,
                        build.disk or 0,
                    )
        return removed

    def _is_named(self, build: EngineBuild) -> bool:
        """Whether an assigned deployment names it; which engine one runs that names no backend is not asked."""
        program = self.finder.programs.get(build.engine)
        default = None if program is None or program.package is None else program.package.default_version
        for model in self.assignments.latest.value.state.models.values():
            version = version_of(model.backend_version) or default
            if version == build.version and requirements_of(model, program) == build.requirements:
                return True
        return False

    def __repr__(self) -> str:
        return f"<EngineEnvironments: {self.environments!r}>"


def program_environment(
    build: EngineBuild, program: EngineProgram | None, env: Mapping[str, str]
) -> dict[str, str]:
    """What an engine that is a Python program gets in its environment beyond ``env``, the daemon's.

    Programs beside it are found first: engines call compilers that came with their packages. An environment of its own
    sees no packages of others.
    """
    if program is None or program.package is None or build.path is None:
        return {}
    folder = Path(os.path.realpath(build.path)).parent
    found = {"PATH": f"{folder}{os.pathsep}{env.get('PATH', os.defpath)}"}
    if build.presence is BuildPresence.ISOLATED:
        found |= {"VIRTUAL_ENV": str(folder.parent), "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
    return found


def in_use(folders: Collection[Path]) -> set[Path]:
    """Those of ``folders`` from which a process runs: by its command line, or by a library that it has loaded.

    Blocking. Processes of other users cannot be looked into, and are none of ours.
    """
    found: set[Path] = set()
    marks = {folder: f"{folder}{os.sep}".encode() for folder in folders}
    if not marks:
        return found
    for text in _traces():
        found |= {folder for folder, mark in marks.items() if mark in text}
    return found


def _traces() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "maps"):
            try:
                with (process / name).open("rb") as file:
                    yield file.read(_READ_AT_MOST)
            except OSError:
                continue  # it has ended, or is somebody else's


def _folders(folder: Path, build: EngineBuild) -> set[Path]:
    """Where the files of an environment are: pipx has them elsewhere."""
    found = {folder, folder.resolve()}
    if build.path is not None:
        found.add(Path(os.path.realpath(build.path)).parent.parent)
    return found


def _why_none(engine: str, version: str | None, builds: tuple[EngineBuild, ...]) -> str:
    mine = [build for build in builds if build.engine == engine]
    advice = next((build.advice for build in mine if build.presence is BuildPresence.MISSING), "")
    if version is None and any(build.presence is BuildPresence.INSTALLABLE for build in mine):
        advice = "name a version with backend_version, and it is installed"
    wanted = f"{engine} {version}" if version else f"{engine} engine"
    return f"This worker has no {wanted}" + (f": {advice}" if advice else "; run 'gpustack doctor' there")
