"""Whether there is a Ray to run, where ``--enable-ray`` asks for it."""

from __future__ import annotations

import os

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.cli.daemon.engine_build import build_finder, python_environments
from gpustack.ray.program import ABSENT, ask_version, find


async def look(context: CheckContext) -> list[Finding]:
    if context.options is None or not context.options.enable_ray:
        return []
    path, options = context.env.get("PATH", os.defpath), context.options
    finder = build_finder(options, python_environments(options, context.env))
    builds = [build for build in await finder.find(None, path) if build.engine == "vllm"]
    found = find([build.path for build in builds], path)
    if found is None:
        why = "".join(f" Of vLLM: {build.advice}." for build in builds if build.path is None and build.advice)
        return [failed("--enable-ray is set, and there is no program ray", f"{ABSENT}.{why}")]
    program = await ask_version(found, context.env)
    if program.version is None:
        return [note(f"{program.path} does not say its version: a node of another one will not be noticed")]
    return [good(f"Ray {program.version} ({program.path})")]
