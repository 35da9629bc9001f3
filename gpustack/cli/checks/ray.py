"""Whether there is a Ray to run, where ``--enable-ray`` asks for it."""

from __future__ import annotations

import os

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.hardware.engine_build import find_builds
from gpustack.ray.program import ABSENT, ask_version, find


async def look(context: CheckContext) -> list[Finding]:
    if context.options is None or not context.options.enable_ray:
        return []
    path = context.env.get("PATH", os.defpath)
    beside = [build.path for build in await find_builds(None, path) if build.engine == "vllm"]
    found = find(beside, path)
    if found is None:
        return [failed("--enable-ray is set, and there is no program ray", f"{ABSENT}.")]
    program = await ask_version(found, context.env)
    if program.version is None:
        return [note(f"{program.path} does not say its version: a node of another one will not be noticed")]
    return [good(f"Ray {program.version} ({program.path})")]
