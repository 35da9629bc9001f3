"""Instances get the build that their deployment names, and environments that nobody names are removed."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from gpustack.artifacts.disk import NoSpace
from gpustack.artifacts.environment import PythonEnvironments
from gpustack.artifacts.installer import PipxFolders, VenvInstaller
from gpustack.domain.assignment import AssignmentState
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB
from gpustack.domain.worker import BuildPresence, EngineBuild
from gpustack.engines.program import EngineProgram, PythonPackage
from gpustack.errors import Invalid, NotFound, Unavailable
from gpustack.hardware.engine_build import BuildFinder
from gpustack.nursery.wake import AsyncValue
from gpustack.worker.assignment_watcher import AssignmentSnapshot
from gpustack.worker.engine_environment import EngineEnvironments, in_use, program_environment
from tests.child import environment
from tests.engines.worlds import model
from tests.fakes.wheels import index_environment, make_wheel
from tests.stumble import Stumble

PROGRAM = EngineProgram(
    name="vllm",
    package=PythonPackage(name="vllm", default_version="0.12.0", disk=GIB),
    advice="see the manual",
)


@attrs.frozen
class Assignments:
    """What a server wants of this worker."""

    latest: AsyncValue[AssignmentSnapshot] = attrs.field(factory=lambda: AsyncValue(AssignmentSnapshot()))

    def name(self, *models: Model) -> None:
        state = AssignmentState(models={one.id: one for one in models})
        self.latest.set(AssignmentSnapshot(state=state, synced=True))


@attrs.define
class World:
    """A worker's builds, from a folder of wheels."""

    one: EngineEnvironments
    assignments: Assignments
    told: list[str]
    free: int = 100 * GIB

    async def build_for(self, version: str | None, requirements: str = "") -> EngineBuild:
        return await self.one.build_for("vllm", asks(version, requirements), tell=self.told.append)

    async def versions(self) -> list[str | None]:
        return [build.version for build in await self.one.environments.made()]


def asks(version: str | None, requirements: str = "", key: int = 1) -> Model:
    env = {"GPUSTACK_BACKEND_DEPS": requirements} if requirements else {}
    return attrs.evolve(model(), id=key, backend_version=version, env=env)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("0.11.0", "0.12.0"):
        make_wheel(folder, "vllm", version, program="vllm")
    make_wheel(folder, "extra", "1.0")
    return folder


@pytest.fixture
def world(tmp_path: Path, index: Path) -> World:
    def free(_: Path) -> int:
        return made.free

    env = {**environment(), **index_environment(index)}
    environments = PythonEnvironments(
        tmp_path / "venvs",
        PipxFolders(tmp_path / "pipx", tmp_path / "bin"),
        VenvInstaller,
        env=env,
        free=free,
    )
    finder = BuildFinder(env=environment(), programs={"vllm": PROGRAM}, environments=environments)

    async def builds() -> tuple[EngineBuild, ...]:
        return await finder.find(None, "")

    assignments = Assignments()
    one = EngineEnvironments(
        environments=environments,
        finder=finder,
        builds=builds,
        assignments=assignments,  # type: ignore[arg-type]
        now=lambda: datetime.now(UTC),
    )
    made = World(one, assignments, [])
    return made


async def test_the_version_that_a_deployment_names_is_installed_once(world: World) -> None:
    first = await world.build_for("v0.11.0")
    assert (first.version, first.presence, first.on_cpu) == ("0.11.0", BuildPresence.ISOLATED, True)
    assert first.python == str(Path(str(first.path)).parent / "python")
    assert any(sentence.startswith("Installing vllm 0.11.0 (venv and pip): ") for sentence in world.told)
    world.told.clear()
    assert await world.build_for("0.11.0") == first
    assert not world.told
    default, other = await world.build_for(None), await world.build_for(None, "extra==1.0")
    assert (default.version, other.version, other.requirements) == ("0.12.0", "0.12.0", ("extra==1.0",))
    assert len({first.path, default.path, other.path}) == 3


async def test_what_cannot_be_had_is_told(world: World) -> None:
    with pytest.raises(
        NotFound, match=r"vllm 0\.13\.0 cannot be installed: .*the nearest are 0\.11\.0, 0\.12\.0"
    ):
        await world.build_for("0.13.0")
    with pytest.raises(Invalid, match="which is no requirement"):
        await world.build_for("0.11.0", "--index-url=http://x")
    with pytest.raises(Unavailable, match="This worker has no other engine; run 'gpustack doctor' there"):
        await world.one.build_for("other", asks(None), tell=world.told.append)
    world.one.environments.find_installer = lambda: None
    with pytest.raises(
        Unavailable, match=r"This worker has no vllm 0\.13\.0: this Python has neither pip nor"
    ):
        await world.build_for("0.13.0")


