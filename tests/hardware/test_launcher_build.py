"""Builds of programs of our own: found by the libraries that are installed beside us, and asked for devices."""

from __future__ import annotations

import pytest

from gpustack.domain.worker import BuildPresence, EngineBuild
from gpustack.hardware.engine_build import BuildFinder
from gpustack.hardware.launcher_build import LauncherPart, LauncherProgram
from tests.child import environment

ABSENT = LauncherPart(module="no_such_module_here", distribution="no-such", purpose="listening")
PRESENT = LauncherPart(module="attrs", distribution="attrs", purpose="listening")
SECOND = LauncherPart(module="trio", distribution="trio", purpose="speaking")


async def build_of(*parts: LauncherPart, question: str = "") -> EngineBuild:
    program = LauncherProgram(engine="speech", extra="audio", parts=parts, question=question)
    finder = BuildFinder(env=environment(), programs={}, launchers=(program,))
    return next(build for build in await finder.find(None, "") if build.engine == "speech")


async def test_without_its_libraries_it_is_missing_and_says_what_to_install() -> None:
    build = await build_of(ABSENT)
    assert build.presence is BuildPresence.MISSING
    assert "extra [audio]" in build.advice


async def test_the_first_library_gives_the_version_and_all_are_named() -> None:
    build = await build_of(PRESENT, ABSENT, SECOND, question="print('{\"cuda\": false}')")
    assert build.presence is BuildPresence.INSTALLED
    assert build.version
    assert build.origin == f"attrs {build.version}, trio {build.origin.rpartition(' ')[2]}"
    assert (build.drives, build.on_cpu, build.advice) == ((), True, "")


async def test_it_drives_devices_where_its_library_says_so() -> None:
    assert (await build_of(PRESENT, question="print('noise\\n{\"cuda\": true}')")).drives == ("cuda",)


@pytest.mark.parametrize("question", ["raise SystemExit('libcublas.so.12 is not there')", "print('[]')", ""])
async def test_where_the_devices_cannot_be_told_it_runs_on_the_cpu(question: str) -> None:
    build = await build_of(PRESENT, question=question)
    assert build.presence is BuildPresence.INSTALLED
    assert build.drives == ()
    assert "No GPU is used" in build.advice


async def test_voices_alone_are_a_build_too() -> None:
    build = await build_of(ABSENT, SECOND)
    assert build.presence is BuildPresence.INSTALLED
    assert build.origin.startswith("trio ")
    assert "For listening install" in build.advice
