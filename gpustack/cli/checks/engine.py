"""Whether there is an engine, and whether it can use the GPUs."""

from __future__ import annotations

from datetime import UTC, datetime

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.hardware.detection import DeviceMonitor
from gpustack.hardware.engine_build import find_builds


async def look(context: CheckContext) -> list[Finding]:
    if context.loaded is not None and context.loaded.role == "server":
        return [note("this is a server without a worker: engines run elsewhere")]
    configured = None if context.options is None else context.options.llama_server_path
    builds = await find_builds(None if configured is None else str(configured), context.env.get("PATH", ""))
    builds = tuple(build for build in builds if build.engine != "custom")
    if not builds:
        fix = "pip install xllamacpp, or put a llama-server on PATH (or name it with --llama-server-path)."
        return [failed("no engine was found: GGUF models cannot run", fix)]
    devices = (await DeviceMonitor().look(datetime.now(UTC))).devices
    types = {str(device.type) for device in devices}
    found = []
    for build in builds:
        said = f"{build.engine} {build.version or ''} ({build.origin})".replace("  ", " ")
        if types and not types & set(build.drives):
            found.append(note(f"{said} uses none of the GPUs here", build.advice))
        else:
            found.append(
                good(f"{said}{', drives ' + ', '.join(build.drives) if build.drives else ', on the CPU'}")
            )
    return found