async def test_only_what_nobody_names_is_removed_and_only_after_a_while(world: World) -> None:
    await world.build_for("0.11.0")
    await world.build_for("0.12.0")
    await world.build_for("0.12.0", "extra==1.0")
    world.assignments.name(asks("v0.11.0"), asks(None, "extra==1.0", key=2))
    assert await world.one.remove_unused(keep=3600) == 0
    assert await world.one.remove_unused(keep=0.0) == 1
    made = await world.one.environments.made()
    assert [(one.version, one.requirements) for one in made] == [("0.11.0", ()), ("0.12.0", ("extra==1.0",))]
    world.assignments.name(asks(None))
    assert await world.one.remove_unused(keep=0.0) == 2


async def test_none_is_removed_while_a_process_runs_from_it(world: World) -> None:
    build = await world.build_for("0.11.0")
    world.assignments.name()
    async with running(str(build.path), "--port", "0"):
        assert await world.one.remove_unused(keep=0.0) == 0
        assert await world.versions() == ["0.11.0"]
    assert await world.one.remove_unused(keep=0.0) == 1


async def test_where_the_disk_is_short_what_nobody_uses_goes_first(world: World) -> None:
    await world.build_for("0.11.0")
    world.assignments.name(asks("0.11.0"))
    world.free = 0
    with pytest.raises(NoSpace, match=r"it takes about 1\.0 GiB, and .* are free"):
        await world.build_for("0.12.0")
    assert await world.versions() == ["0.11.0"]
    world.assignments.name()
    with pytest.raises(NoSpace):
        await world.build_for("0.12.0")
    assert await world.versions() == []


async def test_the_service_begins_once_the_server_has_told_what_is_wanted(world: World) -> None:
    build = await world.build_for("0.11.0")
    half = world.one.environments.root / "vllm/0.9.0"
    half.mkdir()
    (half / "plan.json").write_text("{}")
    mark = world.one.environments.folder_of(build) / "ready.json"
    os.utime(mark, (1, 1))
    async with trio.open_nursery() as nursery:
        await nursery.start(world.one.run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert half.exists()
        assert mark.exists()
        world.assignments.name()
        with trio.fail_after(180):
            while half.exists() or await world.versions():  # noqa: ASYNC110  a folder sets no event
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()


async def test_one_that_cannot_be_removed_keeps_none_of_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("0.1", "0.2", "0.3"):
        folder = world.one.environments.root / "vllm" / version
        (folder / "venv/bin").mkdir(parents=True)
        program = folder / "venv/bin/vllm"
        program.touch()
        told = {"version": version, "path": str(program), "requirements": [], "disk": 1}
        (folder / "ready.json").write_text(json.dumps(told))
    stumble = Stumble(PythonEnvironments, "remove", lambda self, build, **more: build.version == "0.1", 1)
    stumble.put(monkeypatch)
    assert await world.one.remove_unused(keep=0.0) == 2
    assert await world.versions() == ["0.1"]
    assert await world.one.remove_unused(keep=0.0) == 1


@asynccontextmanager
async def running(*argv: str) -> AsyncIterator[None]:
    process = await trio.lowlevel.open_process(list(argv))
    try:
        with trio.fail_after(180):
            while not in_use({Path(argv[0]).parent}):  # noqa: ASYNC110  another process sets no event
                await trio.sleep(0.02)
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("presence", "more"),
    [
        (BuildPresence.INSTALLED, {}),
        (BuildPresence.ISOLATED, {"VIRTUAL_ENV": "/opt/venv", "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}),
    ],
)
def test_an_engine_finds_the_programs_of_its_environment_first(
    presence: BuildPresence, more: dict[str, Any]
) -> None:
    build = EngineBuild(engine="vllm", path="/opt/venv/bin/vllm", presence=presence)
    found = program_environment(build, PROGRAM, {"PATH": "/usr/bin", "PYTHONPATH": "/mine"})
    assert found == {"PATH": "/opt/venv/bin:/usr/bin", **more}
    assert program_environment(build, None, {}) == {}
