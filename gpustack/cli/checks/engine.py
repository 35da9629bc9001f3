"""Which engines are here or can be installed, and whether they can use the GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.cli.daemon.engine_build import build_finder, python_environments
from gpustack.domain.device import Device
from gpustack.domain.unit import human_bytes
from gpustack.domain.worker import BuildPresence, EngineBuild
from gpustack.hardware.detection import DeviceMonitor
from gpustack.hardware.engine_build import BuildFinder

_THERE = (BuildPresence.INSTALLED, BuildPresence.ISOLATED)


async def look(context: CheckContext) -> list[Finding]:
    if context.loaded is not None and context.loaded.role == "server":
        return [note("this is a server without a worker: engines run elsewhere")]
    devices = (await DeviceMonitor().look(datetime.now(UTC))).devices
    builds = [build for build in await _builds(context, devices) if build.engine != "custom"]
    found = []
    if not any(build.presence in _THERE for build in builds):
        fix = "pip install xllamacpp, or put a llama-server on PATH (or name it with --llama-server-path)."
        found.append(failed("no engine was found: GGUF models cannot run", fix))
    types = {str(device.type) for device in devices}
    return [*found, *(_told(build, types) for build in builds)]


async def _builds(context: CheckContext, devices: Sequence[Device]) -> tuple[EngineBuild, ...]:
    search, options = context.env.get("PATH", ""), context.options
    if options is None:
        return await BuildFinder().find(None, search, devices)
    configured = None if options.llama_server_path is None else str(options.llama_server_path)
    finder = build_finder(options, python_environments(options, context.env))
    return await finder.find(configured, search, devices)


def _told(build: EngineBuild, types: set[str]) -> Finding:
    if build.presence is BuildPresence.MISSING:
        return note(f"{build.engine} is not here", build.advice)
    if build.presence is BuildPresence.INSTALLABLE:
        version = "" if build.version is None else f", {build.version} where it names no version"
        return good(f"{build.engine} is installed when a deployment needs it{version}")
    said = build.shown if build.disk is None else f"{build.shown}, {human_bytes(build.disk)}"
    if types and not types & set(build.drives):
        return note(f"{said} uses none of the GPUs here", build.advice)
    return good(f"{said}{', drives ' + ', '.join(build.drives) if build.drives else ', on the CPU'}")
